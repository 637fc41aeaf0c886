"""Every layout, precision and batch that fits, priced in a few vectorised calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costsim.dtypes import rate_of
from costsim.engine.deployment import Deployment, deploy
from costsim.engine.layout import Layout
from costsim.engine.memory import max_batch, memory_budget
from costsim.engine.precision import Precision
from costsim.engine.settings import EngineSettings
from costsim.engine.steady_state import operating_point
from costsim.engine.validity import allowed
from costsim.errors import DoesNotFitError
from costsim.hardware.accelerator import Hardware
from costsim.kernels.calibration import Calibration
from costsim.models.architecture import Model, is_moe

# Batches tried: powers of the fourth root of two, as whole numbers.
BATCHES = np.unique(np.round(2.0 ** (np.arange(0, 49) / 4.0))).astype(int)
_MOST_TP, _MOST_PP = 64, 16
# Points priced by one call: enough to make numpy's calls cheap, few enough to stay in the cache;
# and the batches among them, at least.
_BLOCK, _NARROWEST = 8192, 64
_FIGURES = ("batch", "max_batch", "ttft_s", "tpot_s", "requests_per_s", "input_time_share",
            "output_tokens_per_s_per_accelerator", "bottleneck", "log_error_tpot",
            "log_error_throughput")


@dataclass(frozen=True)
class Found:
    """All operating points of a search; each field is an array with one entry a point.

    Args:
        deployments: one for every hardware and precision, its layout fields being arrays.
        deployment: index into ``deployments``.
        tp, pp, ep, dp, accelerators, batch: of the point.
        max_batch: requests that the replica's memory holds.
        ttft_s, tpot_s, requests_per_s, output_tokens_per_s_per_accelerator, bottleneck: its
            figures.
        log_error_tpot, log_error_throughput: of log(actual / predicted).
        meets: whether it meets the targets.
        pareto: whether no other point that meets them is better in both throughput per
            accelerator and TPOT.
    """

    deployments: tuple[Deployment, ...]
    deployment: NDArray[np.int64]
    tp: NDArray[np.int64]
    pp: NDArray[np.int64]
    ep: NDArray[np.int64]
    dp: NDArray[np.int64]
    accelerators: NDArray[np.int64]
    batch: NDArray[np.float64]
    max_batch: NDArray[np.float64]
    ttft_s: NDArray[np.float64]
    tpot_s: NDArray[np.float64]
    requests_per_s: NDArray[np.float64]
    output_tokens_per_s_per_accelerator: NDArray[np.float64]
    input_time_share: NDArray[np.float64]
    log_error_tpot: NDArray[np.float64]
    log_error_throughput: NDArray[np.float64]
    bottleneck: NDArray[Any]
    meets: NDArray[np.bool_]
    pareto: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.batch)

    def at(self, index: int) -> Deployment:
        """Return the deployment of one point, its layout in plain numbers."""
        chosen = self.deployments[int(self.deployment[index])]
        layout = Layout(int(self.tp[index]), int(self.pp[index]), int(self.ep[index]),
                        int(self.dp[index]))
        return chosen.with_changes(layout=layout)

    def best(self) -> int:
        """Return the index of the highest throughput per accelerator that meets the targets.

        Raises:
            DoesNotFitError: no point meets them.
        """
        if not self.meets.any():
            raise DoesNotFitError(
                f"none of {len(self)} operating points meets the targets; the lowest TPOT is "
                f"{1e3 * self.tpot_s.min():.1f} ms, the lowest TTFT "
                f"{1e3 * self.ttft_s.min():.0f} ms"
            )
        per_accelerator = self.output_tokens_per_s_per_accelerator
        return int(np.argmax(np.where(self.meets, per_accelerator, -np.inf)))


def _powers(most: int) -> NDArray[np.int64]:
    return 2 ** np.arange(0, int(np.log2(max(most, 1))) + 1)


def enumerate_layouts(
    model: Model, hardware: Hardware, max_accelerators: int, most_pp: int = _MOST_PP
) -> Layout:
    """Return all layouts of a replica on up to ``max_accelerators``, as arrays of equal length.

    Powers of two of tensor, pipeline, expert and (for mixtures of experts) attention data
    parallelism; tensor parallelism stays inside the scale-up domain where it can.

    Args:
        model: decides which degrees divide its heads, experts and layers.
        hardware: its scale-up domain bounds tensor parallelism.
        max_accelerators: at most.
        most_pp: pipeline stages at most.
    """
    domain = int(np.max(hardware.scale_up.domain_size))
    tp = _powers(min(max_accelerators, max(domain, 8), _MOST_TP))
    pp, ep = _powers(min(max_accelerators, most_pp)), _powers(max_accelerators)
    dp = ep if is_moe(model) else np.array([1])
    ep = ep if is_moe(model) else np.array([1])
    grid = [x.ravel() for x in np.meshgrid(tp, pp, ep, dp, indexing="ij")]
    layout = Layout(*grid)
    good = allowed(model, layout) & (layout.accelerators <= max_accelerators)
    return Layout(*(each[good] for each in grid))


def precisions_for(model: Model, hardware: Hardware) -> list[Precision]:
    """Return the precisions worth trying: the checkpoint's, and lower ones that run natively.

    Args:
        model: its checkpoint's types are the first choice.
        hardware: only types with their own peak rate are offered.
    """
    own = Precision.of_checkpoint(model.quantisation)
    choices = [own]
    plain = own.ffn == "bf16" and own.experts == "bf16"
    if plain and hardware.supports("fp8"):
        choices += [Precision.uniform("fp8"), Precision.uniform("fp8", kv="fp8")]
    if plain and hardware.supports("fp4"):
        choices.append(Precision.uniform("nvfp4", kv="fp8"))
    if not plain and hardware.supports("fp8") and own.kv == "bf16":
        choices.append(Precision(own.attention, own.ffn, own.experts, own.head, own.activation,
                                 "fp8"))
    runs = [p for p in choices if p.activation == "bf16"
            or hardware.supports(rate_of(p.activation, p.activation))]
    return runs or [own]


def search(
    model: Model,
    hardware: Hardware | Sequence[Hardware],
    isl: float,
    osl: float,
    max_accelerators: int = 8,
    ttft_s: float = np.inf,
    tpot_s: float = np.inf,
    precisions: Sequence[Precision] | None = None,
    settings: EngineSettings | None = None,
    batches: Sequence[int] | None = None,
    calibration: Calibration | None = None,
) -> Found:
    """Return every operating point that fits, with those that meet the targets marked.

    Args:
        model: the model.
        hardware: one accelerator or several.
        isl, osl: prompt and output tokens of a request.
        max_accelerators: of a replica.
        ttft_s, tpot_s: targets.
        precisions: data types to try; None: `precisions_for` each hardware.
        settings: engine; None: generic.
        batches: requests in flight to try; None: powers of the fourth root of 2 up to 4096.
        calibration: of the kernels; None: each hardware's own.

    Raises:
        DoesNotFitError: the model fits on no layout.
    """
    kinds = [hardware] if isinstance(hardware, Hardware) else list(hardware)
    tried = np.asarray(BATCHES if batches is None else batches, int)
    found: list[tuple[Deployment, dict[str, NDArray[Any]]]] = []
    for kind in kinds:
        layouts = enumerate_layouts(model, kind, max_accelerators)
        for precision in precisions or precisions_for(model, kind):
            base = deploy(model, kind, layouts, precision, settings, calibration)
            found += _points(base, isl, osl, tried)
    if not found:
        names = ", ".join(kind.name for kind in kinds)
        raise DoesNotFitError(
            f"{model.name} with {isl + osl:.0f} tokens of context fits on no layout of up to "
            f"{max_accelerators} x {names}"
        )
    return _gather(found, ttft_s, tpot_s)


def _points(
    base: Deployment, isl: float, osl: float, batches: NDArray[np.int64]
) -> list[tuple[Deployment, dict[str, NDArray[Any]]]]:
    """Return the points of one hardware and precision: layouts that fit, by batch."""
    budget = memory_budget(base)
    limit = np.where(budget.fits, max_batch(base, isl, osl, budget), 0)
    blocks, start, batches = [], 0, np.unique(batches)
    while start < len(batches) and np.any(limit >= batches[start]):
        layouts = np.flatnonzero(limit >= batches[start])
        tried = batches[start : start + max(_NARROWEST, _BLOCK // len(layouts))]
        blocks.append(_block(base, isl, osl, tried, limit, layouts))
        start += len(tried)
    if not blocks:
        return []
    joined = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    order = np.argsort(joined.pop("layout"), kind="stable")
    return [(base, {name: values[order] for name, values in joined.items()})]


def _block(
    base: Deployment, isl: float, osl: float, batches: NDArray[np.int64], limit: NDArray[Any],
    layouts: NDArray[np.int64],
) -> dict[str, NDArray[Any]]:
    """Return the points of some layouts: those batches that fit."""
    row, column = np.nonzero(batches <= limit[layouts][:, None])
    layout, batch = layouts[row], batches[column]
    values: dict[str, Any] = {name: np.asarray(getattr(base.layout, name))[layout]
                              for name in ("tp", "pp", "ep", "dp")}
    point = operating_point(base.with_changes(layout=Layout(**values)), batch, isl, osl,
                            holds=limit[layout], detailed=False)
    values |= {name: getattr(point, name) for name in _FIGURES}
    values["layout"] = layout
    return {name: value if np.shape(value) == batch.shape else np.broadcast_to(value, batch.shape)
            for name, value in values.items()}


def _gather(
    found: list[tuple[Deployment, dict[str, NDArray[Any]]]], ttft_s: float, tpot_s: float
) -> Found:
    joined = {n: np.concatenate([v[n] for _, v in found]) for n in found[0][1]}
    index = np.concatenate([np.full(len(v["tp"]), i) for i, (_, v) in enumerate(found)])
    meets = (joined["ttft_s"] <= ttft_s) & (joined["tpot_s"] <= tpot_s)
    front = pareto_front(joined["tpot_s"], joined["output_tokens_per_s_per_accelerator"], meets)
    accelerators = joined["tp"] * joined["pp"] * joined["dp"]
    return Found(deployments=tuple(d for d, _ in found), deployment=index, meets=meets,
                 pareto=front, accelerators=accelerators, **joined)


def pareto_front(
    cost: NDArray[np.float64], gain: NDArray[np.float64], among: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Return a mask of the points that no other beats in both lower cost and higher gain.

    Args:
        cost: lower is better (TPOT).
        gain: higher is better (throughput per accelerator).
        among: points that may be on the front; None: all.
    """
    candidates = np.flatnonzero(among) if among is not None else np.arange(len(cost))
    order = candidates[np.lexsort((-gain[candidates], cost[candidates]))]
    best = np.maximum.accumulate(np.concatenate([[-np.inf], gain[order]]))[:-1]
    front = np.zeros(len(cost), bool)
    front[order[gain[order] > best]] = True
    return front
