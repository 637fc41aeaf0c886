"""Block-sparse products as measured, and what pruning costs in quality."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import costsim.kernels
from costsim.loading import read_text
from costsim.planning.results import ScenarioResult
from costsim.planning.studies.result import Chart, Series, StudyResult
from costsim.sparsity.compression import compressions

TABLE = Path(costsim.kernels.__file__).with_name("sparse_gemm_cpu.csv")


def measured() -> list[dict[str, float]]:
    """Return the rows of the shipped table: block, density, m, n, k, speed_up and times."""
    text = "\n".join(line for line in read_text(TABLE).splitlines() if not line.startswith("#"))
    return [{k: float(v) for k, v in row.items() if k != "operator"}
            for row in csv.DictReader(io.StringIO(text))]


def run(result: ScenarioResult, row: Any) -> StudyResult:
    """Return speed-ups by block and density, and the losses of quality with their sources."""
    found = measured()
    widest = max(r["m"] for r in found)
    own = [r for r in found if r["m"] == widest]
    blocks = sorted({r["block"] for r in own})
    densities = sorted({r["density"] for r in own})
    series = [Series(f"blocks of {b:g}", densities,
                     [next(r["speed_up"] for r in own if r["block"] == b and r["density"] == d)
                      for d in densities]) for b in blocks]
    rows = [[f"{b:g}x{b:g}", *(f"{next(r['speed_up'] for r in own if (r['block'], r['density']) == (b, d)):.2f}"  # noqa: E501
                               for d in densities)] for b in blocks]
    lines = [_sentence(s, widest) for s in series]
    lines.append("These are products on one CPU core; no block-sparse or 2:4 product was measured "
                 "on a GPU here, so that the deployments above save bytes and no arithmetic.")
    for way in compressions():
        if way.added_loss is None:
            lines.append(f"{way.title}: loss of quality unknown ({way.source}).")
        elif way.added_loss[1] > 0:
            lines.append(f"{way.title}: perplexity rises {100 * (way.perplexity_ratio - 1):.0f} % "
                         f"without training on ({way.source}).")
    chart = Chart("line", "share of the blocks that is kept", "times faster than the dense product",
                  series, log_x=True, log_y=True, level=(1.0, "as fast as dense"))
    return StudyResult(row.title, ("block", *(f"density {d:g}" for d in densities)), rows, lines,
                       chart, row.source)


def _sentence(series: Series, m: float) -> str:
    paying = [d for d, s in zip(series.x, series.y, strict=True) if s > 1.0]
    ideal = [s * d for d, s in zip(series.x, series.y, strict=True)]
    text = f"{series.name.capitalize()}, {m:g} rows: "
    if not paying:
        return text + "never faster than the dense product."
    return (f"{text}faster than dense up to a density of {max(paying):g}; "
            f"{100 * max(ideal):.0f} % at best of the speed-up that the density promises.")
