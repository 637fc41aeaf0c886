"""Scenarios: models, hardware, workloads and sweeps of one question, as a TOML file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from costsim import library, loading
from costsim.engine.precision import Precision
from costsim.errors import InputError, unknown_name
from costsim.hardware.accelerator import Hardware
from costsim.hardware.loader import load_hardware
from costsim.models.architecture import Model, is_moe
from costsim.models.loader import load_model
from costsim.models.variants import dense_of_equal, moe_variant
from costsim.planning.targets import Target

KIND = "scenarios"


@dataclass(frozen=True)
class ModelEntry:
    """A model of a scenario.

    Args:
        key: name in the scenario.
        title: to show.
        model: the architecture.
        precision: how it is served.
        group: models of one group share a colour family (``dense``, ``moe`` …).
        routing_alpha: exponent of the expert load (0: uniform).
        caveat: what the reader has to know, such as that it is rumoured.
        reference: shown as a bound, and no candidate for the cheapest.
    """

    key: str
    title: str
    model: Model
    precision: Precision
    group: str
    routing_alpha: float = 0.0
    caveat: str = ""
    reference: bool = False


@dataclass(frozen=True)
class HardwareEntry:
    """An accelerator of a scenario, how many there are and what they cost."""

    key: str
    hardware: Hardware
    limit: int
    price: str


@dataclass(frozen=True)
class Workload:
    """Requests of a scenario.

    Args:
        key, title: name and what to show.
        isl, osl: mean tokens in and out.
        target: latencies.
        requests_per_s: expected load; 0 where only the curve matters.
        images: images per request with (height, width), or None.
        queries_per_user_day, users: to turn $ per query into $ per user and month.
    """

    key: str
    title: str
    isl: float
    osl: float
    target: Target
    requests_per_s: float = 0.0
    images: tuple[int, int, int] | None = None
    users: float = 0.0
    queries_per_user_day: float = 0.0
    cached_share: float = 0.0


@dataclass(frozen=True)
class Scenario:
    """One question with all that is needed to answer it.

    Args:
        name, title, question: what it is.
        source: where its assumptions come from.
        engine: preset.
        models, hardware, workloads: what is combined.
        baseline: key of the model the others are compared with.
        max_accelerators: of one replica.
        sweep_experts: numbers of experts to sweep, with the base model's key; empty for none.
        simulate: seconds of traffic to simulate for the latency figure; 0 for none.
        api_prices: public prices of tokens to compare with.
        studies: rows of `costsim.planning.studies_schema`.
        assumptions: in words, each with where it comes from; rumours say that they are.
    """

    name: str
    title: str
    question: str
    source: str
    engine: str
    models: tuple[ModelEntry, ...]
    hardware: tuple[HardwareEntry, ...]
    workloads: tuple[Workload, ...]
    baseline: str
    max_accelerators: int
    sweep_base: str
    sweep_experts: tuple[int, ...]
    sweep_top_k: int
    simulate_s: float
    seed: int
    api_prices: tuple[Mapping[str, Any], ...] = ()
    studies: tuple[Any, ...] = ()
    assumptions: tuple[str, ...] = ()


def list_scenarios() -> list[str]:
    """Return the names of all scenarios, the user's own and those that ship."""
    return library.names(KIND)


def load_scenario(name: str | Path) -> Scenario:
    """Return a scenario by name, or from a TOML file.

    Raises:
        InputError: there is no such scenario, or something in it is wrong.
    """
    from costsim.planning.scenario_schema import ScenarioTable

    path = library.find(KIND, str(name))
    table = loading.validate(ScenarioTable, loading.read_toml(path), str(path))
    where = str(path)
    models = _models(table, where)
    keys = {entry.key for entry in models}
    baseline = table.baseline or models[0].key
    for role, key in (("baseline", baseline), ("sweep.base", table.sweep.base or baseline)):
        if key not in keys:
            raise InputError(f"{where}: key '{role}': {unknown_name('model', key, keys)}")
    _check_studies(table, where)
    return Scenario(
        name=path.stem, title=table.title, question=table.question, source=table.source,
        engine=table.engine, models=models,
        hardware=tuple(_hardware(h, where) for h in table.hardware),
        workloads=tuple(_workload(w) for w in table.workloads), baseline=baseline,
        max_accelerators=table.max_accelerators, sweep_base=table.sweep.base or baseline,
        sweep_experts=tuple(table.sweep.experts), sweep_top_k=table.sweep.top_k,
        simulate_s=table.simulate_s, seed=table.seed,
        api_prices=tuple(p.model_dump() for p in table.api_prices),
        studies=tuple(table.studies), assumptions=tuple(table.assumptions),
    )


# Which names a study's keys refer to.
_STUDY_KEYS = {"models": ("model", "models", "base", "licensed", "own", "dense", "sparse"),
               "accelerators": ("hardware",), "workloads": ("workload",),
               "api_prices": ("before", "after", "api")}


def _check_studies(table: Any, where: str) -> None:
    """Refuse studies that name what the scenario lacks."""
    known = {"models": {m.key for m in table.models},
             "accelerators": {h.hardware for h in table.hardware},
             "workloads": {w.key for w in table.workloads},
             "api_prices": {p.name for p in table.api_prices}}
    for study in table.studies:
        rows = [study, *getattr(study, "pairs", ())]
        for kind, keys in _STUDY_KEYS.items():
            for row, key in ((row, key) for row in rows for key in keys if hasattr(row, key)):
                value = getattr(row, key)
                for name in value if isinstance(value, list) else [value]:
                    if name not in known[kind]:
                        raise InputError(f"{where}: study '{study.title}', key '{key}': "
                                         f"{unknown_name(kind[:-1], name, known[kind])}")


def _named(where: str, key: str, load: Any, name: str) -> Any:
    try:
        return load(name)
    except InputError as error:
        raise InputError(f"{where}: key '{key}': {error}") from None


def _models(table: Any, where: str) -> tuple[ModelEntry, ...]:
    found: dict[str, ModelEntry] = {}
    for row in table.models:
        if row.key in found:
            raise InputError(f"{where}: key 'models': '{row.key}' stands twice")
        found[row.key] = _model(row, found, where)
    return tuple(found.values())


def _model(row: Any, earlier: Mapping[str, ModelEntry], where: str) -> ModelEntry:
    if row.variant_of:
        if row.variant_of not in earlier:
            raise InputError(f"{where}: key 'models.variant_of': "
                             f"{unknown_name('model', row.variant_of, earlier)} (it has to stand "
                             "before its variant)")
        model = _variant(row, earlier[row.variant_of].model, where)
    else:
        model = _named(where, "models.model", load_model, row.model)
    if row.title:
        model = replace(model, title=row.title)
    precision = _precision(row, model)
    return ModelEntry(row.key, row.title or model.title, model, precision,
                      row.group or _group(model), row.routing_alpha, row.caveat,
                      row.reference)


def _variant(row: Any, base: Model, where: str) -> Model:
    try:
        if row.dense:
            return dense_of_equal(base, keep=row.keep, name=row.key)
        return moe_variant(base, experts=row.experts, top_k=row.top_k, keep=row.keep,
                           shared_experts=row.shared_experts, name=row.key)
    except InputError as error:
        raise InputError(f"{where}: model '{row.key}': {error}") from None


def _group(model: Model) -> str:
    return "moe" if is_moe(model) else "dense"


def _precision(row: Any, model: Model) -> Precision:
    base = (Precision.uniform(row.precision, "bf16" if row.precision == "int4" else "")
            if row.precision else Precision.of_checkpoint(model.quantisation))
    return replace(base, kv=row.kv) if row.kv else base


def _hardware(row: Any, where: str) -> HardwareEntry:
    hardware = _named(where, "hardware.hardware", load_hardware, row.hardware)
    return HardwareEntry(row.hardware, hardware, row.limit, row.price)


def _workload(row: Any) -> Workload:
    t = row.target
    target = Target(ttft_s=t.ttft or math.inf, tpot_s=t.tpot or math.inf, e2e_s=t.e2e or math.inf)
    images = (row.images.count, row.images.height, row.images.width) if row.images else None
    return Workload(row.key, row.title or row.key, row.isl, row.osl, target, row.rate, images,
                    row.users, row.queries_per_user_day, row.cached_share)


Keep = Literal["active", "total"]
