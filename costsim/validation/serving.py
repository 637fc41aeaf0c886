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


def read_profile(folder: Path, layers: int, tp: int = 1) -> KernelProfile:
    """Return the kernel profile of a folder, for one tensor-parallel degree."""
    dense = _by_layer(folder / f"profile_tp{tp}_dense.csv")
    heads = _by_layer(folder / f"profile_tp{tp}_per_sequence.csv")
    per_layer = [name for name in dense if name not in ONCE]
    experts = folder / f"profile_tp{tp}_moe.csv"
    rows = _rows(experts) * [1, 1, 1e-6] if experts.is_file() else np.zeros((0, 3))
    return KernelProfile(
        layers,
        _sum([dense[name] for name in per_layer], [REPEATS.get(n, 1) for n in per_layer]),
        _sum([dense[name] for name in ONCE], [1, 1]),
        _sum(list(heads.values()), [1] * len(heads)),
        attention_table(_rows(folder / f"profile_tp{tp}_attention.csv")),
        unequal_table(folder / f"profile_tp{tp}_skew.csv"),
        rows,
    )


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
