"""The measured serving points of aiconfigurator-core as a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from costsim.validation.comparison import Aim, ComparedPoint, Comparison, summarise
from costsim.validation.silicon import (
    CLASSES,
    QUANTITIES,
    Prediction,
    default_settings,
    kendall,
    predict,
)
from costsim.validation.silicon_points import LeftOut, read_points, sample_path

NAMES = {"tpot": "tpot_s", "ttft": "ttft_s", "throughput": "output_tokens_per_s_per_accelerator"}
SOURCE = "aiconfigurator-core, systems/silicon_sample.csv, row {id}"


def explain(p: Prediction) -> str:
    """Return what is known of why a prediction is far off."""
    ratio = p.tpot_s / p.point.tpot_s
    if _assumed(p):
        return _assumed(p)
    if "DeepSeek" in p.point.model and ratio > 1.6:
        return "faster than one token per step allows: multi-token prediction, not recorded"
    if p.point.layout is None:
        return "disaggregated; speculative decoding is not recorded in these rows"
    if p.point.ttft_s > 20:
        return "the measured TTFT shows a server that was overloaded"
    return "not explained; the interval stands for it"


def _assumed(p: Prediction) -> str:
    return str(getattr(p, "assumed", "") or getattr(p.point, "assumed", ""))


def compared(found: Sequence[Prediction]) -> list[ComparedPoint]:
    """Return the points of predictions: TPOT, TTFT and throughput of each."""
    points = []
    for p in found:
        classes = {name: key(p) for name, key in CLASSES.items()}
        values = {
            "tpot": (p.tpot_s, p.point.tpot_s), "ttft": (p.ttft_s, p.point.ttft_s),
            "throughput": (p.throughput(p.ttft_s, p.tpot_s),
                           p.throughput(p.point.ttft_s, p.point.tpot_s))}
        points += [ComparedPoint(f"{p.point.id} {q}", NAMES[q], *values[q],
                                 getattr(p, f"log_error_{q}"), classes,
                                 SOURCE.format(id=p.point.id), _assumed(p), explain(p))
                   for q in QUANTITIES]
    return points


def comparison(
    peers: Sequence[tuple[str, str, str]] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Return the comparison with the rows that were never fitted on.

    Args:
        peers: what other programs reach on these rows.
        progress: called with (done, total).

    Raises:
        InputError: the extra ``silicon`` is not installed.
    """
    rows, left = read_points(sample_path())
    odd = [p for p in rows if not p.fit]
    found, missed = predict(odd, default_settings(), progress)
    missed = [*missed, *(m for m in left if not m.fit)]
    points = compared(found)
    return Comparison(
        key="silicon", title="Measured serving points",
        about="TTFT and TPOT of vLLM, SGLang and TensorRT-LLM at a fixed concurrency on rows that "
              "were never fitted on (odd checksums); a handful of figures per engine were fitted "
              "to the even rows.",
        points=points, aims=_aims(points, len(found), len(missed), kendall(found)),
        classes=tuple(CLASSES), peers=peers, left_out=_reasons(missed))


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
