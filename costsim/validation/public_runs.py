"""Runs of serving benchmarks that people have published, as a user would compare them.

``public_sources.toml`` says of each source where it stands and what served; ``public_runs.csv``
holds the runs: loads, lengths and what the tool measured. Every file was opened. Nothing is fitted
to them: the engines are the shipped presets.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from costsim.engine.deployment import Deployment
from costsim.engine.hardware_limits import with_hardware_limits
from costsim.engine.presets import load_settings
from costsim.errors import InputError
from costsim.hardware.loader import load_hardware
from costsim.loading import read_toml
from costsim.models.architecture import is_moe
from costsim.models.loader import load_model
from costsim.planning.estimate import make_deployment
from costsim.planning.precision import precision_from
from costsim.validation.benchmarks.run import Run, Statistic
from costsim.validation.comparison import Aim, ComparedPoint, Comparison, summarise
from costsim.validation.published import calibration_of
from costsim.validation.published_case import at_rate
from costsim.validation.published_points import read_layout
from costsim.validation.user_benchmark import Compared, compare_runs

SOURCES = Path(__file__).with_name("public_sources.toml")
RUNS = Path(__file__).with_name("public_runs.csv")
QUANTITIES = ("ttft_s", "tpot_s", "output_tokens_per_s")
CLASSES = ("engine's age", "calibration", "engine", "hardware", "load", "model class")
_STATISTICS = ("ttft_s", "tpot_s", "e2e_s")
_NUMBERS = ("isl", "isl_cv", "osl", "osl_cv", "arrival_cv", "duration_s", "requests_per_s",
            "output_tokens_per_s")
COLUMNS = ("source", "path", "tool", "concurrency", "request_rate", "requests", "failed", *_NUMBERS,
           *(f"{name}{part}" for name in _STATISTICS for part in ("", "_p50")))

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Source:
    """Where runs were published, and what served them.

    Args:
        key: short name; repository: owner and name; commit: of the files.
        model, hardware: names; layout: such as TP2 or TP8,EP8; replicas: of it.
        engine: preset; version: of the engine, as far as it is said; tool: that measured.
        weights, kv: data types; ``""``: the checkpoint's own.
        changes: fields of the engine that the source sets, such as ``engine.chunk=2048``.
        assumed: what the source leaves open, and how it was filled.
        older: why the engine is not the one of the preset; such runs do not count in the aims.
    """

    key: str
    repository: str
    commit: str
    model: str
    hardware: str
    layout: str
    engine: str
    version: str = ""
    tool: str = ""
    replicas: int = 1
    weights: str = ""
    kv: str = ""
    changes: tuple[str, ...] = ()
    assumed: str = ""
    older: str = ""

    def deployment(self, rate: float = 1.0) -> Deployment:
        """Return what served; ``rate`` speeds the hardware up (a test's fault)."""
        hardware = load_hardware(self.hardware)
        settings = with_hardware_limits(load_settings(self.engine), hardware)
        precision = precision_from(self.model, self.weights or None, self.kv or None)
        return make_deployment(self.model, at_rate(hardware, rate), read_layout(self.layout),
                               precision=precision, engine=settings, changes=self.changes)


@cache
def sources() -> dict[str, Source]:
    """Return the sources by key."""
    known = {each.name for each in fields(Source)}
    found = {}
    for row in read_toml(SOURCES)["sources"]:
        if wrong := sorted(set(row) - known):
            raise InputError(f"{SOURCES}: {row.get('key')}: unknown key {', '.join(wrong)}")
        found[row["key"]] = Source(**{**row, "changes": tuple(row.get("changes", ()))})
    return found


def left_out() -> dict[str, int]:
    """Return why collected runs are not in the table: reason -> runs."""
    rows = read_toml(SOURCES)["left_out"]
    return {f"{row['repository']}, {row['what']}: {row['because']}": row["runs"] for row in rows}


def read_table(path: Path = RUNS) -> dict[str, list[Run]]:
    """Return the runs of a table by source.

    Raises:
        InputError: columns are missing, or a source is unknown.
    """
    found: dict[str, list[Run]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if missing := sorted(set(COLUMNS) - set(rows.fieldnames or ())):
            raise InputError(f"{path}: no column {', '.join(missing)}")
        for row in rows:
            if row["source"] not in sources():
                raise InputError(f"{path}: no source '{row['source']}' in {SOURCES.name}")
            found.setdefault(row["source"], []).append(_run(row))
    return found


def _run(row: Mapping[str, str]) -> Run:
    def value(name: str) -> float | None:
        return float(row[name]) if row[name] else None

    each = {name: Statistic(value(name), value(f"{name}_p50")) for name in _STATISTICS}
    numbers = {name: value(name) or 0.0 for name in _NUMBERS}
    return Run(source=row["path"], tool=row["tool"], concurrency=value("concurrency"),
               request_rate=value("request_rate") or math.inf, requests=int(row["requests"]),
               failed=int(row["failed"] or 0), **each, **numbers)  # type: ignore[arg-type]


def rows_of(source: str, path: str, run: Run) -> dict[str, str]:
    """Return a run as a row of the table; lengths of single requests become their spread."""
    found: dict[str, Any] = {
        "source": source, "path": path, "tool": run.tool, "concurrency": run.concurrency,
        "request_rate": None if math.isinf(run.request_rate) else run.request_rate,
        "requests": run.requests, "failed": run.failed,
        **{name: getattr(run, name) for name in _NUMBERS}}
    for name in _STATISTICS:
        statistic = getattr(run, name)
        found |= {name: statistic.mean, f"{name}_p50": statistic.p50}
    return {name: "" if found[name] is None else
            found[name] if isinstance(found[name], str) else f"{found[name]:.5g}"
            for name in COLUMNS}


def compare(
    table: Mapping[str, Sequence[Run]] | None = None, rate: float = 1.0,
    progress: Progress | None = None,
) -> list[ComparedPoint]:
    """Return the points of all runs: TTFT, TPOT and throughput of each.

    Args:
        table: runs by source; None for the project's.
        rate: factor on the hardware's rates: a planted fault that the tests must catch.
        progress: called with (done, total) sources.
    """
    known = read_table() if table is None else table
    found: list[ComparedPoint] = []
    for done, (key, runs) in enumerate(known.items()):
        source = sources()[key]
        benchmark = compare_runs(runs, source.deployment(rate), source.replicas)
        for each in benchmark.runs:
            found += _points(source, each)
        if progress:
            progress(done + 1, len(known))
    return found


def _points(source: Source, compared: Compared) -> Iterator[ComparedPoint]:
    run = compared.run
    name = f"{source.key}: {run.label}, {run.isl:.0f}/{run.osl:.0f}, {run.requests} requests"
    for row in compared.rows:
        if row.metric in QUANTITIES:
            yield ComparedPoint(
                f"{name} ({run.source})", row.metric, row.predicted, row.measured, row.log_error,
                classes_of(source, run),
                source=f"github.com/{source.repository} at {source.commit[:10]}, {run.source}",
                assumed=source.assumed, explanation=_explanation(source), counts=not source.older)


def _explanation(source: Source) -> str:
    if source.older:
        return source.older
    known = calibration_of(source.hardware)
    if known != "measured":
        return f"kernels of this accelerator: {known}"
    return "not explained; the interval stands for it"


def classes_of(source: Source, run: Run) -> dict[str, str]:
    """Return the classes of a run."""
    model = load_model(source.model)
    sparse = is_moe(model)
    offered = "all at once" if math.isinf(run.request_rate) else "at a rate"
    return {"engine": f"{source.engine} {source.version}".strip(), "hardware": source.hardware,
            "load": "limit in flight" if run.concurrency is not None else offered,
            "calibration": calibration_of(source.hardware),
            "engine's age": "older than the preset" if source.older else "as the preset",
            "model class": "MoE" if sparse else "dense", "model": source.model,
            "tool": run.tool, "source": source.key}


def comparison(progress: Progress | None = None) -> Comparison:
    """Return the comparison with the published runs."""
    points = compare(progress=progress)
    repositories = len({s.repository for s in sources().values()})
    runs = len({p.id for p in points})
    about = (f"{runs} runs of serving benchmarks from {repositories} public repositories, compared "
             "as 'costsim validate mine.json' compares a user's: each is simulated as its client "
             "sent it, by the shipped presets of the engines. Nothing is fitted to them, and what "
             "a source leaves open is the engine's default.")
    return Comparison(
        key="public", title="Public runs of serving benchmarks", about=about, points=points,
        aims=_aims(points), classes=CLASSES, left_out=left_out(),
        tables={"By source": _by_source(points)})


def _aims(points: Sequence[ComparedPoint]) -> list[Aim]:
    counted = [p for p in points if p.counts]
    own = [p for p in counted if p.classes["calibration"] == "measured"]

    def of(quantity: str) -> float:
        return summarise(p for p in own if p.quantity == quantity).median

    known = "engines as the preset, accelerators with measured kernels"
    return [Aim(f"median error of throughput, {known}", of("output_tokens_per_s"), 0.15),
            Aim(f"median error of TPOT, {known}", of("tpot_s"), 0.15),
            Aim(f"median error of TTFT, {known}", of("ttft_s"), 0.35),
            Aim("share inside the 90 % interval, engines as the preset", summarise(counted).inside,
                0.85, least=True)]


def _by_source(points: Sequence[ComparedPoint]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    columns = ("source", "what served", "runs", "TTFT: median (bias)", "TPOT", "output tokens/s",
               "inside 90 %")
    rows = []
    for key in dict.fromkeys(p.classes["source"] for p in points):
        own, source = [p for p in points if p.classes["source"] == key], sources()[key]
        summaries = [summarise(p for p in own if p.quantity == q) for q in QUANTITIES]
        layout = f"{source.replicas} x {source.layout}" if source.replicas > 1 else source.layout
        rows.append([
            key, f"{source.model}, {source.hardware}, {layout}, {source.engine} {source.version}",
            str(max(s.points for s in summaries)),
            *(f"{100 * s.median:.0f} % ({100 * s.bias:+.0f} %)" if s.points else "–"
              for s in summaries), f"{100 * summarise(own).inside:.0f} %"])
    return columns, rows
