"""Hardware profiles from TOML: found by name, inherited, validated, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costsim import library, loading
from costsim.errors import InputError
from costsim.files import write_atomically
from costsim.hardware.accelerator import Hardware, Link, Price

if TYPE_CHECKING:
    from costsim.hardware.schema import LinkTable, Profile, Table

KIND = "hardware_profiles"
# The figures that decide a prediction; idle power or a latency does not make a profile doubtful.
_PRINCIPAL = ("compute.bf16", "compute.fp8", "compute.int8", "compute.fp4", "memory.capacity",
              "memory.bandwidth", "scale_up.bandwidth")
_WORST = ("datasheet", "measured", "published", "estimated", "unverified", "rumoured")


def list_hardware() -> list[str]:
    """Return the names of all profiles, the user's own and those that ship."""
    return library.names(KIND)


def load_hardware(name: str | Path) -> Hardware:
    """Return an accelerator by the name of its profile, or from a TOML file.

    Args:
        name: such as ``"h100_sxm"``, or a path.

    Raises:
        InputError: there is no such profile, or something in it is wrong.
    """
    path = library.find(KIND, str(name))
    return _load(path.resolve(), path.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _load(path: Path, modified: int) -> Hardware:
    from costsim.hardware.schema import Profile

    table = _inherited(path, ())
    profile = loading.validate(Profile, table, str(path))
    if not any(getattr(profile.compute, k) for k in ("bf16", "fp32", "int8", "fp8", "fp4")):
        raise InputError(f"{path}: [compute] names no peak rate; one of fp32, bf16, fp8, int8, fp4")
    return _build(path.stem, profile)


def _inherited(path: Path, seen: tuple[str, ...]) -> dict[str, Any]:
    """Return a profile's table over that of the profile it extends."""
    table = loading.read_toml(path)
    parent = table.get("extends", "")
    if not parent:
        return table
    if not isinstance(parent, str):
        raise InputError(f"{path}: key 'extends' = {parent!r}: must be the name of a profile")
    key = str(path.resolve())
    if key in seen:
        raise InputError(f"{path}: 'extends' goes round in a circle")
    try:
        base = library.find(KIND, parent)
    except InputError as error:
        raise InputError(f"{path}: key 'extends': {error}") from None
    return _merged(_inherited(base, (*seen, key)), table)


def _merged(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in top.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = _merged(result[key], value)
        else:
            result[key] = value
    return result


def _sources(prefix: str, table: Table) -> dict[str, dict[str, str]]:
    """Return ``field -> source, retrieved, provenance`` of a table's figures."""
    from costsim.hardware.schema import SourcedValue

    found = {}
    for key in type(table).model_fields:
        figure = getattr(table, key)
        if not isinstance(figure, SourcedValue) or key not in table.model_fields_set:
            continue
        provenance = figure.provenance or table.provenance
        source = figure.source or table.source
        if source.startswith("unverified"):
            provenance = "unverified"
        found[f"{prefix}.{key}"] = {
            "source": source,
            "retrieved": figure.retrieved or table.retrieved,
            "provenance": provenance,
        }
    return found


def _link(table: LinkTable) -> Link:
    return Link(table.domain_size.value, table.bandwidth.value, table.latency.value,
                table.machine_spread.value)


def _build(name: str, profile: Profile) -> Hardware:
    compute, memory, power = profile.compute, profile.memory, profile.power
    rates = {}
    for key in ("fp32", "tf32", "bf16", "fp8", "int8", "fp4"):
        figure = getattr(compute, key)
        if figure is not None:
            rates[key] = figure.value
    tables = {k: getattr(profile, k) for k in ("compute", "memory", "scale_up", "scale_out", "host",
                                               "power", "purchase")}
    sources: dict[str, dict[str, str]] = {}
    for prefix, table in tables.items():
        sources |= _sources(prefix, table)
    principal = [s["provenance"] for key, s in sources.items() if key in _PRINCIPAL]
    worst = max(principal, key=_WORST.index, default="unverified")
    return Hardware(
        name=name, title=profile.title, vendor=profile.vendor, kind=profile.kind,
        released=profile.released, peak_flop_per_s=rates, memory_bytes=memory.capacity.value,
        memory_bandwidth_bytes_per_s=memory.bandwidth.value,
        onchip_memory_bytes=memory.onchip.value, compute_units=compute.compute_units.value,
        scale_up=_link(profile.scale_up), scale_out=_link(profile.scale_out),
        host_bandwidth_bytes_per_s=profile.host.bandwidth.value,
        host_memory_bytes=profile.host.memory.value, tdp_w=power.tdp.value, idle_w=power.idle.value,
        server_w_per_accelerator=power.server.value,
        list_price_usd=profile.purchase.accelerator.value,
        server_price_usd_per_accelerator=profile.purchase.server_share.value,
        prices=tuple(_price(row) for row in profile.prices), calibration=profile.calibration,
        borrowed_calibration=profile.borrowed_calibration,
        structured_sparsity=compute.structured_sparsity.value, sources=sources, provenance=worst,
    )


def _price(row: Any) -> Price:
    return Price(row.kind, row.price.value, row.date, row.source, row.provider, row.region,
                 row.provenance)


def save_hardware(hardware: Hardware, path: Path | str, source: str, retrieved: str) -> Path:
    """Write a profile as TOML, such as the one of this machine that `costsim calibrate` makes.

    Args:
        hardware: what to write; its numeric fields are scalars.
        path: the file.
        source, retrieved: where all its figures come from, and when (ISO date).
    """
    h = hardware
    common = [f"source = {_text(source)}", f"retrieved = {_text(retrieved)}",
              'provenance = "measured"']
    lines = [f"title = {_text(h.title)}", f"vendor = {_text(h.vendor)}", f"kind = {_text(h.kind)}",
             f"calibration = {_text(h.calibration)}",
             f"borrowed_calibration = {_text(h.borrowed_calibration)}", "", "[compute]", *common]
    lines += [f"{key} = {float(rate)!r}" for key, rate in h.peak_flop_per_s.items()]
    lines += [f"structured_sparsity = {float(h.structured_sparsity)!r}",
              f"compute_units = {float(h.compute_units)!r}", "", "[memory]", *common,
              f"capacity = {float(h.memory_bytes)!r}",
              f"bandwidth = {float(h.memory_bandwidth_bytes_per_s)!r}",
              f"onchip = {float(h.onchip_memory_bytes)!r}"]
    for key, link in (("scale_up", h.scale_up), ("scale_out", h.scale_out)):
        lines += ["", f"[{key}]", *common, f"domain_size = {float(link.domain_size)!r}",
                  f"bandwidth = {float(link.bandwidth_bytes_per_s)!r}",
                  f"latency = {float(link.latency_s)!r}",
                  f"machine_spread = {float(link.machine_spread)!r}"]
    lines += ["", "[host]", *common, f"bandwidth = {float(h.host_bandwidth_bytes_per_s)!r}",
              f"memory = {float(h.host_memory_bytes)!r}", "", "[power]", *common,
              f"tdp = {float(h.tdp_w)!r}", f"idle = {float(h.idle_w)!r}", ""]
    return write_atomically(path, "\n".join(lines))


def _text(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
