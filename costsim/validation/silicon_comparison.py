"""The measured serving points of aiconfigurator-core as a comparison."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from costsim.validation.comparison import Aim, ComparedPoint, Comparison, summarise
from costsim.validation.silicon import (
    CLASSES,
    QUANTITIES,
    Prediction,
    default_settings,
    kendall,
    predict,
)
from costsim.validation.silicon_points import (
    LeftOut,
    ServingPoint,
    is_for_fitting,
    read_points,
    sample_path,
)

NAMES = {"tpot": "tpot_s", "ttft": "ttft_s", "throughput": "output_tokens_per_s_per_accelerator"}
SAMPLE = 619
SOURCE = "aiconfigurator-core, systems/silicon_sample.csv, row {id}"


def explain(p: Prediction) -> str:
    """Return what is known of why a prediction is far off."""
    if p.point.assumed:
        return p.point.assumed
    if p.point.draft_tokens:
        return "drafts; acceptance differs between texts, one figure stands for all"
    if p.point.ttft_s > 20:
        return "the measured TTFT shows a server that was overloaded"
    return "not explained; the interval stands for it"


def compared(found: Sequence[Prediction]) -> list[ComparedPoint]:
    """Return the points of predictions: TPOT, TTFT and throughput of each."""
    points = []
    for p in found:
        classes = {name: key(p) for name, key in CLASSES.items()}
        values = {
            "tpot": (p.tpot_s, p.point.tpot_s), "ttft": (p.ttft_s, p.point.ttft_s),
            "throughput": (p.throughput(p.ttft_s, p.tpot_s),
                           p.throughput(p.point.ttft_s, p.point.tpot_s))}
        points += [ComparedPoint(p.point.id, NAMES[q], *values[q],
                                 getattr(p, f"log_error_{q}"), classes,
                                 SOURCE.format(id=p.point.id), p.point.assumed, explain(p))
                   for q in QUANTITIES]
    return points


def sample_ids(many: int = SAMPLE) -> list[str]:
    """Return the random rows that AIConfigurator is asked too: aggregated, never fitted on.

    Raises:
        InputError: the extra ``silicon`` is not installed.
    """
    with sample_path().open(newline="", encoding="utf-8") as file:
        ids = {row["id"] for row in csv.DictReader(file) if row["mode"] == "agg"}
    free = [row for row in ids if not is_for_fitting(row)]
    return sorted(free, key=lambda row: (zlib.crc32(row.encode()), row))[:many]


def sample_errors(
    found: Mapping[str, tuple[float, float]], points: Mapping[str, ServingPoint],
    among: Sequence[str],
) -> dict[str, float]:
    """Return median, mean and 90th percentile of the errors of TPOT and TTFT.

    Args:
        found: TTFT and TPOT [s] by row; points: the rows; among: rows that count.
    """
    result: dict[str, float] = {}
    for k, name in ((1, "TPOT"), (0, "TTFT")):
        pairs = [(found[row][k], points[row].tpot_s if k else points[row].ttft_s) for row in among]
        size = np.abs(np.array([p / m for p, m in pairs]) - 1.0)
        result |= {f"{name} error, median": float(np.median(size)),
                   f"{name} error, mean": float(size.mean()),
                   f"{name} error, 90th percentile": float(np.quantile(size, 0.9))}
    return result


def own_on_sample(
    found: Sequence[Prediction], misses: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Return our figures on the rows that AIConfigurator was asked too.

    Args:
        found: predictions; misses: rows of the sample that AIConfigurator cannot predict.
    """
    ids = sample_ids()
    points = {p.point.id: p.point for p in found}
    mine = {p.point.id: (p.ttft_s, p.tpot_s) for p in found}
    own = [row for row in ids if row in mine]
    both = [row for row in own if row not in set(misses)]
    rows = [("costsim", "rows predicted", f"{100 * len(own) / len(ids):.1f} %")]
    for name, among in (("costsim", own), (f"costsim, the {len(both)} that both predict", both)):
        rows += [(name, what, f"{100 * value:.1f} %")
                 for what, value in sample_errors(mine, points, among).items()]
    return rows


def comparison(
    peers: Sequence[tuple[str, str, str]] = (), misses: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Return the comparison with the rows that were never fitted on.

    Args:
        peers: what other programs reach on a sample of these rows.
        misses: rows of the sample that AIConfigurator cannot predict.
        progress: called with (done, total).

    Raises:
        InputError: the extra ``silicon`` is not installed.
    """
    rows, left = read_points(sample_path())
    odd = [p for p in rows if not p.fit]
    found, missed = predict(odd, default_settings(), progress)
    missed = [*missed, *(m for m in left if not m.fit)]
    points = compared(found)
    beside = [*peers, *own_on_sample(found, misses)] if peers else []
    return Comparison(
        key="silicon", title="Measured serving points",
        about="TTFT and TPOT of vLLM, SGLang and TensorRT-LLM at a fixed concurrency on rows that "
              "were never fitted on (odd checksums); a handful of figures per engine were fitted "
              "to the even rows.",
        points=points, aims=_aims(points, len(found), len(missed), kendall(found)),
        classes=tuple(CLASSES), peers=beside, left_out=_reasons(missed))


def _aims(points: Sequence[ComparedPoint], done: int, missed: int, tau: float) -> list[Aim]:
    s = {name: summarise(p for p in points if p.quantity == NAMES[name]) for name in NAMES}
    return [
        Aim("share of the rows predicted", done / max(done + missed, 1), 0.95, least=True),
        Aim("TPOT, median error", s["tpot"].median, 0.08),
        Aim("TPOT, 90th percentile of the error", s["tpot"].p90, 0.25),
        Aim("TTFT, median error", s["ttft"].median, 0.20),
        Aim("throughput per accelerator, median error", s["throughput"].median, 0.08),
        Aim("TPOT inside the 90 % interval (85 to 95 %)", s["tpot"].inside, 0.85, least=True),
        Aim("Kendall τ of throughput within model, accelerator and lengths", tau, 0.9, least=True),
    ]


def _reasons(missed: Sequence[LeftOut]) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for row in missed:
        reasons[row.reason] = reasons.get(row.reason, 0) + 1
    return reasons
