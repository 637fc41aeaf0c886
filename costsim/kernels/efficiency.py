"""From work to time: the smooth roofline with launch, bandwidth saturation and waves of tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.kernels.work import TILE_ROWS, Work


@dataclass(slots=True)
class Latency:
    """Predicted time of one kernel, with each limit alone.

    Args:
        seconds: predicted time.
        log_error: standard deviation of log(actual / predicted).
        compute_s, memory_s, network_s: time at that limit alone.
        fixed_s: launch and synchronisation, a part of ``seconds``.
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
        memory: share of the memory (or link) bandwidth that a large kernel reaches.
        half_bytes: bytes at which the bandwidth reaches half of that.
        launch_s: fixed time of a call inside a captured graph.
        ridge: exponent p of the smooth maximum (t_c^p + t_m^p)^(1/p).
        log_error: standard deviation of log(actual / predicted).
        unskipped: share of the work that a sliding window hides and the kernel does all the same.
        masked: share of the work that the causal mask hides and attention does all the same.
        padding: share of the work in a GEMM's missing rows of the last tile that is done.
        tile_rows: rows of a GEMM's tiles.
    """

    compute: float = 0.70
    memory: float = 0.80
    half_bytes: float = 1e6
    launch_s: float = 3e-6
    ridge: float = 3.0
    log_error: float = 0.35
    unskipped: float = 0.0
    masked: float = 0.0
    padding: float = 1.0
    tile_rows: float = TILE_ROWS


COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")

# Generic figures for accelerators without any measurement: typical of well-tuned libraries, and
# as uncertain as the spread between the calibrated accelerators.
GENERIC: dict[str, Efficiency] = {
    "gemm": Efficiency(),
    "attention_prefill": Efficiency(compute=0.50, memory=0.70, launch_s=6e-6),
    "attention_decode": Efficiency(compute=0.35, memory=0.70, launch_s=6e-6),
    "mla_prefill": Efficiency(compute=0.50, memory=0.70, launch_s=6e-6),
    "mla_decode": Efficiency(compute=0.45, memory=0.70, launch_s=8e-6),
    "dsa_prefill": Efficiency(compute=0.40, memory=0.60, launch_s=2e-5),
    "dsa_decode": Efficiency(compute=0.40, memory=0.60, launch_s=2e-5),
    "linear_attention": Efficiency(compute=0.15, memory=0.60, launch_s=1e-5),
    "moe": Efficiency(compute=0.50, memory=0.70, launch_s=1.2e-5),
    "elementwise": Efficiency(memory=0.75, launch_s=2e-6),
    **{name: Efficiency(memory=0.80, launch_s=3e-6, log_error=0.4) for name in COLLECTIVES},
    "point_to_point": Efficiency(memory=0.80, launch_s=3e-6, log_error=0.4),
}


def waves(w: Work, units: Any) -> Any:
    """Return how much longer tiles take because they run in whole waves over the units.

    With T tiles on U units the work takes ceil(T/U)·U/T of an even spread. Split-K and smaller
    tiles recover part of an underfilled wave: the square root, at most 4.
    """
    if np.ndim(w.parallelism) == 0 and np.isinf(w.parallelism):
        return 1.0
    per_unit = np.maximum(w.parallelism, 1.0) / units
    return np.minimum(np.sqrt(np.ceil(per_unit) / per_unit), 4.0)


def slowed_flop(w: Work, units: Any) -> Any:
    """Return the FLOP as the units see them: partly filled tiles and waves counted as full."""
    return (w.flop if w.padded_flop is None else w.padded_flop) * waves(w, units)


def saturating_bytes(moved: Any, half_bytes: Any) -> Any:
    """Return the bytes that a saturated memory would move in the time these take."""
    return moved + half_bytes * moved / (moved + half_bytes + 1e-30)


def smooth_maximum(a: Any, b: Any, exponent: Any) -> Any:
    """Return (a^p + b^p)^(1/p), which is near the larger away from a ≈ b."""
    if np.ndim(a) == 0 and a == 0.0:
        return np.asarray(b)
    longest = np.maximum(a, b)
    ratio = np.minimum(a, b) / np.maximum(longest, 1e-30)
    return longest * (1.0 + ratio**exponent) ** (1.0 / exponent)


def roofline_latency(w: Work, peak: Any, bandwidth: Any, units: Any, e: Efficiency) -> Latency:
    """Return the time of work on an accelerator by the smooth roofline.

    Args:
        w: the work.
        peak: dense peak rate of the data type [FLOP/s].
        bandwidth: of the main memory [B/s].
        units: compute units.
        e: efficiencies.
    """
    compute = slowed_flop(w, units) / (np.asarray(peak, float) * e.compute)
    moved = np.asarray(w.bytes, float)
    memory = saturating_bytes(moved, e.half_bytes) / (np.asarray(bandwidth, float) * e.memory)
    smooth = smooth_maximum(compute, memory, e.ridge)
    return Latency(smooth + e.launch_s, e.log_error, compute, memory, 0.0, e.launch_s, w.flop,
                   moved)
