"""Tables of training: one run, several fleets, predicted against published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group

from costsim.reports.tables import plain_table, shown
from costsim.units import format_quantity

if TYPE_CHECKING:
    from costsim.training.estimate import TrainingEstimate
    from costsim.training.published import PublishedRun

FLEET_COLUMNS = ("accelerators", "layout", "ZeRO", "recompute", "memory", "step", "MFU",
                 "useful time", "days", "GPU hours", "cost", "energy")


def estimate_data(e: TrainingEstimate) -> dict[str, Any]:
    """Return a training estimate as plain data."""
    plan = e.plan
    return {
        "accelerators": int(e.accelerators), "layout": str(plan.layout), "searched": e.searched,
        "zero": plan.zero, "recompute": plan.recompute, "schedule": plan.schedule,
        "tokens": plan.tokens, "global_batch_tokens": plan.global_batch_tokens,
        "sequence": plan.sequence, "steps": plan.steps, "step_s": float(e.step.seconds),
        "step_parts_s": {name: float(value) for name, value in e.step.parts.items()},
        "mfu": float(e.mfu), "useful_share": float(e.useful_share), "days": float(e.days),
        "gpu_hours": e.hours.as_dict(), "usd": e.usd.as_dict() if e.usd else None,
        "energy_kwh": float(e.energy_kwh), "fits": bool(e.fits),
        "memory_bytes": {**{k: float(v) for k, v in vars(e.memory).items()},
                         "total": float(e.memory.total)},
        "provenance": e.provenance,
    }


def _fleet_row(e: TrainingEstimate) -> list[str]:
    memory = format_quantity(float(e.memory.total), "bytes", 2)
    return [
        str(int(e.accelerators)), str(e.plan.layout), str(e.plan.zero), e.plan.recompute,
        memory if bool(e.fits) else f"{memory} (too much)",
        format_quantity(float(e.step.seconds), "time"), f"{100 * float(e.mfu):.0f} %",
        f"{100 * float(e.useful_share):.1f} %", f"{float(e.days):,.1f}",
        shown(e.hours).replace(" GPU h", ""), shown(e.usd) if e.usd else "–",
        f"{float(e.energy_kwh) / 1000:,.0f} MWh"]


def training_table(found: Sequence[TrainingEstimate], title: str, notes: Sequence[str]) -> Group:
    """Return one row for each number of accelerators, and where the step's time goes."""
    parts = [name for name in found[0].step.parts
             if max(float(e.step.parts[name] / e.step.seconds) for e in found) > 0.005]
    rows = [[name, *(f"{100 * float(e.step.parts[name] / e.step.seconds):.1f} %" for e in found)]
            for name in parts]
    columns = ("part of a step", *(f"{int(e.accelerators)}" for e in found))
    return Group(plain_table(title, FLEET_COLUMNS, [_fleet_row(e) for e in found]),
                 plain_table("Where the time goes, by number of accelerators", columns, rows),
                 *notes)


def published_data(runs: Sequence[PublishedRun]) -> dict[str, Any]:
    """Return the comparison with published runs as plain data."""
    from costsim.training.published import family_errors, fit_unexplained, median_error

    return {
        "median_error": median_error(runs), "counted": sum(run.counts for run in runs),
        "families": family_errors(runs), "fit_on_even_rows": vars(fit_unexplained(runs)),
        "runs": [{"name": r.name, "family": r.family, "model": r.model, "hardware": r.hardware,
                  "quantity": r.quantity, "published": r.published, "predicted": r.predicted,
                  "error": r.error, "layout": r.layout, "counts": r.counts, "fitted": r.fitted,
                  "apart": r.apart, "fits": bool(r.estimate.fits), "source": r.source}
                 for r in runs]}


_COLUMNS = ("run", "figure", "published", "predicted", "error", "layout", "source")
_UNITS = {"step_s": "s a step", "gpu_hours": "GPU h", "mfu": "MFU", "flop_per_s": "FLOP/s",
          "tokens_per_s": "tokens/s", "total_flop": "FLOP"}


def _published_row(row: dict[str, Any]) -> list[str]:
    return [row["name"], _UNITS[row["quantity"]], f"{row['published']:.4g}",
            f"{row['predicted']:.4g}", f"{100 * row['error']:+.1f} %", row["layout"],
            row["source"]]


def published_table(data: dict[str, Any]) -> Group:
    """Return the terminal's tables of predicted against published training runs."""
    runs = data["runs"]
    kinds = (("Layout published, never fitted on: these count", [r for r in runs if r["counts"]]),
             ("Layout published, in the half that the unexplained share is fitted to",
              [r for r in runs if r["fitted"] and not r["apart"]]),
             ("Kept apart", [r for r in runs if r["apart"]]))
    tables = [plain_table(title, _COLUMNS, [_published_row(r) for r in rows])
              for title, rows in kinds if rows]
    reasons = dict.fromkeys(r["apart"] for r in runs if r["apart"])
    families = [[name, f"{100 * error:.1f} %"] for name, error in data["families"].items()]
    return Group(*tables, "Kept apart because:", *(f" • {reason}" for reason in reasons),
                 plain_table("Median |error| by family", ("family", "median"), families),
                 f"median |error| of the {data['counted']} runs that count: "
                 f"{100 * data['median_error']:.1f} %")
