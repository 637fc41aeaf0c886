"""costsim: what an inference query costs, how fast it is, and how many machines carry it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Looked up on first use, so that ``import costsim`` and ``costsim --help`` stay quick.
_API = {
    "load_hardware": "costsim.hardware.loader",
    "load_model": "costsim.models.loader",
    "Layout": "costsim.engine.layout",
    "Precision": "costsim.engine.precision",
    "load_calibration": "costsim.kernels.store",
    "estimate": "costsim.planning.estimate",
    "compare": "costsim.planning.compare",
    "whatif": "costsim.planning.whatif",
    "simulate": "costsim.planning.simulate",
    "calibrate": "costsim.kernels.calibrate",
    "load_scenario": "costsim.planning.scenario",
    "plan": "costsim.planning.plan",
    "Target": "costsim.planning.targets",
    "explain": "costsim.planning.explain",
}

__all__ = ["__version__", *_API]


def __getattr__(name: str) -> Any:
    if name in _API:
        return getattr(import_module(_API[name]), name)
    raise AttributeError(f"module 'costsim' has no attribute '{name}'")
