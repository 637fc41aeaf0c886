"""Real vLLM runs against the simulator: the same arrivals and lengths, kernel times only.

The folders hold a run of a vLLM server (times of each request) and a kernel profile of the same
engine, accelerator and model, as published with LLMServingSim. Nothing is fitted to the requests.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from costsim.errors import InputError
from costsim.hardware.accelerator import Hardware
from costsim.hardware.loader import load_hardware
from costsim.loading import read_json, read_toml
from costsim.models.architecture import Attention, FeedForward, Model
from costsim.models.loader import load_model
from costsim.serving.fleet import ReplicaSpec
from costsim.serving.profile_cost import (
    AttentionTable,
    Curve,
    ExpertProfileCost,
    KernelProfile,
    ProfileCost,
    UnequalTable,
)
from costsim.serving.results import SimulationResult
from costsim.serving.scheduler import Scheduler
from costsim.serving.simulation import simulate
from costsim.serving.traffic import generated

REPEATS = {"layernorm": 2}
ONCE = ("embedding", "final_layernorm")
KV_TOKENS = 400_000
"""Neither server ran out of cache (``kv_cache_pct`` of its time series); any large size will do."""


@dataclass(frozen=True)
class ServerRun:
    """Times of the requests of a real server (s, from the first arrival).

    Args:
        prompt, output: tokens.
        arrival: at the front end, on the engine's clock.
        queued: the engine has noticed the request.
        first_token, last_token: leave the engine.
    """

    prompt: np.ndarray
    output: np.ndarray
    arrival: np.ndarray
    queued: np.ndarray
    first_token: np.ndarray
    last_token: np.ndarray

    def latency(self, name: str) -> np.ndarray:
        """Return ``ttft_s``, ``tpot_s`` or ``e2e_s`` of every request."""
        if name == "ttft_s":
            return self.first_token - self.arrival
        if name == "e2e_s":
            return self.last_token - self.arrival
        return (self.last_token - self.first_token) / (self.output - 1)

    @property
    def duration_s(self) -> float:
        """From the first arrival to the last token."""
        return float(self.last_token.max() - self.arrival.min())


def read_run(path: Path) -> ServerRun:
    """Return the requests of ``vllm_requests.jsonl``.

    Arrivals are on the wall clock, all else on the engine's; the two are tied by the request that
    the engine noticed soonest, so that times from arrival are too short by that shortest way in.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    rows.sort(key=lambda row: row["arrival_time"])
    columns = {name: np.array([row[name] for row in rows], dtype=float) for name in rows[0]
               if name != "request_id"}  # fmt: skip
    wall = columns["arrival_time"]
    start = wall[0] + np.min(columns["queued_ts"] - wall)
    return ServerRun(
        columns["input_toks"].astype(int), columns["output_toks"].astype(int), wall - wall[0],
        columns["queued_ts"] - start, columns["first_token_ts"] - start,
        columns["last_token_ts"] - start,
    )  # fmt: skip


def read_profile(folder: Path, model: Model, hardware: Hardware) -> KernelProfile:
    """Return the kernel profile of a folder on one accelerator.

    The profile ran one layer again and again, so that weights smaller than the last-level cache
    were found there; in a server every layer comes from memory. A linear kernel therefore takes at
    least its weights' bytes over the memory bandwidth, and times of so few experts that they fit
    in the cache are left out.
    """
    ffn = _parts(model)[1]
    bandwidth = float(np.max(hardware.memory_bandwidth_bytes_per_s))
    floors = {name: count / bandwidth for name, count in _weight_bytes(model).items()}
    dense = _by_layer(folder / "profile_tp1_dense.csv")
    heads = _by_layer(folder / "profile_tp1_per_sequence.csv")
    per_layer = [name for name in dense if name not in ONCE]
    for name in per_layer:
        dense[name] = dense[name].at_least(floors.get(name, 0.0))
    rows = np.zeros((0, 3))
    if ffn.kind == "moe":
        rows = _rows(folder / "profile_tp1_moe.csv") * [1, 1, 1e-6]
        one = 3 * model.hidden_size * ffn.width * 2.0
        rows = rows[rows[:, 1] * one > float(np.max(hardware.onchip_memory_bytes))]
    return KernelProfile(
        sum(kind.count for kind in model.layers),
        _sum([dense[name] for name in per_layer], [REPEATS.get(n, 1) for n in per_layer]),
        _sum([dense[name] for name in ONCE], [1, 1]),
        _sum(list(heads.values()), [1] * len(heads)),
        attention_table(_rows(folder / "profile_tp1_attention.csv")),
        unequal_table(folder / "profile_tp1_skew.csv"),
        rows,
    )


def _parts(model: Model) -> tuple[Attention, FeedForward]:
    """Return attention and feed-forward of a model whose layers are all alike."""
    layer = model.layers[0]
    if not isinstance(layer.mixer, Attention) or layer.ffn is None:
        raise InputError(f"{model.name}: only transformers with attention are replayed")
    return layer.mixer, layer.ffn


def _weight_bytes(model: Model) -> dict[str, float]:
    """Return the bytes (bf16) of the linear kernels of a layer."""
    (mixer, ffn), hidden = _parts(model), model.hidden_size
    queries = mixer.heads * mixer.head_dim
    sizes = {
        "qkv_proj": hidden * (queries + 2 * mixer.kv_heads * mixer.head_dim),
        "o_proj": hidden * queries,
        "gate_up_proj": 2 * hidden * ffn.width,
        "down_proj": hidden * ffn.width,
    }
    return {name: 2.0 * count for name, count in sizes.items()}


def _rows(path: Path) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)


def _by_layer(path: Path) -> dict[str, Curve]:
    found: dict[str, list[tuple[float, float]]] = {}
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open(encoding="utf-8") as file:
        for row in list(csv.reader(file))[1:]:
            found.setdefault(row[0], []).append((float(row[1]), float(row[2]) * 1e-6))
    return {name: Curve(*np.array(sorted(points)).T) for name, points in found.items()}


def _sum(curves: list[Curve], repeats: list[int]) -> Curve:
    at = np.unique(np.concatenate([curve.at for curve in curves]))
    total = sum(
        repeat * np.interp(at, curve.at, curve.seconds)
        for curve, repeat in zip(curves, repeats, strict=True)
    )
    return Curve(at, np.asarray(total))


def attention_table(rows: np.ndarray) -> AttentionTable:
    """Return the grid of doubling axes that lies in the rows of an attention profile."""
    powers = np.concatenate([[0], 2.0 ** np.arange(4, 12)])
    prefixes = np.concatenate([[0], 2.0 ** np.arange(4, 15)])
    batches = np.concatenate([[0], 2.0 ** np.arange(0, 8)])
    contexts = prefixes
    found = {tuple(row[:4]): row[4] * 1e-6 for row in rows}
    grid = np.full((len(powers), len(prefixes), len(batches), len(contexts)), np.nan)
    for i, chunk in enumerate(powers):
        for j, prefix in enumerate(prefixes):
            for k, batch in enumerate(batches):
                for m, context in enumerate(contexts):
                    key = (
                        chunk, prefix if chunk else 0.0, batch if context else 0.0,
                        context if batch else 0.0,
                    )  # fmt: skip
                    grid[i, j, k, m] = found.get(key, 0.0 if key[0] == key[2] == 0 else np.nan)
    if np.isnan(grid).any():
        raise InputError("attention profile: the grid of doubling chunks and contexts has gaps")
    return AttentionTable(powers, prefixes, batches, contexts, grid)


def unequal_table(path: Path) -> UnequalTable:
    """Return the share of `UnequalTable` from measured batches with few long contexts.

    The rows time a batch of equal contexts of the mean length, of the longest length, and the
    unequal batch itself. Those with the fewest long contexts (one, or a sixteenth) are closest to
    what a batch of real requests is.
    """
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    groups: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        batch, few = int(row["n"]), max(1, int(row["n"]) // 16)
        if int(row["nb"]) <= few and float(row["kvs"]) >= 512 and float(row["kp"]) <= 1024:
            groups.setdefault((int(row["pc"]), batch), []).append(float(row["alpha"]))
    chunks, batches = (np.array(sorted({key[axis] for key in groups})) for axis in (0, 1))
    share = np.array([[np.median(groups.get((c, b), [0.0])) for b in batches] for c in chunks])
    return UnequalTable(chunks, batches, np.clip(share, 0.0, 1.0))


def graph_sizes(max_num_seqs: int) -> list[int]:
    """Return the batch sizes for which vLLM captures graphs (vllm/config/vllm.py)."""
    most = min(2 * max_num_seqs, 512)
    sizes = [1, 2, 4, *range(8, min(256, most + 1), 8), *range(256, most + 1, 16)]
    return [size for size in sizes if size <= most]


def exchange(hidden: int, experts: int) -> Curve:
    """Return the seconds of one layer's exchange between two ranks, by tokens of both.

    vLLM gathers hidden states and router logits of all ranks before the experts, and reduces and
    scatters after them (its all-to-all backend where no other is chosen).
    """
    table = read_toml(Path(__file__).with_name("serving_exchange.toml"))
    tokens = 2.0 ** np.arange(0, 13)
    seconds = np.zeros(len(tokens))
    for name, width in (("all_gather", hidden + experts), ("reduce_scatter", hidden)):
        sizes = np.asarray(table[name]["elements"], dtype=float)
        seconds += 1e-6 * np.interp(tokens * width, sizes, table[name]["time_us"])
    return Curve(tokens, seconds)


@dataclass(frozen=True)
class Replay:
    """A real run and the simulated one.

    Args:
        name: of the folder.
        run: the real times.
        result: the simulated ones.
    """

    name: str
    run: ServerRun
    result: SimulationResult

    def rows(self) -> list[dict[str, Any]]:
        """Return measured, predicted and relative error of each figure, and LLMServingSim's own."""
        theirs = published_errors().get(self.name, {})
        figures = [
            (name, mark, _statistic(self.run.latency(name), mark),
             _statistic(self.result.latency(name), mark))
            for name in ("ttft_s", "tpot_s", "e2e_s") for mark in ("mean", "p50", "p90", "p99")
        ]  # fmt: skip
        figures.append(("duration_s", "", self.run.duration_s, self.result.duration_s))
        return [
            {"figure": name, "statistic": mark, "measured": real, "predicted": ours,
             "error": ours / real - 1,
             "llmservingsim_error": theirs.get(f"{name} {mark}".strip())}
            for name, mark, real, ours in figures
        ]  # fmt: skip

    def error(self, figure: str, statistic: str = "") -> float:
        """Return the relative error of one figure."""
        return next(
            float(row["error"])
            for row in self.rows()
            if (row["figure"], row["statistic"]) == (figure, statistic)
        )


def _statistic(values: np.ndarray, mark: str) -> float:
    return float(values.mean() if mark == "mean" else np.percentile(values, float(mark[1:])))


def replay(folder: Path, speed: float = 1.0) -> Replay:
    """Return a real run and its simulation from the folder's kernel profile.

    Args:
        folder: with ``vllm_meta.json``, ``vllm_requests.jsonl`` and ``profile_tp1_*.csv``.
        speed: of the simulated kernels; a planted fault that the tests must catch.
    """
    engine = read_json(folder / "vllm_meta.json")["engine_kwargs"]
    if engine["tensor_parallel_size"] != 1:
        raise InputError(f"{folder}: only runs without tensor parallelism are replayed")
    model, hardware = load_model(_model_name(engine["model"])), load_hardware("rtx_pro_6000")
    run = read_run(folder / "vllm_requests.jsonl")
    profile = read_profile(folder, model, hardware)
    budget = int(engine["max_num_batched_tokens"])
    cost = ProfileCost(profile, budget, graph_sizes(int(engine["max_num_seqs"])), speed=speed)
    ranks = int(engine["data_parallel_size"])
    lockstep = None
    if ranks > 1:
        ffn = _parts(model)[1]
        lockstep = ExpertProfileCost(
            cost, ffn.experts, ffn.top_k, ranks, exchange(model.hidden_size, ffn.experts)
        )
    spec = ReplicaSpec(
        cost, KV_TOKENS,
        Scheduler(
            max_num_seqs=int(engine["max_num_seqs"]), max_num_batched_tokens=budget, ahead=True
        ),
        ranks=ranks, lockstep=lockstep,
    )  # fmt: skip
    traffic = generated(run.arrival, run.prompt, run.output)
    return Replay(folder.name, run, simulate(spec, traffic, router="least_outstanding"))


def _model_name(name: str) -> str:
    short = name.split("/")[-1].lower()
    return short.removesuffix("-instruct-2507")


def published_errors() -> dict[str, dict[str, float]]:
    """Return the relative errors that LLMServingSim reports of itself, by run and figure."""
    table = read_toml(Path(__file__).with_name("serving_published.toml"))["errors"]
    return {run: {name: error / 100 for name, error in found.items()}
            for run, found in table.items()}  # fmt: skip


def report(folder: Path) -> str:
    """Return a Markdown table of all runs in a folder, beside LLMServingSim's own errors."""
    lines = [
        "| run | figure | measured | predicted | error | LLMServingSim |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted(p for p in folder.iterdir() if p.is_dir()):
        for row in replay(path).rows():
            name = f"{row['figure']} {row['statistic']}".strip()
            theirs = row["llmservingsim_error"]
            other = "" if theirs is None else f"{100 * theirs:+.1f} %"
            lines.append(
                f"| {path.name} | {name} | {row['measured']:.4g} | {row['predicted']:.4g} | "
                f"{100 * row['error']:+.1f} % | {other} |"
            )
    return "\n".join(lines) + "\n"
