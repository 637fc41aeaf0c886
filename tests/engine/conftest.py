"""Deployments shared by the engine's tests, on the generic roofline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from costsim.engine.deployment import Deployment, deploy
from costsim.engine.layout import Layout
from costsim.hardware.accelerator import Hardware
from costsim.hardware.loader import load_hardware
from costsim.kernels.calibration import Calibration
from costsim.models.loader import load_model


@pytest.fixture(scope="session")
def h100() -> Hardware:
    return load_hardware("h100_sxm")


@pytest.fixture(scope="session")
def serve(h100: Hardware) -> Callable[..., Deployment]:
    """``serve("llama-3.1-70b", tp=4, hardware=…, settings=…, precision=…)``."""

    def build(
        model: str, hardware: Hardware | None = None, settings: Any = None,
        precision: Any = None, **layout: Any,
    ) -> Deployment:
        return deploy(load_model(model), hardware or h100, Layout(**layout), precision, settings,
                      Calibration.roofline())

    return build
