"""The best layout and batch of a model on a kind of accelerator, for a workload and targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.engine.layout import Layout
from costsim.engine.memory import check_fits
from costsim.engine.search import enumerate_layouts
from costsim.engine.steady_state import OperatingPoint, operating_point
from costsim.errors import DoesNotFitError
from costsim.planning.targets import Target

BATCHES = np.unique(np.round(np.logspace(0, np.log2(4096), 61, base=2.0))).astype(float)


@dataclass(frozen=True)
class Choice:
    """A deployment with the batch at which it serves most within the targets.

    Args:
        deployment: with its layout (scalars).
        batch: requests in flight.
        requests_per_s: of one replica at that batch.
        considered: operating points that were priced to find it.
        met: whether the targets are met; where nothing meets them, the nearest is given.
    """

    deployment: Deployment
    batch: int
    requests_per_s: float
    considered: int
    met: bool


def choose(
    deployment: Deployment, *, isl: float, osl: float, target: Target | None = None,
    max_accelerators: int = 64,
) -> Choice:
    """Return the layout and batch with most requests per accelerator within the targets.

    Args:
        deployment: model, hardware, precision and engine; its layout is ignored.
        isl, osl: tokens of a request.
        target: latencies to meet; None for none.
        max_accelerators: of one replica.

    Raises:
        DoesNotFitError: no layout holds the model and one request.
    """
    target = target or Target()
    grid = enumerate_layouts(deployment.model, deployment.hardware, max_accelerators)
    columns = Layout(grid.tp[:, None], grid.pp[:, None], grid.ep[:, None], grid.dp[:, None])
    # A replica needs at least one request per attention group and stage to keep all busy.
    point = operating_point(deployment.with_changes(layout=columns), batch=BATCHES[None, :],
                            isl=isl, osl=osl, detailed=False)
    fits = np.asarray(point.fits)
    if not fits.any():
        raise DoesNotFitError(
            f"{deployment.model.name} with a request of {isl + osl:g} tokens does not fit on up to "
            f"{max_accelerators}x {deployment.hardware.name}"
        )
    good = fits & np.asarray(target.met(point))
    met = bool(good.any())
    score = _score(point, columns, good, fits, target)
    best = np.unravel_index(int(np.argmax(score)), score.shape)
    row = best[0]
    layout = Layout(int(grid.tp[row]), int(grid.pp[row]), int(grid.ep[row]), int(grid.dp[row]))
    return Choice(deployment.with_changes(layout=layout), int(BATCHES[best[1]]),
                  float(np.broadcast_to(point.requests_per_s, score.shape)[best]), score.size, met)


def best_batch(
    deployment: Deployment, *, isl: float, osl: float, target: Target | None = None
) -> Choice:
    """Return the batch with most requests per second within the targets; the layout stays."""
    target = target or Target()
    point = operating_point(deployment, batch=BATCHES, isl=isl, osl=osl, detailed=False)
    fits = np.asarray(point.fits)
    if not fits.any():
        check_fits(deployment, int(isl + osl))
    good = fits & np.asarray(target.met(point))
    score = _score(point, deployment.layout, good, fits, target)
    best = int(np.argmax(score))
    return Choice(deployment, int(BATCHES[best]), float(point.requests_per_s[best]), score.size,
                  bool(good.any()))


def _score(point: OperatingPoint, columns: Layout, good: Any, fits: Any, target: Target) -> Any:
    """Return requests per accelerator where targets are met, else how near they are (negative)."""
    rate = np.asarray(point.requests_per_s) / np.asarray(columns.accelerators, float)
    if good.any():
        return np.where(good, rate, -1.0)
    miss = np.maximum(np.asarray(point.ttft_s) / min(target.ttft_s, target.ttft_p99_s),
                      np.asarray(point.tpot_s) / min(target.tpot_s, target.tpot_p99_s))
    miss = np.maximum(miss, np.asarray(point.e2e_s) / target.e2e_s)
    return np.where(fits, -miss, -np.inf)
