"""Finds a study's models, hardware, workloads and cells in a scenario's result."""

from __future__ import annotations

from collections.abc import Sequence

from costsim.errors import unknown_name
from costsim.planning.results import Cell, ScenarioResult
from costsim.planning.scenario import HardwareEntry, ModelEntry, Workload


def model_entry(result: ScenarioResult, key: str) -> ModelEntry:
    """Return a model of the scenario by its key.

    Raises:
        InputError: there is none.
    """
    found = {m.key: m for m in result.scenario.models}
    if key not in found:
        raise unknown_name("model of a study", key, found)
    return found[key]


def hardware_entry(result: ScenarioResult, key: str) -> HardwareEntry:
    """Return an accelerator of the scenario by its name.

    Raises:
        InputError: there is none.
    """
    found = {h.key: h for h in result.scenario.hardware}
    if key not in found:
        raise unknown_name("hardware of a study", key, found)
    return found[key]


def workload_entry(result: ScenarioResult, key: str) -> Workload:
    """Return a workload of the scenario by its key.

    Raises:
        InputError: there is none.
    """
    found = {w.key: w for w in result.scenario.workloads}
    if key not in found:
        raise unknown_name("workload of a study", key, found)
    return found[key]


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
