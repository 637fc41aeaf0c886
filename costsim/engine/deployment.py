"""One model on one kind of hardware, with its layout, precision and engine: what is priced."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from costsim.engine.layout import Layout
from costsim.engine.precision import Precision
from costsim.engine.settings import EngineSettings
from costsim.hardware.accelerator import Hardware
from costsim.kernels.calibration import Calibration
from costsim.kernels.store import load_calibration
from costsim.models.architecture import Model


@dataclass(frozen=True)
class Deployment:
    """A replica that can serve: model, hardware, layout, precision, engine and calibration."""

    model: Model
    hardware: Hardware
    layout: Layout
    calibration: Calibration
    precision: Precision = field(default_factory=Precision)
    settings: EngineSettings = field(default_factory=EngineSettings)

    @property
    def accelerators(self) -> Any:
        """Accelerators of the replica."""
        return self.layout.accelerators

    def with_changes(self, **changes: Any) -> Deployment:
        """Return a copy with some parts changed."""
        return replace(self, **changes)


def deploy(
    model: Model,
    hardware: Hardware,
    layout: Layout | None = None,
    precision: Precision | None = None,
    settings: EngineSettings | None = None,
    calibration: Calibration | None = None,
) -> Deployment:
    """Return a deployment; what is left out is the checkpoint's, one accelerator, generic."""
    settings = settings or EngineSettings()
    kernels = (calibration or load_calibration(hardware)).for_engine(
        settings.kernels or settings.name)
    return Deployment(
        model=model,
        hardware=hardware,
        layout=layout or Layout(),
        calibration=kernels,
        precision=precision or Precision.of_checkpoint(model.quantisation),
        settings=settings,
    )
