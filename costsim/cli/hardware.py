"""``costsim hardware list|show``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from costsim.cli.options import complete_hardware, emit, output_options


@click.group("hardware")
def command() -> None:
    """Accelerators: list them, show one with its sources.

    Example: costsim hardware show h100_sxm
    """


@command.command("list")
@output_options
def list_all(as_json: bool, output: Path | None) -> None:
    """List every accelerator with its main figures.

    Example: costsim hardware list
    """
    from costsim.hardware.loader import list_hardware, load_hardware
    from costsim.reports.tables_hardware import hardware_table

    found = [load_hardware(name) for name in list_hardware()]
    emit([_summary(h) for h in found], lambda: hardware_table(found), as_json, output, "hardware")


@command.command("show")
@click.argument("name", shell_complete=complete_hardware)
@output_options
def show(name: str, as_json: bool, output: Path | None) -> None:
    """Show one accelerator: every figure with its source, prices with their dates.

    Example: costsim hardware show h200_sxm
    """
    from costsim.hardware.loader import load_hardware
    from costsim.reports.tables_hardware import hardware_sheet

    hardware = load_hardware(name)
    data = {**_summary(hardware), "sources": dict(hardware.sources),
            "prices": [vars(p) for p in hardware.prices]}
    emit(data, lambda: hardware_sheet(hardware), as_json, output, name)


def _summary(h: Any) -> dict[str, Any]:
    return {
        "name": h.name, "title": h.title, "kind": h.kind, "released": h.released,
        "peak_flop_per_s": dict(h.peak_flop_per_s), "memory_bytes": h.memory_bytes,
        "memory_bandwidth_bytes_per_s": h.memory_bandwidth_bytes_per_s,
        "onchip_memory_bytes": h.onchip_memory_bytes, "compute_units": h.compute_units,
        "scale_up": vars(h.scale_up), "scale_out": vars(h.scale_out), "tdp_w": h.tdp_w,
        "idle_w": h.idle_w, "list_price_usd": h.list_price_usd,
        "calibration": h.calibration or None,
        "borrowed_calibration": h.borrowed_calibration or None, "provenance": h.provenance,
    }
