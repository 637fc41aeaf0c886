"""Forward and backward pass of one micro-batch, from the same operators as inference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from costsim.dtypes import bytes_per_element
from costsim.engine.layout import Layout
from costsim.engine.passes import Pass, add_layers
from costsim.engine.settings import EngineSettings
from costsim.hardware.accelerator import Hardware
from costsim.kernels.calibration import Calibration
from costsim.models.architecture import Attention, Layers, Model
from costsim.ops.attention import local_kv_heads
from costsim.ops.queue import Queue
from costsim.ops.shape import Machine, Tokens
from costsim.ops.tally import Tally
from costsim.training.experts import retime_experts
from costsim.training.plan import TrainingPlan

# Backward over forward time. A GEMM has two (inputs' and weights' gradients); flash attention
# five matrix products for two (Dao 2023, arXiv:2307.08691, section 3.1.2); norms and
# activations read and write about twice as much.
BACKWARD = {"gemm": 2.0, "attention": 2.5, "scores": 2.0, "elementwise": 2.0, "network": 1.0}
# With sequence parallelism the input of each sublayer is gathered once more for the weights'
# gradients (Korthikanti et al. 2022, section 4.2.2): three half all-reduces for two.
SEQUENCE_PARALLEL_NETWORK = 1.5
# Bytes per attention score that kernels before flash attention move in the forward pass:
# scores written, softmax read and written, dropout read, written with its mask, read by A·V.
SCORE_BYTES = 13.0
# Bytes per logit in the forward pass: written, read and normalised in fp32.
LOGIT_BYTES = 10.0
_ELEMENTWISE = ("norm and residual", "activation", "rope and cache write", "embedding",
                "quantise", "cross entropy", "sampling")
_ATTENTION = ("attention (prefill)", "indexer")


@dataclass(frozen=True)
class Seconds:
    """Seconds of a forward pass by class of operator; arrays.

    Args:
        gemm, attention, elementwise, network: as named; launches are with their operator.
        scores: traffic of attention scores that unfused kernels write to memory.
        flop: per accelerator.
        log_error: of the sum.
    """

    gemm: Any = 0.0
    attention: Any = 0.0
    scores: Any = 0.0
    elementwise: Any = 0.0
    network: Any = 0.0
    flop: Any = 0.0
    log_error: Any = 0.0

    @property
    def compute(self) -> Any:
        """Everything but messages."""
        return self.gemm + self.attention + self.scores + self.elementwise

    @property
    def total(self) -> Any:
        """All of it."""
        return self.compute + self.network


@dataclass(frozen=True)
class MicroBatch:
    """Passes of one micro-batch.

    Args:
        layers: forward, through all layers on one accelerator of each stage in turn.
        ends: embedding, LM head and loss.
        expansion: of ``layers``, what expands latent keys and values.
    """

    layers: Seconds
    ends: Seconds
    expansion: Seconds


def micro_batch(
    model: Model, hardware: Hardware, calibration: Calibration, plan: TrainingPlan
) -> MicroBatch:
    """Return the forward seconds of one micro-batch.

    Args:
        model, hardware, calibration: what runs on what.
        plan: batch, sequence, layout and data types.
    """
    on = _pass(model, hardware, calibration, plan)
    tokens = _tokens(plan)
    layers, ends = Tally(), Queue()
    for kind in trained_layers(model, plan):
        _add_kind(layers, on, kind, tokens, plan)
    heads = 1 + (model.mtp_layers if plan.multi_token_prediction else 0)
    _add_ends(ends, on, tokens.all, heads)
    expansion = Seconds(gemm=layers.by_operator.get("latent expansion", 0.0))
    return MicroBatch(_seconds(layers), _seconds(ends.price()), expansion)


def _add_kind(tally: Tally, on: Pass, kind: Layers, tokens: Tokens, plan: TrainingPlan) -> None:
    queue = Queue()
    add_layers(queue, on, kind, tokens, kind.count)
    if isinstance(kind.mixer, Attention):
        _add_scores(queue, on, kind.mixer, plan, kind.count)
        _add_context_gather(queue, on, kind.mixer, plan, kind.count)
    own = queue.price()
    if kind.ffn is not None and kind.ffn.kind == "moe":
        retime_experts(own, on, kind.ffn, tokens, kind.count)
    for name, seconds in own.by_operator.items():
        tally.by_operator[name] = tally.by_operator.get(name, 0.0) + seconds
        tally.error[name] = tally.error.get(name, 0.0) + own.error[name]
    tally.network |= own.network
    tally.flop = tally.flop + own.flop


def trained_layers(model: Model, plan: TrainingPlan) -> tuple[Layers, ...]:
    """Return the layers that are trained, MTP layers of the last kind included."""
    if not (plan.multi_token_prediction and model.mtp_layers):
        return model.layers
    return (*model.layers, replace(model.layers[-1], count=model.mtp_layers))


def _pass(
    model: Model, hardware: Hardware, calibration: Calibration, plan: TrainingPlan
) -> Pass:
    at = plan.layout
    layout = Layout(tp=at.tp, ep=at.ep, dp=at.expert_groups,
                    sequence_parallel=plan.sequence_parallel)
    return Pass(model, Machine(hardware, calibration), layout, plan.precision, EngineSettings())


def _tokens(plan: TrainingPlan) -> Tokens:
    """Return a micro-batch as prompts: each rank holds its share of the sequence.

    A context-parallel rank's tokens see half the sequence on average (ranks hold an early and a
    late slice); without fused attention the masked half is computed as well.
    """
    ranks = np.asarray(plan.layout.cp, float)
    share = plan.sequence / ranks
    seen = 0.5 * (plan.sequence - share) + (0.0 if plan.fused_attention else 0.5 * plan.sequence)
    batch = np.asarray(plan.layout.micro_batch, float)
    return Tokens(prefill_requests=batch, prefill_tokens=share, prefill_context=seen,
                  all_groups=batch * share * plan.layout.expert_groups)


def _add_scores(queue: Queue, on: Pass, a: Attention, plan: TrainingPlan, count: int) -> None:
    """Add the traffic of attention scores that unfused kernels write to memory."""
    if plan.fused_attention:
        return
    rows = np.asarray(plan.layout.micro_batch, float) * plan.sequence / plan.layout.cp
    scores = rows * plan.sequence * a.heads / np.asarray(plan.layout.tp, float)
    moved = on.machine("elementwise", bytes=SCORE_BYTES * scores)
    queue.add("attention scores", moved, count)


def _add_context_gather(
    queue: Queue, on: Pass, a: Attention, plan: TrainingPlan, count: int
) -> None:
    """Add the gathering of keys and values over context-parallel ranks."""
    ranks = np.asarray(plan.layout.cp, float)
    if not np.any(ranks > 1):
        return
    heads = local_kv_heads(a.kv_heads, plan.layout.tp)
    width = a.kv_lora_rank + a.rope_head_dim or heads * (a.head_dim + a.v_head_dim)
    message = np.asarray(plan.layout.micro_batch, float) * plan.sequence * width * 2.0
    latency = on.machine("all_gather", ranks=ranks, message_bytes=message)
    queue.add("context exchange", latency, count, ranks > 1)


def _add_ends(queue: Queue, on: Pass, tokens: Any, heads: int) -> None:
    """Add embedding, LM heads over all tokens, and the loss."""
    model, tp = on.model, np.asarray(on.layout.tp, float)
    moved = tokens * model.hidden_size * 4.0
    queue.add("embedding", on.machine("elementwise", bytes=moved))
    width = model.vocab_size / tp
    head = on.machine("gemm", m=tokens, n=width, k=model.hidden_size, dtype="bf16",
                      activation="bf16")
    queue.add("lm head", head, heads)
    loss = on.machine("elementwise", bytes=LOGIT_BYTES * tokens * width)
    queue.add("cross entropy", loss, heads)


def _seconds(tally: Tally) -> Seconds:
    parts: dict[str, Any] = dict.fromkeys(BACKWARD, 0.0)
    for name, seconds in tally.by_operator.items():
        parts[_class_of(name, tally)] = parts[_class_of(name, tally)] + seconds
    return Seconds(**parts, flop=tally.flop, log_error=tally.log_error)


def _class_of(name: str, tally: Tally) -> str:
    if name in tally.network:
        return "network"
    if name in _ATTENTION:
        return "attention"
    if name == "attention scores":
        return "scores"
    return "elementwise" if name in _ELEMENTWISE else "gemm"


def backward(forward: Seconds, plan: TrainingPlan) -> Seconds:
    """Return the backward pass without recomputation."""
    network: Any = BACKWARD["network"]
    if plan.sequence_parallel:
        network = network * np.where(np.asarray(plan.layout.tp) > 1, SEQUENCE_PARALLEL_NETWORK, 1.0)
    return replace(
        forward, gemm=BACKWARD["gemm"] * forward.gemm,
        attention=BACKWARD["attention"] * forward.attention,
        scores=BACKWARD["scores"] * forward.scores,
        elementwise=BACKWARD["elementwise"] * forward.elementwise,
        network=network * forward.network, flop=2.0 * forward.flop)


def recomputed(micro: MicroBatch, plan: TrainingPlan) -> Seconds:
    """Return what of a forward pass through the layers is done again before the backward pass.

    ``selective`` recomputes the attention between the projections, where scores would take most
    of the memory; flash attention does that inside its backward pass, at no extra cost. Latent
    attention expands its keys and values again (DeepSeek-V3, arXiv:2412.19437, section 3.2.3).
    """
    if plan.recompute == "full":
        return micro.layers
    if plan.recompute == "none":
        return Seconds()
    if plan.fused_attention:
        return micro.expansion
    return Seconds(micro.expansion.gemm, micro.layers.attention, micro.layers.scores)


def communication_bytes(plan: TrainingPlan) -> float:
    """Return the bytes of one element of a message between stages."""
    return bytes_per_element(plan.precision.communication)
