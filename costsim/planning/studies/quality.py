"""How good sparse models are by the published laws, and how far beyond their runs that is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from costsim.models.architecture import Model
from costsim.models.count import parameters
from costsim.planning.results import ScenarioResult
from costsim.planning.studies.lookup import marked, model_entry
from costsim.planning.studies.result import Chart, Series, StudyResult
from costsim.sparsity.forms import Design
from costsim.sparsity.laws import Law, load_law
from costsim.units import format_quantity

_SIZES = np.logspace(8, 14, 1201)


def design_of(model: Model, tokens: float) -> Design:
    """Return what a law asks of a model: sizes without embeddings, experts, granularity.

    Granularity is the width of a dense FFN of 4·hidden over that of an expert.
    """
    counted = parameters(model)
    outside = float(counted.embedding + counted.head)
    experts = granularity = 1.0
    for layer in model.layers:
        if layer.ffn is not None and layer.ffn.kind == "moe":
            f = layer.ffn
            used = f.top_k * f.width + f.shared_width
            experts = max(experts, (f.experts * f.width + f.shared_width) / used)
            granularity = max(1.0, 4.0 * model.hidden_size / f.width)
    return Design(counted.active - outside, counted.total - outside, tokens, experts, granularity)


def dense_equal(law: Law, loss: float, tokens: float) -> float:
    """Return the parameters of the dense model of a loss at the same tokens; NaN where none has."""
    losses = np.asarray(law.predict(Design(_SIZES, _SIZES, tokens)))
    if not losses[-1] <= loss <= losses[0]:
        return math.nan
    return float(10 ** np.interp(-loss, -losses, np.log10(_SIZES)))


def run(result: ScenarioResult, row: Any) -> StudyResult:
    """Return dense-equivalent sizes of the sparse models under each law."""
    rows, lines, data = [], [], []
    laws = [load_law(name) for name in row.laws]
    for pair in row.pairs:
        dense, sparse = model_entry(result, pair.dense), model_entry(result, pair.sparse)
        plain, thin = design_of(dense.model, row.tokens), design_of(sparse.model, row.tokens)
        found = [_judged(law, plain, thin, row.tokens) for law in laws]
        for law, (gain, low, high, size, beyond) in zip(laws, found, strict=True):
            shown = format_quantity(size, "count") if math.isfinite(size) else "outside the law"
            rows.append([marked(sparse), law.title, f"{gain:+.3f} [{low:+.3f} – {high:+.3f}]",
                         shown, f"{beyond:.1f}"])
        data.append((sparse.title, [f[0] for f in found]))
        lines.append(_sentence(dense, sparse, plain, found))
    chart = Chart("bar", "", "loss of the dense model less that of the sparse one",
                  [Series(law.title, [name for name, _ in data],
                          [gains[i] for _, gains in data]) for i, law in enumerate(laws)],
                  level=(0.0, "equal quality"))
    return StudyResult(row.title, ("model", "law", "gain in loss over the dense one [90 %]",
                                   "dense model of that quality", "decades beyond the runs"),
                       rows, lines, chart, row.source)


def _judged(law: Law, dense: Design, sparse: Design, tokens: float
            ) -> tuple[float, float, float, float, float]:
    losses = float(law.predict(dense)), float(law.predict(sparse))
    gain = losses[0] - losses[1]
    # The law's error at the sparse design; the dense one's is taken to move with it.
    spread = 1.645 * losses[1] * float(law.total_log_error(sparse))
    return (gain, gain - spread, gain + spread, dense_equal(law, losses[1], tokens),
            float(law.decades_outside(sparse)))


def _sentence(dense: Any, sparse: Any, plain: Design, found: list[Any]) -> str:
    better = sum(f[0] > 0 for f in found)
    sure = sum(f[1] > 0 or f[2] < 0 for f in found)
    sizes = [f[3] for f in found if math.isfinite(f[3])]
    text = (f"{sparse.title}: {better} of {len(found)} laws call it better than {dense.title} "
            f"({format_quantity(float(plain.active), 'count')}), {sure} of them beyond the "
            f"error of an extrapolation over {min(f[4] for f in found):.1f} to "
            f"{max(f[4] for f in found):.1f} decades")
    if sizes:
        text += (f"; it equals a dense model of {format_quantity(min(sizes), 'count')} to "
                 f"{format_quantity(max(sizes), 'count')}")
    return text + "."
