"""Finds a study's models, hardware, workloads and cells in a scenario's result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from costsim.errors import unknown_name
from costsim.planning.results import Cell, ScenarioResult
from costsim.planning.scenario import HardwareEntry, ModelEntry, Workload

Entry = TypeVar("Entry", ModelEntry, HardwareEntry, Workload)

def _named(found: Sequence[Entry], key: str, what: str) -> Entry:
    by_key = {entry.key: entry for entry in found}
    if key not in by_key:
        raise unknown_name(f"{what} of a study", key, by_key)
    return by_key[key]


def model_entry(result: ScenarioResult, key: str) -> ModelEntry:
    """Return a model of the scenario by its key; `InputError` where there is none."""
    return _named(result.scenario.models, key, "model")


def hardware_entry(result: ScenarioResult, key: str) -> HardwareEntry:
    """Return an accelerator of the scenario by its name; `InputError` where there is none."""
    return _named(result.scenario.hardware, key, "hardware")


def workload_entry(result: ScenarioResult, key: str) -> Workload:
    """Return a workload of the scenario by its key; `InputError` where there is none."""
    return _named(result.scenario.workloads, key, "workload")


def cheapest(cells: Sequence[Cell]) -> Cell | None:
    """Return the cell with the least $ per query among those that meet their targets."""
    good = [c for c in cells if c.estimate is not None and not c.reason]
    return min(good, key=usd, default=None)


def usd(cell: Cell) -> float:
    """Return $ per query; infinity where it cannot be served."""
    return float(cell.estimate.usd_per_query) if cell.estimate else float("inf")


def marked(entry: ModelEntry) -> str:
    """Return a model's title with the mark of rumoured ones."""
    return entry.title + (" (r)" if entry.model.provenance == "rumoured" else "")
