"""A published figure with everything that predicts it: model, hardware, engine, calibration.

Nothing here is fitted: figures of the engine presets that stem from serving points are put back to
their neutral values, so that only the kernels' calibration and the documents' own facts are used.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import lru_cache

from costsim.engine.deployment import Deployment, deploy
from costsim.engine.layout import Layout
from costsim.engine.presets import load_settings, preset_sources
from costsim.engine.settings import EngineSettings
from costsim.engine.validity import check_layout
from costsim.hardware.accelerator import Hardware
from costsim.hardware.loader import load_hardware
from costsim.kernels.calibration import Calibration
from costsim.models.architecture import Attention, Model
from costsim.models.loader import load_model
from costsim.validation.published_points import PublishedPoint

KERNELS, ROOFLINE, ENGINE = "kernels", "roofline", "engine"
CALIBRATIONS = {
    KERNELS: "calibration of the kernels alone",
    ROOFLINE: "no calibration: rooflines with typical efficiencies",
    ENGINE: "kernels, and the engine's figures fitted to other serving points",
}


def without_fitted_figures(name: str) -> EngineSettings:
    """Return an engine's preset with every figure that was fitted to serving points neutral.

    The errors that the engine adds to those of its kernels stay: they make the interval.
    """
    defaults = {each.name: each.default for each in fields(EngineSettings)}
    fitted = [setting for setting, source in preset_sources(name).items()
              if source.startswith("fitted") and not setting.startswith("log_error")]
    return load_settings(name, **{setting: defaults[setting] for setting in fitted})


def settings_of(point: PublishedPoint, mode: str) -> EngineSettings:
    """Return the engine's settings of a point: the preset with the document's facts."""
    document = point.document
    plain = (load_settings(document.engine) if mode == ENGINE
             else without_fitted_figures(document.engine))
    return replace(plain, memory_utilization=document.memory_utilization,
                   max_num_seqs=document.most_requests, cuda_graphs=document.cuda_graphs)


def model_of(point: PublishedPoint) -> Model:
    """Return the model of a point, with full attention where the engine used no window."""
    model = load_model(point.model)
    if not point.full_attention:
        return model
    layers = tuple(
        replace(each, mixer=replace(each.mixer, kind="full", window=0))
        if isinstance(each.mixer, Attention) and each.mixer.kind == "sliding" else each
        for each in model.layers)
    return replace(model, layers=layers)


class Case:
    """A point with everything that predicts it; ``rate`` speeds the hardware up (a test's fault).

    Args:
        point: published.
        mode: one of `CALIBRATIONS`.
        rate: factor on the hardware's rates.
    """

    def __init__(self, point: PublishedPoint, mode: str = KERNELS, rate: float = 1.0) -> None:
        self.point = point
        self.model, self.settings = model_of(point), settings_of(point, mode)
        self.fitted = settings_of(point, ENGINE)
        self.hardware = _hardware(point.hardware, rate)
        self.calibration = Calibration.roofline() if mode == ROOFLINE else None

    def deploy(self, layout: Layout) -> Deployment:
        """Return the deployment of one replica."""
        check_layout(self.model, layout)
        return deploy(self.model, self.hardware, layout, self.point.precision, self.settings,
                      self.calibration)


@lru_cache(maxsize=64)
def _hardware(name: str, rate: float) -> Hardware:
    return at_rate(load_hardware(name), rate)


def at_rate(hardware: Hardware, rate: float) -> Hardware:
    """Return hardware whose arithmetic, memory and links run at ``rate`` times their speed."""
    if rate == 1.0:
        return hardware
    peaks = {dtype: flop * rate for dtype, flop in hardware.peak_flop_per_s.items()}
    up, out = hardware.scale_up, hardware.scale_out
    return replace(
        hardware, peak_flop_per_s=peaks,
        memory_bandwidth_bytes_per_s=hardware.memory_bandwidth_bytes_per_s * rate,
        scale_up=replace(up, bandwidth_bytes_per_s=up.bandwidth_bytes_per_s * rate),
        scale_out=replace(out, bandwidth_bytes_per_s=out.bandwidth_bytes_per_s * rate))
