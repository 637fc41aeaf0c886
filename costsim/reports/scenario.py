"""Tables, data files and the HTML report of a scenario's run."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group

from costsim import __version__
from costsim.files import write_atomically
from costsim.quantity import Quantity
from costsim.reports import html
from costsim.reports.studies import other_pictures, study_sections, study_tables
from costsim.reports.tables import mark, plain_table
from costsim.reports.tables_estimate import ESTIMATE_COLUMNS, EstimateTable, estimate_row
from costsim.units import format_quantity

if TYPE_CHECKING:
    from costsim.planning.results import Cell, ScenarioResult


def _title(cell: Cell) -> str:
    return mark(cell.name, cell.model.model.provenance)


def rows_of(result: ScenarioResult, workload: str) -> list[list[str]]:
    """Return the table's rows of one workload; impossible deployments say why."""
    rows, most = [], result.scenario.max_accelerators
    for cell in result.cells:
        if cell.workload.key != workload:
            continue
        if cell.estimate is None:
            tried = f"up to {min(cell.hardware.limit, most)}x {cell.hardware.key}"
            rows.append([_title(cell), tried, _short(cell.reason), *[""] * 8])
            continue
        row = estimate_row(cell.estimate, _title(cell))
        if cell.reason:
            row[2] += " (misses targets)"
        rows.append(row)
    return rows


def _short(reason: str) -> str:
    return "does not fit" if "does not fit" in reason else reason[:60]


def scenario_tables(result: ScenarioResult) -> Group:
    """Return the terminal's tables: one per workload, models, findings and warnings."""
    parts: list[Any] = []
    for w in result.scenario.workloads:
        title = f"{w.title}: {w.isl:g} tokens in, {w.osl:g} out, {w.target} · value " \
                "\\[90 % interval], prices at full load"
        parts.append(EstimateTable(title, rows_of(result, w.key)))
    parts += study_tables(result)
    parts.append(plain_table("Models", ("model", "total", "active", "weights", "caveat"),
                             model_rows(result), left=1))
    parts += ["", "Findings", *[f" • {line}" for line in result.findings]]
    if result.warnings:
        parts += ["", "Before you believe it", *[f" ! {line}" for line in result.warnings]]
    return Group(*parts)


def model_rows(result: ScenarioResult) -> list[list[str]]:
    """Return sizes and caveats of the scenario's models."""
    from costsim.planning.run import sizes

    rows = []
    for entry in result.scenario.models:
        total, active = sizes(entry)
        weights = entry.precision.experts if entry.group != "dense" else entry.precision.ffn
        rows.append([mark(entry.title, entry.model.provenance), format_quantity(total, "count"),
                     format_quantity(active, "count"), weights, entry.caveat])
    return rows


def as_data(result: ScenarioResult) -> dict[str, Any]:
    """Return the results as plain data (the JSON file)."""
    scenario = result.scenario
    return {
        "costsim": __version__, "scenario": scenario.name, "title": scenario.title,
        "question": scenario.question, "source": scenario.source,
        "operating_points": result.points, "findings": result.findings,
        "warnings": result.warnings,
        "deployments": [_cell_data(c) for c in result.cells],
        "studies": [s.as_dict() for s in result.studies],
        "experts": [_sweep_data(p) for p in result.sweep],
        "crossovers": [{"hardware": h, "workload": w, **vars(x)}
                       for (h, w), found in result.crossovers.items() for x in found],
        "curves": [{"hardware": h, "workload": w, "name": c.name,
                    "accelerators": c.accelerators,
                    "requests_per_s": list(map(float, c.requests_per_s)),
                    "usd_per_query": list(map(float, c.usd_per_query))}
                   for (h, w), curves in result.curves.items() for c in curves],
        "latencies": result.latencies,
    }


def _cell_data(cell: Cell) -> dict[str, Any]:
    head = {"name": cell.name, "key": cell.model.key, "hardware": cell.hardware.key,
            "workload": cell.workload.key, "limit": cell.hardware.limit, "reason": cell.reason}
    return {**head, "estimate": cell.estimate.as_dict() if cell.estimate else None}


def _sweep_data(p: Any) -> dict[str, Any]:
    return {"experts": p.experts, "total_parameters": p.total_parameters, "hardware": p.hardware,
            "workload": p.workload, "reason": p.reason,
            "estimate": p.estimate.as_dict() if p.estimate else None}


CSV_QUANTITIES = ("ttft_s", "tpot_s", "e2e_s", "requests_per_s",
                  "output_tokens_per_s_per_accelerator", "usd_per_query",
                  "usd_per_million_tokens", "usd_per_million_input_tokens",
                  "usd_per_million_output_tokens")


def as_csv(result: ScenarioResult) -> str:
    """Return one row per deployment, every figure with the bounds of its 90 % interval."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    head = ["workload", "model", "model_provenance", "hardware", "accelerators", "layout", "batch",
            "bottleneck", "reason"]
    ends = ("", "_low", "_high")
    writer.writerow([*head, *(f"{q}{end}" for q in CSV_QUANTITIES for end in ends)])
    for cell in result.cells:
        writer.writerow(_csv_row(cell))
    return buffer.getvalue()


def _csv_row(cell: Cell) -> list[Any]:
    head = [cell.workload.key, cell.name, cell.model.model.provenance, cell.hardware.key]
    e = cell.estimate
    if e is None:
        return [*head, "", "", "", "", cell.reason]
    row = [*head, int(e.deployment.accelerators), str(e.deployment.layout), e.batch, e.bottleneck,
           cell.reason]
    for name in CSV_QUANTITIES:
        quantity: Quantity = getattr(e, name)
        row += [quantity.value, *quantity.interval()]
    return row


def write_data(result: ScenarioResult, folder: Path, dump: Any) -> list[Path]:
    """Write results.json and results.csv."""
    return [write_atomically(folder / "results.json", dump(as_data(result)) + "\n"),
            write_atomically(folder / "results.csv", as_csv(result))]


def write_report(result: ScenarioResult, folder: Path, figures: Sequence[Path]) -> Path:
    """Write report.html with tables, figures, findings and warnings inside."""
    scenario = result.scenario
    sections = [("What it says", html.items(result.findings)),
                ("Before you believe it", html.items(result.warnings, "warn"))]
    sections += study_sections(result, figures)
    pictures = [html.embed(p, p.stem.replace("_", " ")) for p in other_pictures(figures)]
    sections.append(("Figures", "".join(pictures)))
    for w in scenario.workloads:
        title = f"{w.title}: {w.isl:g} tokens in, {w.osl:g} out, {w.target}"
        sections.append((title, html.table(ESTIMATE_COLUMNS, rows_of(result, w.key), left=3)))
    sections.append(("Models", html.table(("model", "total", "active", "weights", "caveat"),
                                          model_rows(result))))
    sections.append(("Where it comes from", html.items(_sources(result))))
    foot = f"costsim {__version__}; {result.points:,} operating points priced."
    document = html.page(scenario.title, scenario.question, sections, foot)
    return html.write_page(folder / "report.html", document)


def _sources(result: ScenarioResult) -> list[str]:
    lines = [result.scenario.source] if result.scenario.source else []
    lines += result.scenario.assumptions
    lines += [f"{s.title}: {s.source}" for s in result.studies if s.source]
    lines += [f"{e.title}: {e.model.source}" for e in result.scenario.models]
    rents = {f"{c.hardware.key}: ${float(c.estimate.rent.central):.2f}/h, {c.estimate.rent.note}"
             for c in result.found() if c.estimate}
    kernels = {f"{c.hardware.key}: kernel times {c.estimate.deployment.calibration.provenance}"
               for c in result.found() if c.estimate}
    return [*lines, *sorted(rents), *sorted(kernels)]
