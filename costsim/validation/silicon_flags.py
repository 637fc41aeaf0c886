"""The serving flags that the measured points were run with (``silicon_flags.toml``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from costsim.engine.benchmark import Benchmark
from costsim.engine.settings import EngineSettings
from costsim.loading import read_toml
from costsim.validation.silicon_points import PUBLIC_LOWEST, ServingPoint
from costsim.validation.silicon_setups import model_table

FLAGS = Path(__file__).with_name("silicon_flags.toml")
# The scripts of the public sweeps look for requests less often from here on.
_POLL_CHANGES = 16
# The public sweeps send ten prompts per client (all their scripts), AIConfigurator's generated
# benchmarks twenty (generator/config/backend_templates/benchmark/bench_run.sh.j2).
_PUBLIC_ROUNDS, _OTHER_ROUNDS = 10, 20
_TOKENS = ("tokens", "tokens_isl", "tokens_concurrency", "tokens_least")

_CONDITIONS: dict[str, Callable[[ServingPoint, Any], bool]] = {
    "engine": lambda p, v: bool(p.engine == v),
    "recipe": lambda p, v: bool(model_table().get(p.model, {}).get("recipe") == v),
    "hardware": lambda p, v: p.hardware in v,
    "weights": lambda p, v: p.weights in v,
    "mode": lambda p, v: bool((p.layout is None) == (v == "disaggregated")),
    "public": lambda p, v: bool(p.public == v),
    "isl": lambda p, v: bool(p.isl == v),
    "osl": lambda p, v: bool(p.osl == v),
    "dp": lambda p, v: p.layout is not None and bool((p.layout.dp > 1) == v),
    "drafts": lambda p, v: bool((p.draft_tokens > 0) == v),
    "least_concurrency": lambda p, v: bool(p.concurrency >= v),
    "from": lambda p, v: p.date is not None and bool(p.date >= v),
    "until": lambda p, v: p.date is None or bool(p.date < v),
}


@lru_cache
def _entries() -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = read_toml(FLAGS)["flags"]
    return [{"public": True, **entry} for entry in table]


def flags_of(point: ServingPoint) -> Mapping[str, Any]:
    """Return the flags that a point was served with, as far as known."""
    found: dict[str, Any] = {}
    for entry in _entries():
        if all(holds(point, entry[name]) for name, holds in _CONDITIONS.items() if name in entry):
            given = {k: v for k, v in entry.items() if k not in _CONDITIONS}
            if any(name in found for name in _TOKENS):
                given = {k: v for k, v in given.items() if k not in _TOKENS}
            found = given | found
    return found


def benchmark_of(point: ServingPoint) -> Benchmark:
    """Return how a point's benchmark sent its prompts."""
    if not point.public:
        return Benchmark(_OTHER_ROUNDS)
    return Benchmark(_PUBLIC_ROUNDS, 2.0 * (1.0 - PUBLIC_LOWEST) / (1.0 + PUBLIC_LOWEST))


def with_flags(own: EngineSettings, point: ServingPoint) -> EngineSettings:
    """Return an engine's settings with the flags of a point."""
    known, changes = flags_of(point), {}
    if any(name in known for name in _TOKENS):
        tokens = (known.get("tokens", 0) + known.get("tokens_isl", 0) * point.isl
                  + known.get("tokens_concurrency", 0) * point.concurrency)
        changes["max_num_batched_tokens"] = max(int(tokens), known.get("tokens_least", 0))
    if "poll" in known:
        changes["poll_steps"] = known["poll"][point.concurrency >= _POLL_CHANGES]
    if "seqs" in known:
        changes["max_num_seqs"] = known["seqs"]
    if "hold" in known:
        changes |= {"hold_steps": known["hold"], "hold_share": known["hold_share"]}
    if "rank_hold" in known:
        changes["rank_hold_steps"] = known["rank_hold"]
    if "ahead" in known:
        changes["async_scheduling"] = known["ahead"]
    changed = replace(own, **changes)
    return replace(changed, tokenize_s=own.tokenize_s / known.get("tokenizers", 1))
