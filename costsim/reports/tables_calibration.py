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
    if result.refused:
        first = result.refused[0]
        parts.append(f"{len(result.refused)} kernels were refused, the first ({first['what']}): "
                     f"{first['why']}; all of them in --json")
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


_SPARSE = {"block_sparse_gemm": "blocks of {block}", "sparse_2_4_gemm": "2 of 4"}


def _extras(rows: list[dict[str, Any]]) -> list[Any]:
    sparse = [r for r in rows if r["operator"] in _SPARSE]
    steps = [r for r in rows if r["operator"] == "decode_step"]
    others = [r for r in rows if r not in sparse and r not in steps]
    found: list[Any] = []
    if sparse:
        cells = [[r["m"], f"{r['n']}x{r['k']}", _SPARSE[r["operator"]].format(**r),
                  f"{100 * r['density']:g} %", format_quantity(r["latency_s"], "time"),
                  f"{r['speed_up']:.2f}"] for r in sparse]
        found.append(plain_table("Sparse GEMM against the dense one", (
            "m", "weights", "kept", "density", "time", "speed-up"), cells, left=0))
    if steps:
        cells = [[r["model"], r["how"], r["batch"], r["context"],
                  format_quantity(r["latency_s"], "time"), _share(r["spread"])] for r in steps]
        found.append(plain_table("Decode steps on random weights", (
            "shape of", "launched", "batch", "context", "time", "spread"), cells, left=2))
    if others:
        cells = [[r["operator"], _what(r), format_quantity(r["latency_s"], "time"),
                  _share(r["spread"])] for r in others]
        found.append(plain_table("Launches, dispatch and other kernels", (
            "operator", "shape", "time", "spread"), cells, left=2))
    return found


def _what(row: dict[str, Any]) -> str:
    operator, how = row["operator"], row.get("how", "")
    if operator == "all_reduce":
        return f"{row['ranks']} processes, {format_quantity(row['message_bytes'], 'bytes')}"
    if operator == "expert_dispatch":
        return (f"{row['tokens']} tokens of {row['hidden']}, top {row['top_k']} of "
                f"{row['experts']}")
    if operator == "rms_norm":
        return str(format_quantity(row["bytes"], "bytes"))
    if operator == "launch":
        return f"{how.replace('_', ' ')}, {row['kernels']} kernels"
    tokens = row.get("new_tokens") or row.get("context")
    return f"{how}, {row.get('batch')} x {tokens} tokens, {row.get('heads')} heads"
