"""Tables of a calibration for the terminal (rich)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group

from costsim.reports.tables import plain_table
from costsim.units import format_quantity

if TYPE_CHECKING:
    from costsim.kernels.calibrate import CalibrationResult

COLUMNS = ("operator", "data types", "rows", "median error", "p90", "bias", "of peak",
           "of bandwidth", "launch")


def fit_table(result: CalibrationResult) -> Group:
    """Return the fit by operator with its held-out error, and how noisy the machine was."""
    rows = [[r["operator"], r["variant"] or "–", r["rows"], _share(r["median"]),
             _share(r["p90"]), _share(r["bias"], sign=True), _share(r["compute"]),
             _share(r["memory"]), format_quantity(r["launch_s"], "time")]
            for r in result.rows()]
    table = plain_table(f"Fit of '{result.calibration.name}' · errors on held-out rows", COLUMNS,
                        rows, left=2)
    parts: list[Any] = [table, _rates(result)]
    if result.noise:
        parts.append(result.noise.sentence())
    if result.missing:
        parts.append(f"{result.missing} shapes were left out: the time was up (--full has more)")
    if any(r["median"] is None for r in result.rows()):
        parts.append("–: too few rows to hold some out; the generic error stands")
    return Group(*parts, *_extras(result.extras))


def _share(value: float | None, sign: bool = False) -> str:
    if value is None:
        return "–"
    return f"{100 * value:+.1f} %" if sign else f"{100 * value:.1f} %"


def _rates(result: CalibrationResult) -> str:
    h = result.hardware
    rates = ", ".join(f"{k} {format_quantity(float(v), 'flop_rate')}"
                      for k, v in h.peak_flop_per_s.items())
    return (f"{h.title}: best rates {rates}; memory "
            f"{format_quantity(float(h.memory_bandwidth_bytes_per_s), 'bandwidth')}")


def _extras(rows: list[dict[str, Any]]) -> list[Any]:
    sparse = [r for r in rows if r["operator"] == "block_sparse_gemm"]
    others = [r for r in rows if r["operator"] in ("expert_dispatch", "all_reduce")]
    found: list[Any] = []
    if sparse:
        cells = [[r["m"], f"{r['n']}x{r['k']}", r["block"], f"{100 * r['density']:g} %",
                  format_quantity(r["latency_s"], "time"), f"{r['speed_up']:.2f}"]
                 for r in sparse]
        found.append(plain_table("Block-sparse GEMM against the dense one", (
            "m", "weights", "block", "density", "time", "speed-up"), cells, left=0))
    if others:
        cells = [[r["operator"], _what(r), format_quantity(r["latency_s"], "time"),
                  _share(r["spread"])] for r in others]
        found.append(plain_table("Dispatch and collectives of processes", (
            "operator", "shape", "time", "spread"), cells, left=2))
    return found


def _what(row: dict[str, Any]) -> str:
    if row["operator"] == "all_reduce":
        return f"{row['ranks']} processes, {format_quantity(row['message_bytes'], 'bytes')}"
    return (f"{row['tokens']} tokens of {row['hidden']}, top {row['top_k']} of "
            f"{row['experts']}")
