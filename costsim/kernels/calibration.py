"""How fast an accelerator really runs its kernels: efficiencies and corrections by operator.

A calibration holds ratios to the hardware's own rates, so that it stays meaningful when a what-if
changes the hardware. It comes from measurements (`costsim.kernels.fit`), is borrowed from a
relative, or is the generic roofline, which says how little it knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from costsim.dtypes import RATE_OF, rate_of
from costsim.hardware.accelerator import Hardware
from costsim.kernels.collectives import (
    ACROSS_HOP_S,
    ACROSS_ONCE_S,
    across_nodes_time,
    leaving_time,
    point_to_point_time,
    wire_bytes,
)
from costsim.kernels.correction import Correction
from costsim.kernels.efficiency import (
    COLLECTIVES,
    GENERIC,
    Efficiency,
    Latency,
    roofline_latency,
)
from costsim.kernels.layers import Layers
from costsim.kernels.operators import (
    ONE_ROW,
    STEADY,
    WINDOWED,
    completed,
    fastest_rate_key,
    features,
    operator_work,
    rate_key,
    variant,
    work_on,
)
from costsim.kernels.work import Work

__all__ = ["Calibration", "Efficiency", "Latency", "Surface"]

# Growth of the error for every octave outside the measured range.
WIDENING_PER_OCTAVE = 0.25
# Factor on the error where a kernel of other data types stands in, and what comes on top of it: of
# 52 pairs of GEMM kernels on nine accelerators that compute at one rate (fp8 and fp8_block, engine
# by engine), a stand-in was within a factor of 1.9 at 90 % of the shapes.
WIDENING_OTHER_TYPE, STAND_IN_LOG_ERROR = 1.5, 0.39
# A relative shares the architecture but not the clocks, the memory and the power limit.
WIDENING_BORROWED = 2.0
# Which engine's kernels stand for all where none is named or where the named one has none.
# Engines run other expert kernels behind an exchange of tokens (data-parallel attention): theirs
# stand under the engine's name with this ending.
EXCHANGED = "+exchange"
# DeepEP's two ways of sending tokens to experts: for decode and for prompts.
LOW_LATENCY, NORMAL = "+low_latency", "+normal"
ENGINE_ORDER = ("vllm", "sglang", "trtllm", "nccl")
# SGLang's latent decode on an fp8 cache takes four times what vLLM's layers take on H200.
LATENT_ORDER = ("vllm", "trtllm", "sglang")
# Exchanges of one engine's own making stand for no other's.
EXCHANGE_ORDER = ("nccl", *ENGINE_ORDER)


@dataclass(frozen=True)
class Surface:
    """The fit of one kernel: an operator with its data types, under one engine.

    Args:
        efficiency: parameters of the physics, with the error as fitted.
        correction: on top of the physics; None where measurements are few.
        rows: measurements behind it.
        about: held-out figures and provenance, as plain data.
        layers: on top of that, of single layers; None where kernels are not tuned layer by layer.
    """

    efficiency: Efficiency
    correction: Correction | None = None
    rows: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)
    layers: Layers | None = None


Key = tuple[str, str, str]  # operator, variant, engine


@dataclass(frozen=True)
class Calibration:
    """Surfaces of an accelerator's kernels.

    Args:
        name: of the calibration; ``"roofline"`` where there is none.
        provenance: ``calibrated: …``, ``borrowed from …`` or ``uncalibrated``.
        surfaces: (operator, variant, engine) → surface.
        widening: factor on every log error (borrowed calibrations are less sure).
        apart: log error on top of it, for kernels of another vendor's.
        engine: whose kernels are asked for; ``""`` for any.
        about: how and from what it was made.
        rest: where kernels come from that were not measured; None for the generic roofline.
    """

    name: str
    provenance: str
    surfaces: Mapping[Key, Surface] = field(default_factory=dict)
    widening: float = 1.0
    apart: float = 0.0
    engine: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    rest: Calibration | None = None
    _found: dict[tuple[str, str], tuple[Surface, float]] = field(
        default_factory=dict, init=False, repr=False, compare=False)
    _engines: dict[str, Calibration] = field(
        default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def roofline(cls) -> Calibration:
        """Return the generic roofline with its wide error."""
        return cls("roofline", "uncalibrated")

    def for_engine(self, engine: str) -> Calibration:
        """Return the calibration with one engine's kernels, where those were measured."""
        if engine == self.engine:
            return self
        if engine not in self._engines:
            self._engines[engine] = replace(self, engine=engine)
        return self._engines[engine]

    def exchanged(self, kernel: str) -> Calibration | None:
        """Return the calibration with the engine's expert kernels behind an exchange of tokens.

        Args:
            kernel: variant by data types. None is returned where it was not measured.
        """
        engine = self.engine + EXCHANGED
        return self.for_engine(engine) if ("moe", kernel, engine) in self.surfaces else None

    def sending(self, mode: str) -> Calibration | None:
        """Return the calibration with the engine's way of sending tokens, None if not measured.

        Args:
            mode: `LOW_LATENCY` or `NORMAL`.
        """
        engine = self.engine + mode
        return self.for_engine(engine) if ("all_to_all", "", engine) in self.surfaces else None

    def measured(self, operator: str) -> bool:
        """Return whether an operator has a surface, of whichever engine and data types."""
        return operator in self._operators

    @cached_property
    def _operators(self) -> frozenset[str]:
        return frozenset(key[0] for key in self.surfaces)

    def surface(self, operator: str, kernel: str = "") -> tuple[Surface, float]:
        """Return the surface nearest to a kernel, and the factor on its error.

        Args:
            operator: such as ``gemm``.
            kernel: variant by data types, from `costsim.kernels.operators.variant`.
        """
        found = self._found.get((operator, kernel))
        if found is None:
            found = self._nearest(operator, kernel)
            self._found[operator, kernel] = found
        return found

    def has(self, operator: str, kernel: str) -> bool:
        """Return whether a kernel was measured on the accelerator itself, by whatever engine."""
        return self.widening == 1.0 and any(key[:2] == (operator, kernel) for key in self.surfaces)

    def _nearest(self, operator: str, kernel: str) -> tuple[Surface, float]:
        order, row = (self.engine, "", *stand_ins(operator)), kernel.endswith(ONE_ROW)
        ranked = sorted(
            (_mismatch(operator, kernel, key[1]),
             order.index(key[2]) if key[2] in order else len(order), key)
            for key in self.surfaces if key[0] == operator and key[1].endswith(ONE_ROW) == row)
        mismatch, _, key = ranked[0] if ranked else (UNRELATED, 0, ("", "", ""))
        if self.rest is not None and (mismatch >= OTHER_RATE or (mismatch and self.rest.has(
                operator, kernel))):
            return self.rest.for_engine(self.engine).surface(operator, kernel)
        if mismatch >= UNRELATED:
            return Surface(GENERIC[operator]), 1.0
        surface = self.surfaces[key]
        lent = mismatch or self.widening > 1.0 or self.engine not in ("", key[2])
        if lent and surface.layers is not None:
            # Which layers somebody tuned is not the same for another kernel, engine or device.
            surface = replace(surface, layers=None)
        return surface, self._wider(operator, surface, bool(mismatch))

    def _wider(self, operator: str, surface: Surface, stands_in: bool) -> float:
        """Return the factor on a surface's error, for what it is borrowed from or stands in for."""
        own, apart = self.widening, self.apart
        if stands_in:
            own = own * WIDENING_OTHER_TYPE
            apart = np.hypot(apart, STAND_IN_LOG_ERROR if operator in ("gemm", "moe") else 0.0)
        return float(np.hypot(own, apart / surface.efficiency.log_error)) if apart else own

    def latency(self, operator: str, hardware: Hardware, **shape: Any) -> Latency:
        """Return the time of a kernel; shapes as in the architecture page, all broadcasting.

        Raises:
            KeyError: the operator is unknown (a programming error).
        """
        if operator in COLLECTIVES:
            return self._collective(operator, hardware, shape)
        if operator == "point_to_point":
            return self._point_to_point(hardware, **shape)
        kernel = variant(operator, shape)
        shape = dict(completed(operator, shape))
        found = self._local(operator, kernel, hardware, shape)
        if operator == "gemm" and kernel + ONE_ROW in self._one_row:
            one = self._local(operator, kernel + ONE_ROW, hardware, shape)
            found = _where(np.asarray(shape["m"], float) <= 1.0, one, found)
        return found

    @cached_property
    def _one_row(self) -> frozenset[str]:
        """Kernels that multiply one row by code of its own."""
        return frozenset(key[1] for key in self.surfaces if key[1].endswith(ONE_ROW))

    def _local(
        self, operator: str, kernel: str, hardware: Hardware, shape: Mapping[str, Any]
    ) -> Latency:
        surface, wider = self.surface(operator, kernel)
        found = roofline_latency(
            work_on(operator, shape, hardware.kind, surface.efficiency),
            hardware.peak(rate_key(operator, shape)),
            hardware.memory_bandwidth_bytes_per_s, hardware.compute_units, surface.efficiency)
        return corrected(found, surface, operator, shape, wider)

    def _collective(self, operator: str, hardware: Hardware, shape: Mapping[str, Any]) -> Latency:
        surface, wider = self.surface(operator)
        ranks = np.asarray(shape["ranks"], float)
        message = np.asarray(shape["message_bytes"], float)
        inside = np.minimum(ranks, hardware.scale_up.domain_size)
        near = {"ranks": inside, "message_bytes": message}
        found = corrected(inside_latency(operator, hardware, near, surface.efficiency), surface,
                          operator, near, wider)
        busy = ranks > 1
        if "leaving_bytes" in shape:
            seconds = self._sent(hardware, found.seconds, shape["leaving_bytes"]) * busy
        else:
            far = across_nodes_time(operator, hardware, ranks, message, surface.efficiency.memory)
            seconds = (found.seconds + far) * busy
        fixed = found.fixed_s * busy
        error = np.hypot(found.log_error, hardware.scale_up.machine_spread)
        return Latency(seconds, error, 0.0, 0.0, seconds - fixed, fixed,
                       network_bytes=message)

    def _sent(self, hardware: Hardware, inside_s: Any, leaving_bytes: Any) -> Any:
        """Return the time of an exchange whose messages to other nodes are counted by themselves.

        Low-latency kernels send those at the same time as the others; normal ones forward what
        has come from other nodes inside their own.
        """
        far = leaving_time(hardware, leaving_bytes)
        together = self.engine.endswith(LOW_LATENCY)
        both = np.maximum(inside_s, far) if together else inside_s + far
        return both + np.where(far > 0, ACROSS_ONCE_S + ACROSS_HOP_S, 0.0)

    def _point_to_point(
        self, hardware: Hardware, message_bytes: Any, across_nodes: Any = False
    ) -> Latency:
        surface, wider = self.surface("point_to_point")
        e = surface.efficiency
        seconds = point_to_point_time(hardware, message_bytes, across_nodes, e.memory)
        return Latency(seconds + e.launch_s, e.log_error * wider, 0.0, 0.0, seconds, e.launch_s,
                       network_bytes=message_bytes)


def _where(some: Any, one: Latency, other: Latency) -> Latency:
    """Return one latency where a condition holds, and another where not."""
    return Latency(**{each.name: np.where(some, getattr(one, each.name), getattr(other, each.name))
                      for each in fields(Latency)})


def inside_latency(
    operator: str, hardware: Hardware, shape: Mapping[str, Any], e: Efficiency
) -> Latency:
    """Return the time of a collective inside one scale-up domain, by volume over bandwidth."""
    done = Work(0.0, wire_bytes(operator, shape["ranks"], shape["message_bytes"]))
    return roofline_latency(done, np.inf, hardware.scale_up.bandwidth_bytes_per_s, 1.0, e)


def corrected(
    found: Latency, surface: Surface, operator: str, shape: Mapping[str, Any], wider: float
) -> Latency:
    """Return the physics' time with the surface's correction and error applied."""
    error: Any = found.log_error * wider
    if surface.correction is None:
        return replace(found, log_error=error)
    value, outside = surface.correction.at(
        features(operator, shape, surface.efficiency), STEADY.get(operator, ()))
    if surface.layers is not None:
        value = value + surface.layers.at(shape)
    factor = np.exp(value)
    if np.any(outside):
        error = error * (1.0 + WIDENING_PER_OCTAVE * outside)
    return replace(found, seconds=found.seconds * factor, fixed_s=found.fixed_s * factor,
                   log_error=error)


def stand_ins(operator: str) -> tuple[str, ...]:
    """Return the engines in the order in which their kernels stand for one not measured."""
    return {"mla_decode": LATENT_ORDER, "all_to_all": EXCHANGE_ORDER}.get(operator, ENGINE_ORDER)


# A kernel that computes at another rate stands in where nothing is nearer.
UNRELATED, OTHER_RATE = 10, 5


def _mismatch(operator: str, wanted: str, have: str) -> int:
    """Return how far one kernel is from another: 0 the same, `UNRELATED` no stand-in."""
    if wanted == have:
        return 0
    if operator == "linear_attention":
        same_phase = wanted.split(":")[1] == have.split(":")[1]
        return 1 if same_phase else UNRELATED
    if operator not in ("gemm", "moe"):
        other_code = wanted.endswith(WINDOWED) != have.endswith(WINDOWED)
        wanted, have = wanted.removesuffix(WINDOWED), have.removesuffix(WINDOWED)
        if wanted == have:
            return 1
    ours, theirs = wanted.split(":"), have.split(":")
    if operator in ("gemm", "moe"):
        same_rate = rate_of(*ours) == rate_of(*theirs)
        other_rate = 0 if same_rate else OTHER_RATE - 1
        return 1 + other_rate + 2 * (ours[0] != theirs[0]) + (theirs != ["bf16", "bf16"])
    rates = [RATE_OF.get(a) == RATE_OF.get(b) for a, b in zip(ours, theirs, strict=True)]
    return 1 + 2 * rates.count(False) + (set(theirs) != {"bf16"}) + other_code


def ideal_times(operator: str, hardware: Hardware, shape: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the time at the peak rate, the time at full bandwidth, and the bytes moved.

    Args:
        operator: such as ``gemm``; shape: of one variant (data types are plain strings).
        hardware: whose rates.
    """
    if operator in COLLECTIVES:
        moved = wire_bytes(operator, shape["ranks"], shape["message_bytes"])
        return 0.0 * moved, 0.5 * moved / hardware.scale_up.bandwidth_bytes_per_s, moved
    if operator == "point_to_point":
        moved = np.asarray(shape["message_bytes"], float)
        return 0.0 * moved, moved / hardware.scale_up.bandwidth_bytes_per_s, moved
    done = operator_work(operator, completed(operator, shape))
    compute = done.flop / np.asarray(hardware.peak(fastest_rate_key(operator, shape)), float)
    moved = np.asarray(done.bytes, float)
    return compute + 0.0 * moved, moved / hardware.memory_bandwidth_bytes_per_s, moved
