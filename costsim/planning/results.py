"""What the run of a scenario found, as plain records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from costsim.planning.choose import Choice
from costsim.planning.estimate import Estimate
from costsim.planning.load import Crossover, LoadCurve
from costsim.planning.scenario import HardwareEntry, ModelEntry, Scenario, Workload
from costsim.planning.studies.result import StudyResult


@dataclass(frozen=True)
class Cell:
    """One model on one accelerator for one workload.

    Args:
        model, hardware, workload: entries of the scenario.
        choice, estimate: best layout within the targets and its figures; None where it is
            impossible.
        reason: why it is impossible, or that the targets are missed.
    """

    model: ModelEntry
    hardware: HardwareEntry
    workload: Workload
    choice: Choice | None
    estimate: Estimate | None
    reason: str = ""

    @property
    def name(self) -> str:
        """Title of the model."""
        return self.model.title


@dataclass(frozen=True)
class ExpertPoint:
    """One step of the sweep over numbers of experts at equal active parameters."""

    experts: int
    total_parameters: float
    hardware: str
    workload: str
    estimate: Estimate | None
    choice: Choice | None
    reason: str = ""


@dataclass
class ScenarioResult:
    """All that a scenario's run found.

    Args:
        scenario: what was asked.
        cells: one per combination.
        curves: ``(hardware, workload) -> cost against load`` of every model that fits.
        crossovers: the same keys.
        sweep: numbers of experts.
        latencies: ``label -> simulated summary and samples``.
        findings: in plain words, computed from the above.
        warnings: rumoured figures, stale prices, missed targets.
        points: operating points priced.
        studies: what each study of the scenario file found.
    """

    scenario: Scenario
    cells: list[Cell] = field(default_factory=list)
    curves: dict[tuple[str, str], tuple[LoadCurve, ...]] = field(default_factory=dict)
    crossovers: dict[tuple[str, str], tuple[Crossover, ...]] = field(default_factory=dict)
    sweep: list[ExpertPoint] = field(default_factory=list)
    latencies: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    points: int = 0
    studies: list[StudyResult] = field(default_factory=list)

    def found(self, hardware: str = "", workload: str = "") -> list[Cell]:
        """Return the cells that have an estimate, of one hardware or workload where given."""
        return [c for c in self.cells if c.estimate is not None
                and hardware in ("", c.hardware.key) and workload in ("", c.workload.key)]
