"""Models with random weights for ``costsim validate engine``, and calls that run one step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np

from costsim import loading
from costsim.models.architecture import Model
from costsim.models.huggingface import read_table

FILE = Path(__file__).with_name("engine_models.toml")
_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
           "tie_word_embeddings": False, "max_position_embeddings": 8192}


@dataclass(frozen=True)
class Point:
    """One step that is timed.

    Args:
        phase: ``decode`` or ``prefill``.
        requests: in the step.
        tokens: cached tokens of each (decode) or new tokens of each (prefill).
    """

    phase: str
    requests: int
    tokens: int

    def __str__(self) -> str:
        return f"{self.phase} {self.requests}x{self.tokens}"


@dataclass(frozen=True)
class Spec:
    """One model to build and the steps to time.

    Args:
        name: of the model.
        config: Hugging Face configuration.
        points: steps.
        pair: dense model of the same active parameters, for mixtures of experts.
        host: whether it only serves to measure the host's time.
        stream_bytes: that stream through the caches before each of its linear layers.
    """

    name: str
    config: dict[str, Any]
    points: tuple[Point, ...]
    pair: str = ""
    host: bool = False
    stream_bytes: float = 0.0

    @property
    def moe(self) -> bool:
        """Whether it is a mixture of experts."""
        return "num_experts_per_tok" in self.config

    @property
    def model(self) -> Model:
        """The architecture as costsim sees it."""
        return read_table(self.config, self.name, self.name)


def specs(quick: bool) -> list[Spec]:
    """Return the models of the quick or the full run, those for the host's time first."""
    table = loading.read_toml(FILE)
    usual, host = table["points"]["quick" if quick else "full"], table["host"]
    found = [
        Spec(f"host-{layers}-{stream:.0e}",
             _config({**host["config"], "num_hidden_layers": layers}),
             (Point("decode", *host["decode"]),), host=True, stream_bytes=stream)
        for layers, stream in product(host["layers"], host["streams"])]
    for row in table["models"]:
        if row.get("full") and quick:
            continue
        points = table["points"][row["points"]] if "points" in row else usual
        found.append(Spec(row["name"], _config(row["config"]), _points(points),
                          row.get("pair", "")))
    return found


def _config(given: dict[str, Any]) -> dict[str, Any]:
    return {**_TOKENS, **{k: None if v == "none" else v for k, v in given.items()}}


def _points(table: dict[str, Any]) -> tuple[Point, ...]:
    return tuple(Point(phase, *pair) for phase in ("decode", "prefill") for pair in table[phase])


class RunningModel:
    """A model built by transformers, with calls that run one step each.

    Args:
        spec: which.
        device, dtype: where and in what (``fp32`` or ``bf16``).
        experts: the library's implementation of experts.
        seed: of weights and tokens.
    """

    def __init__(self, spec: Spec, device: str, dtype: str, experts: str, seed: int = 0) -> None:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.manual_seed(seed)
        self.torch, self.spec, self.device = torch, spec, device
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
        given = dict(spec.config)
        self.config = AutoConfig.for_model(given.pop("model_type"), **given)
        if spec.moe:
            self.config._experts_implementation = experts
        built = AutoModelForCausalLM.from_config(
            self.config, dtype=self.dtype, attn_implementation="sdpa")
        # Embeddings of the size of what the layers add: tokens stay different through all layers,
        # so that random routers spread them over the experts as evenly as trained ones do.
        torch.nn.init.normal_(built.get_input_embeddings().weight)
        self.model = built.to(device).eval()
        self.random = np.random.default_rng(seed)
        self.aside_s = 0.0

    def stream_before_linears(
        self, streaming: Callable[[], object], clock: Callable[[], float]
    ) -> None:
        """Stream other weights through the caches before every linear layer.

        A small model then finds them as a large one does; the time this takes adds up in
        ``aside_s``.

        Args:
            streaming: moves the weights.
            clock: tells the time.
        """
        def hook(module: Any, inputs: Any) -> None:
            start = clock()
            streaming()
            self.aside_s += clock() - start

        for module in self.model.modules():
            if isinstance(module, self.torch.nn.Linear):
                module.register_forward_pre_hook(hook)

    @property
    def parameters(self) -> int:
        """Parameters that it really has."""
        return sum(p.numel() for p in self.model.parameters())

    def _tokens(self, requests: int, length: int) -> Any:
        ids = self.random.integers(3, self.config.vocab_size, (requests, length))
        return self.torch.from_numpy(ids).to(self.device)

    def call(self, point: Point) -> Callable[[], object]:
        """Return a call that runs the step of a point."""
        return self._decode(point) if point.phase == "decode" else self._prefill(point)

    def _prefill(self, point: Point) -> Callable[[], object]:
        prompts = cycle([self._tokens(point.requests, point.tokens) for _ in range(4)])

        def run() -> object:
            with self.torch.inference_mode():
                return self.model(input_ids=next(prompts), use_cache=True, logits_to_keep=1)

        return run

    def _decode(self, point: Point) -> Callable[[], object]:
        from transformers import DynamicCache

        cache, config = DynamicCache(config=self.config), self.config
        head = getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads)
        shape = (point.requests, config.num_key_value_heads, point.tokens, head)
        few = self.torch.randn(1 << 14, device=self.device).to(self.dtype)
        size = int(np.prod(shape))
        many = few.repeat(size // few.numel() + 1)[:size].view(shape)
        for layer in range(config.num_hidden_layers):
            cache.update(many.clone(), many.clone(), layer)
        following = cycle([self._tokens(point.requests, 1) for _ in range(16)])

        def run() -> object:
            # Each call decodes the same position: the token of the one before is cut off, a view
            # of what it wrote, so that memory is taken and freed as in a cache that grows.
            for layer in cache.layers:
                layer.keys = layer.keys[:, :, :point.tokens]
                layer.values = layer.values[:, :, :point.tokens]
            with self.torch.inference_mode():
                return self.model(input_ids=next(following), use_cache=True, logits_to_keep=1,
                                  **{self._cache_argument: cache})

        return run

    @property
    def _cache_argument(self) -> str:
        from inspect import signature

        return "cache" if "cache" in signature(self.model.forward).parameters else (
            "past_key_values")


