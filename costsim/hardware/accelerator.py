"""One accelerator, what joins it to others, and what it costs: the data the models stand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costsim.errors import InputError

Number = float | NDArray[np.float64]


@dataclass(frozen=True)
class Link:
    """A network that joins accelerators: the scale-up domain or the scale-out fabric.

    Args:
        domain_size: accelerators that it joins at this bandwidth.
        bandwidth_bytes_per_s: per accelerator and per direction.
        latency_s: of one message between two neighbours.
        machine_spread: standard deviation of the log of a collective's time between machines with
            this accelerator: how PCIe cards reach one another is the server's choice.
    """

    domain_size: Number
    bandwidth_bytes_per_s: Number
    latency_s: Number
    machine_spread: Number = 0.0


@dataclass(frozen=True)
class Price:
    """What one accelerator costs for an hour.

    Args:
        kind: ``on_demand``, ``spot``, ``reserved_1y``, ``reserved_3y`` or ``owned``.
        usd_per_hour: for one accelerator, its share of the server included.
        date: ISO date the price was seen or published.
        source: where.
        provider, region: who rents it out, where; ``""`` when general.
        provenance: ``published``, ``estimated``, ``unverified`` or ``rumoured``.
    """

    kind: str
    usd_per_hour: Number
    date: str
    source: str
    provider: str = ""
    region: str = ""
    provenance: str = "published"


@dataclass(frozen=True)
class Hardware:
    """One accelerator as it sits in its server.

    Every numeric field may be an array; the models broadcast over it. Peak rates are dense.

    Args:
        name: the profile's name, such as ``"h100_sxm"``.
        title: the name to show, such as ``"NVIDIA H100 SXM 80GB"``.
        kind: ``gpu``, ``tpu``, ``asic`` or ``cpu``.
        peak_flop_per_s: dense peak rate by data type (keys of `costsim.dtypes.RATE_OF` values:
            ``fp32``, ``tf32``, ``bf16``, ``fp8``, ``int8``, ``fp4``). A type that is absent is
            not supported natively.
        memory_bytes: capacity of the main memory (HBM, GDDR, SRAM where there is nothing else).
        memory_bandwidth_bytes_per_s: of the main memory.
        onchip_memory_bytes: last-level cache or scratch memory.
        compute_units: SMs, CUs, cores: what tiles are spread over.
        scale_up: links inside the node or rack.
        scale_out: links between nodes.
        host_bandwidth_bytes_per_s: to host memory, per direction.
        host_memory_bytes: host memory per accelerator.
        tdp_w, idle_w: power of the accelerator at full load and idle.
        server_w_per_accelerator: power of the rest of the server, per accelerator.
        list_price_usd: to buy one accelerator; 0 where it is not sold.
        server_price_usd_per_accelerator: the rest of the server, per accelerator.
        prices: rents by term.
        calibration: name of the kernel calibration that describes it, ``""`` for none.
        borrowed_calibration: the relative whose calibration it borrows, ``""`` for none.
        structured_sparsity: ratio of the peak rate with 2:4 weights to the dense rate (1 or 2).
        sources: ``field -> {"source", "retrieved", "provenance"}`` for every sourced figure.
        provenance: ``datasheet`` … ``rumoured``: the worst of its principal figures'.
    """

    name: str
    title: str
    kind: str
    peak_flop_per_s: Mapping[str, Number]
    memory_bytes: Number
    memory_bandwidth_bytes_per_s: Number
    onchip_memory_bytes: Number
    compute_units: Number
    scale_up: Link
    scale_out: Link
    host_bandwidth_bytes_per_s: Number
    host_memory_bytes: Number
    tdp_w: Number
    idle_w: Number
    server_w_per_accelerator: Number = 0.0
    list_price_usd: Number = 0.0
    server_price_usd_per_accelerator: Number = 0.0
    prices: tuple[Price, ...] = ()
    vendor: str = ""
    released: str = ""
    calibration: str = ""
    borrowed_calibration: str = ""
    structured_sparsity: Number = 1.0
    sources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    provenance: str = "datasheet"

    def peak(self, rate: str) -> Number:
        """Return the dense peak rate [FLOP/s] of a rate key, or the fallback that runs it.

        A type without native support runs at the rate of the next wider supported one
        (fp4 → fp8 → bf16 → fp32), as kernels that convert on the way in do.
        """
        for key in _FALLBACK[rate]:
            if key in self.peak_flop_per_s:
                return self.peak_flop_per_s[key]
        raise InputError(
            f"hardware '{self.name}' has no peak rate for {rate}; it has "
            + ", ".join(sorted(self.peak_flop_per_s))
        )

    @cached_property
    def axes(self) -> int:
        """Axes of the numeric fields, where a what-if made arrays of them."""
        links = [v for link in (self.scale_up, self.scale_out) for v in vars(link).values()]
        values = [getattr(self, each.name) for each in fields(self)]
        arrays = [v for v in (*values, *links, *self.peak_flop_per_s.values())
                  if isinstance(v, np.ndarray)]
        return max((array.ndim for array in arrays), default=0)

    def supports(self, rate: str) -> bool:
        """Return whether a rate key is native to this accelerator."""
        return rate in self.peak_flop_per_s

    def with_fields(self, **changes: Any) -> Hardware:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


_FALLBACK: dict[str, tuple[str, ...]] = {
    "fp32": ("fp32",),
    "tf32": ("tf32", "fp32"),
    "bf16": ("bf16", "fp32"),
    "fp8": ("fp8", "bf16", "fp32"),
    "int8": ("int8", "fp8", "bf16", "fp32"),
    "fp4": ("fp4", "fp8", "bf16", "fp32"),
}
