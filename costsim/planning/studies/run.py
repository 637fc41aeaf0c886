"""Runs the studies of a scenario."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from costsim.planning.results import ScenarioResult
from costsim.planning.studies.result import StudyResult


def run_study(result: ScenarioResult, row: Any) -> StudyResult:
    """Return what one study of the scenario file finds.

    Args:
        result: of the scenario's cells.
        row: one of `costsim.planning.studies_schema.AnyStudy`; its ``kind`` names the module.
    """
    module = import_module(f"costsim.planning.studies.{row.kind}")
    run: Callable[[ScenarioResult, Any], StudyResult] = module.run
    return run(result, row)
