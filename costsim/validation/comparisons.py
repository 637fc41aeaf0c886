"""Every comparison that the project has, each with its points, its aims and its peers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from costsim.errors import InputError
from costsim.loading import read_json, read_toml
from costsim.validation.comparison import Aim, ComparedPoint, Comparison, summarise

PEERS = Path(__file__).with_name("peers.toml")
PUBLISHED_CSV = Path("published") / "serving.csv"
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Where:
    """Where measured data lie that are not part of the project.

    Args:
        data: folder with ``kernels``, ``serving`` and ``published``.
        engine: result of ``costsim validate engine --output``.
    """

    data: Path | None = None
    engine: Path | None = None


def peers_of(key: str) -> list[tuple[str, str, str]]:
    """Return what other programs reach on a comparison's figures: (program, figure, value)."""
    return [(row["program"], row["figure"], row["value"])
            for row in read_toml(PEERS)["peers"] if row["comparison"] == key]


def kernels(at: Where, progress: Progress | None = None) -> Comparison:
    """Return held-out kernels of every shipped calibration, and tables of other projects."""
    from costsim.kernels.store import read_calibration, shipped_calibrations
    from costsim.validation.kernels import held_out_rows

    rows: list[Sequence[str]] = []
    reached = judged = 0
    for name in shipped_calibrations():
        for r in held_out_rows(read_calibration(name)):
            judged += r["target"] is not None
            reached += bool(r["reached"])
            rows.append((name, r["operator"], r["variant"], r["engine"], str(r["rows"]),
                         *(f"{100 * r[k]:.1f} %" for k in ("median", "p90", "bias")),
                         f"{100 * r['coverage']:.0f} %" if r["coverage"] is not None else "–",
                         "–" if r["target"] is None else "yes" if r["reached"] else "no"))
    columns = ("calibration", "operator", "kernel", "engine", "rows", "median", "p90", "bias",
               "in 90 %", "aim reached")
    points = _vidur(at.data / "kernels") if at.data is not None else []
    aims = [Aim(f"share of {judged} kernel tables whose held-out median and p90 reach their aims",
                reached / max(judged, 1), 0.9, least=True)]
    return Comparison(
        "kernels", "Kernels",
        "Rows that the fit has never seen, by kernel table of aiconfigurator-core; and, where they "
        "are at hand, kernel tables of Vidur on an A100 against the calibration from others' rows.",
        points=points, aims=aims, classes=("operator", "kernel"), peers=peers_of("kernels"),
        tables={"Held-out rows of every calibration": (columns, rows)})


def _vidur(folder: Path) -> list[ComparedPoint]:
    from costsim.hardware.loader import load_hardware
    from costsim.validation.tables import kernel_errors

    found = []
    for path in sorted(folder.glob("vidur_a100*.csv")):
        for k in kernel_errors(load_hardware("a100_sxm_80gb"), path):
            for i, (m, p, e) in enumerate(zip(k.measured_s, k.predicted_s, k.log_error,
                                              strict=True)):
                found.append(ComparedPoint(
                    f"{path.stem} {k.operator} {i}", "kernel_s", float(p), float(m), float(e),
                    {"operator": k.operator, "kernel": k.variant or k.operator},
                    source=f"Vidur, {path.name}", explanation=_vidur_cause(k.operator, float(p))))
    return found


def _vidur_cause(operator: str, predicted_s: float) -> str:
    """Return what is known of why a kernel of Vidur's takes longer."""
    if operator == "all_reduce" and predicted_s < 1e-4:
        return ("Vidur timed NCCL launched from Python; for short messages the calibration has "
                "the engines' own all-reduce in captured graphs")
    if predicted_s < 2e-5:
        return "a kernel of microseconds: Vidur counts its launch, captured graphs hide it"
    return "not explained; the interval stands for it"


def silicon(at: Where, progress: Progress | None = None) -> Comparison:
    """Return the measured serving points of aiconfigurator-core that were never fitted on."""
    from costsim.validation.silicon_comparison import comparison

    misses = read_toml(PEERS).get("aiconfigurator_misses", [])
    return comparison(peers_of("silicon"), misses, _named(progress, "serving points"))


def engine(at: Where, progress: Progress | None = None) -> Comparison:
    """Return the saved timing of real models, predicted from kernels timed beside them."""
    title = "Real models timed here"
    if at.engine is None or not at.engine.is_file():
        return Comparison("engine", title, "", skipped="no result of 'costsim validate engine "
                          "--output FOLDER' is at hand (--engine)")
    data = read_json(at.engine)
    about = data["about"]
    points = [ComparedPoint(
        f"{s['model']} {s['phase']} {s['requests']} x {s['tokens']}", "step_s", s["predicted_s"],
        s["measured_s"], s["log_error"],
        {"kind": "mixture of experts" if s["moe"] else "dense", "model": s["model"],
         "phase": s["phase"]}, source="timed by costsim validate engine",
        explanation=f"slowest round {100 * s['spread']:.0f} % over the quietest")
        for s in data["steps"]]
    ratios = [ComparedPoint(
        f"{r['moe']} over {r['dense']}, {r['step']}", "ratio", r["predicted"], r["measured"],
        math.nan, {"model": r["moe"]}, source="timed by costsim validate engine")
        for r in data["ratios"]]
    dense, sparse = ([p for p in points if p.classes["kind"] == k]
                     for k in ("dense", "mixture of experts"))
    aims = [Aim("median error of steps, dense", summarise(dense).median, 0.12),
            Aim("median error of steps, mixtures of experts", summarise(sparse).median, 0.15),
            Aim("median error of the ratio of mixture to dense", summarise(ratios).median, 0.10)]
    return Comparison(
        "engine", title,
        "Models of transformers with random weights, timed step by step on "
        f"{about['processor'] or about['device']} ({about['dtype']}, {about['threads']} "
        "thread(s)), and predicted from kernels timed on their own beside them; only host times, "
        f"of other models, are fitted. {data['noise_sentence']}",
        points=[*points, *ratios], aims=aims, classes=("kind", "phase", "model"))


def serving(at: Where, progress: Progress | None = None) -> Comparison:
    """Return replays of real vLLM servers from their kernel profiles."""
    from costsim.validation.serving import replay

    about = ("Two real vLLM servers, request by request: the same arrivals and lengths in the "
             "simulator, with kernel times of a profile; nothing is fitted to the requests.")
    folders = (sorted((at.data / "serving").glob("rtxpro6000-*"))
               if at.data is not None else [])
    if not folders:
        return Comparison("serving", "Real servers", about,
                          skipped="the folder serving/ of measured runs is not at hand (--data)")
    published = read_toml(Path(__file__).with_name("serving_published.toml"))
    points, theirs = [], []
    for k, folder in enumerate(folders):
        for row in replay(folder).rows():
            name = f"{row['figure']} {row['statistic']}".strip()
            points.append(ComparedPoint(
                f"{folder.name} {name}", row["figure"], row["predicted"], row["measured"],
                math.nan, {"server": folder.name, "statistic": row["statistic"] or "whole run"},
                source="LLMServingSim repository, vllm_requests.jsonl",
                explanation="of a run of 300 requests; its own repetition is not known"))
            error = published["errors"].get(folder.name, {}).get(name)
            if error is not None:
                theirs.append(("LLMServingSim", f"{folder.name} {name}", f"{error:+.1f} %"))
        if progress:
            progress(k + 1, len(folders), "servers")
    latency = [p for p in points if p.quantity in ("ttft_s", "tpot_s", "e2e_s")
               and p.classes["statistic"] == "mean"]
    tpot = [p for p in latency if p.quantity == "tpot_s"]
    ttft = [p for p in latency if p.quantity == "ttft_s"]
    aims = [Aim("largest error of mean TPOT", max(abs(p.relative) for p in tpot), 0.03),
            Aim("largest error of mean TTFT", max(abs(p.relative) for p in ttft), 0.136)]
    return Comparison("serving", "Real servers", about, points=points, aims=aims,
                      classes=("server", "statistic"), peers=theirs)


def published(at: Where, progress: Progress | None = None) -> Comparison:
    """Return the project's table of published results."""
    from costsim.validation.published import comparison

    return comparison(progress=_named(progress, "published results"))


def public(at: Where, progress: Progress | None = None) -> Comparison:
    """Return the runs of serving benchmarks in public repositories."""
    from costsim.validation.public_runs import comparison

    return comparison(_named(progress, "public runs"))


def published_csv(at: Where, progress: Progress | None = None) -> Comparison:
    """Return the collected table of published operating points, where it is at hand."""
    from costsim.validation.published import comparison
    from costsim.validation.published_case import KERNELS
    from costsim.validation.published_csv import read_published

    title = "Published results, the collected table"
    path = None if at.data is None else at.data / PUBLISHED_CSV
    if path is None or not path.is_file():
        return Comparison("published_csv", title, "",
                          skipped="the table published/serving.csv is not at hand (--data)")
    points, left = read_published(path)
    found = comparison(points, "published_csv", title, (KERNELS,),
                       _named(progress, "collected table"))
    return replace(found, left_out={**found.left_out, **left}, tables={})


def training(at: Where, progress: Progress | None = None) -> Comparison:
    """Return published training runs."""
    from costsim.training.estimate import time_log_errors
    from costsim.training.published import published_runs

    runs = published_runs()
    points = [ComparedPoint(
        run.name, run.quantity, run.predicted, run.published,
        max(time_log_errors(run.estimate.step.log_error, run.estimate.searched)),
        {"run": "layout not published" if run.estimate.searched else run.family},
        source=run.source, assumed=run.layout,
        explanation=run.apart or ("in the half that the unexplained share is fitted to"
                                  if run.fitted else "not explained"),
        counts=run.counts) for run in runs]
    counted = [p for p in points if p.counts]
    return Comparison(
        "training", "Training runs",
        "Step times, accelerator hours, utilisation and throughput of published training runs and "
        "benchmarks; layouts as published, or the search's where none is. The share of time that "
        "the model does not explain is fitted to the half with even checksums; the others count.",
        points=points, classes=("run",),
        aims=[Aim(f"median error of {len(counted)} figures", summarise(counted).median, 0.15)])


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(done, total, what)


COMPARISONS: Mapping[str, Callable[[Where, Progress | None], Comparison]] = {
    "engine": engine, "kernels": kernels, "silicon": silicon, "published": published,
    "published_csv": published_csv, "public": public, "serving": serving, "training": training,
}


def compare_all(
    at: Where | None = None, only: Sequence[str] = (), progress: Progress | None = None
) -> list[Comparison]:
    """Return every comparison, those whose data are absent with the reason.

    Args:
        at: where the measured data lie; None: nowhere.
        only: names of `COMPARISONS`; all where empty.
        progress: called with (done, total, what).
    """
    found = []
    for name, run in COMPARISONS.items():
        if only and name not in only:
            continue
        try:
            found.append(run(at or Where(), progress))
        except InputError as error:
            found.append(Comparison(name, name.capitalize(), "", skipped=str(error)))
    return found


def rows(found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return all points of some comparisons as flat rows."""
    return [{"comparison": c.key, **p.row()} for c in found for p in c.points]
