"""How fast an accelerator really runs its kernels: efficiencies by operator and data type.

A calibration holds ratios to the hardware's own rates, so that it stays meaningful when a what-if
changes the hardware. It comes from measurements (see `costsim.kernels.fit`), is borrowed from a
relative, or is the generic roofline, which says how little it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from costsim.dtypes import rate_of
from costsim.hardware.accelerator import Hardware
from costsim.kernels import work
from costsim.kernels.collectives import collective_time, point_to_point_time
from costsim.kernels.work import Work


@dataclass(frozen=True)
class Latency:
    """Predicted time of one kernel, with each limit alone.

    Args:
        seconds: predicted time.
        log_error: standard deviation of log(actual / predicted).
        compute_s, memory_s, network_s: time at that limit alone.
        fixed_s: launch and synchronisation.
        flop, memory_bytes, network_bytes: the work itself.
    """

    seconds: Any
    log_error: Any
    compute_s: Any
    memory_s: Any
    network_s: Any
    fixed_s: Any
    flop: Any = 0.0
    memory_bytes: Any = 0.0
    network_bytes: Any = 0.0


@dataclass(frozen=True)
class Efficiency:
    """Few parameters that turn work into time.

    Args:
        compute: share of the dense peak rate that a large kernel reaches.
        memory: share of the memory bandwidth that a large kernel reaches.
        half_bytes: bytes at which the bandwidth reaches half of that.
        launch_s: fixed time of a call inside a captured graph.
        ridge: exponent p of the smooth maximum (t_c^p + t_m^p)^(1/p).
        log_error: standard deviation of log(actual / predicted).
    """

    compute: float = 0.70
    memory: float = 0.80
    half_bytes: float = 1e6
    launch_s: float = 3e-6
    ridge: float = 3.0
    log_error: float = 0.35


COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")

# Generic figures for accelerators without any measurement: typical of well-tuned libraries, and
# as uncertain as the spread between the calibrated accelerators.
GENERIC: dict[str, Efficiency] = {
    "gemm": Efficiency(),
    "attention_prefill": Efficiency(compute=0.50, memory=0.70, launch_s=6e-6),
    "attention_decode": Efficiency(compute=0.35, memory=0.70, launch_s=6e-6),
    "mla_prefill": Efficiency(compute=0.50, memory=0.70, launch_s=6e-6),
    "mla_decode": Efficiency(compute=0.45, memory=0.70, launch_s=8e-6),
    "linear_attention": Efficiency(compute=0.15, memory=0.60, launch_s=1e-5),
    "moe": Efficiency(compute=0.50, memory=0.70, launch_s=1.2e-5),
    "elementwise": Efficiency(memory=0.75, launch_s=2e-6),
    **{name: Efficiency(memory=0.80, launch_s=3e-6, log_error=0.4) for name in COLLECTIVES},
    "point_to_point": Efficiency(memory=0.80, launch_s=3e-6, log_error=0.4),
}


def _with_occupancy(w: Work, units: Any) -> Any:
    """Return the FLOP slowed by wave quantisation: tiles run in whole waves over the units."""
    padded = w.flop if w.padded_flop is None else w.padded_flop
    tiles = np.maximum(np.asarray(w.parallelism, float), 1.0)
    units = np.asarray(units, float)
    with np.errstate(invalid="ignore"):
        waves = np.where(np.isfinite(tiles), np.ceil(tiles / units) * units / tiles, 1.0)
    # Split-K and smaller tiles recover part of an underfilled wave.
    return padded * np.minimum(np.sqrt(waves), 4.0)


def roofline_latency(w: Work, peak: Any, bandwidth: Any, units: Any, e: Efficiency) -> Latency:
    """Return the time of work on an accelerator by the smooth roofline.

    Args:
        w: the work.
        peak: dense peak rate of the data type [FLOP/s].
        bandwidth: of the main memory [B/s].
        units: compute units.
        e: efficiencies.
    """
    compute = _with_occupancy(w, units) / (np.asarray(peak, float) * e.compute)
    moved = np.asarray(w.bytes, float)
    memory = (moved + e.half_bytes * moved / (moved + e.half_bytes + 1e-30)) / (
        np.asarray(bandwidth, float) * e.memory
    )
    longest = np.maximum(compute, memory)
    shortest = np.minimum(compute, memory)
    ratio = shortest / np.maximum(longest, 1e-30)
    smooth = longest * (1.0 + ratio**e.ridge) ** (1.0 / e.ridge)
    zero = np.zeros_like(smooth)
    return Latency(smooth + e.launch_s, e.log_error, compute, memory, zero, e.launch_s + zero,
                   w.flop, moved)


_WORK: dict[str, Callable[..., Work]] = {
    "gemm": work.gemm_work,
    "attention_prefill": work.attention_prefill_work,
    "attention_decode": work.attention_decode_work,
    "mla_prefill": work.mla_prefill_work,
    "mla_decode": work.mla_decode_work,
    "linear_attention": work.linear_attention_work,
    "moe": work.moe_work,
    "elementwise": work.elementwise_work,
}


@dataclass(frozen=True)
class Calibration:
    """Efficiencies of an accelerator's kernels.

    Args:
        name: of the calibration; ``"roofline"`` where there is none.
        provenance: ``calibrated: …``, ``borrowed from …`` or ``uncalibrated``.
        efficiencies: ``operator`` or ``operator/data type`` → parameters.
        widening: factor on every log error (borrowed calibrations are less sure).
    """

    name: str
    provenance: str
    efficiencies: Mapping[str, Efficiency] = field(default_factory=lambda: GENERIC)
    widening: float = 1.0

    @classmethod
    def roofline(cls) -> Calibration:
        """Return the generic roofline with its wide error."""
        return cls("roofline", "uncalibrated")

    def efficiency(self, operator: str, dtype: str = "") -> Efficiency:
        """Return the parameters of an operator, of its data type where they are known."""
        specific = f"{operator}/{dtype}"
        if specific in self.efficiencies:
            return self.efficiencies[specific]
        return self.efficiencies.get(operator, GENERIC[operator])

    def latency(self, operator: str, hardware: Hardware, **shape: Any) -> Latency:
        """Return the time of a kernel; shapes as in the architecture page, all broadcasting.

        Raises:
            KeyError: the operator is unknown (a programming error).
        """
        if operator in COLLECTIVES:
            return self._network(operator, collective_time, hardware, operator=operator, **shape)
        if operator == "point_to_point":
            return self._network(operator, point_to_point_time, hardware, **shape)
        rate = _rate(operator, shape)
        e = self.efficiency(operator, rate)
        done = _WORK[operator](**_work_arguments(operator, shape))
        found = roofline_latency(
            done, hardware.peak(rate), hardware.memory_bandwidth_bytes_per_s,
            hardware.compute_units, e,
        )
        return _widened(found, self.widening)

    def _network(
        self, name: str, time: Callable[..., Any], hardware: Hardware, **shape: Any
    ) -> Latency:
        e = self.efficiency(name)
        seconds = time(hardware=hardware, efficiency=e.memory, **shape)
        busy = np.asarray(seconds) > 0
        zero = np.zeros_like(np.asarray(seconds, float))
        fixed = np.where(busy, e.launch_s, 0.0)
        return Latency(seconds + fixed, e.log_error * self.widening, zero, zero, seconds, fixed,
                       network_bytes=shape["message_bytes"])


def _widened(latency: Latency, factor: float) -> Latency:
    if factor == 1.0:
        return latency
    return replace(latency, log_error=latency.log_error * factor)


def _rate(operator: str, shape: Mapping[str, Any]) -> str:
    """Return the rate key an operator computes at."""
    if operator in ("gemm", "moe"):
        return rate_of(shape.get("dtype", "bf16"), shape.get("activation", "bf16"))
    if operator in ("attention_prefill", "mla_prefill"):
        return rate_of(shape.get("dtype", "bf16"), shape.get("dtype", "bf16"))
    return "bf16"


def _work_arguments(operator: str, shape: Mapping[str, Any]) -> dict[str, Any]:
    """Return the shape without what only chooses the rate."""
    dropped: dict[str, tuple[str, ...]] = {
        "attention_prefill": ("dtype",),
        "mla_prefill": ("dtype",),
        "linear_attention": ("kind", "key_heads"),
    }
    return {k: v for k, v in shape.items() if k not in dropped.get(operator, ())}


def load_calibration(hardware: Hardware | str) -> Calibration:
    """Return the calibration of an accelerator: its own, its relative's, or the roofline.

    Args:
        hardware: a profile, or the name of a calibration.
    """
    return Calibration.roofline()
