"""Fits one kernel's surface: few physical parameters, then a correction.

The parameters of the smooth roofline (share of peak, share of bandwidth, bytes at half bandwidth,
launch, ridge) are fitted to log residuals with a soft-L1 loss; what remains goes into a smoothed
grid in log2 space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costsim.hardware.accelerator import Hardware
from costsim.kernels.calibration import (
    Surface,
    corrected,
    inside_latency,
)
from costsim.kernels.correction_fit import fit_correction
from costsim.kernels.efficiency import COLLECTIVES, GENERIC, Efficiency, Latency, roofline_latency
from costsim.kernels.layers import fit_layers
from costsim.kernels.operators import (
    FEATURES,
    NODES,
    ONE_ROW,
    RECURRENT_TOKENS,
    WINDOWED,
    Nodes,
    completed,
    features,
    rate_key,
    variant,
    work_on,
)
from costsim.kernels.table import KernelTable
from costsim.kernels.work import Work

Array = NDArray[np.float64]

# Two-sided 90 % of a normal distribution.
NINETY = 1.6449
# Below so many rows a grid would only copy them; the physics' few parameters are all there is.
FEWEST_FOR_CORRECTION = 12
FEWEST = 6
# Rows that the physical parameters are fitted on: more do not move five parameters.
PHYSICS_ROWS = 3000
# A fit is never surer than this: clocks, temperature and drivers differ between machines.
LEAST_LOG_ERROR = 0.02


@dataclass(frozen=True)
class Kernel:
    """Rows of one kernel (an operator with its data types), ready to be fitted.

    Args:
        operator, variant, engine: which kernel.
        shape: arguments of the operator; data types are plain strings.
        latency_s: measured.
        table: where the rows come from.
    """

    operator: str
    variant: str
    engine: str
    shape: Mapping[str, Any]
    latency_s: Array
    table: KernelTable

    def select(self, rows: Any) -> Kernel:
        """Return the kernel with some of its rows."""
        shape = {k: v[rows] if isinstance(v, np.ndarray) else v for k, v in self.shape.items()}
        return replace(self, shape=shape, latency_s=self.latency_s[rows],
                       table=self.table.select(rows))


def kernels(
    table: KernelTable, engine: str | None = None, one_row: bool = False
) -> Iterator[Kernel]:
    """Yield the kernels of a table, by data types, kind and phase.

    Args:
        table: measured rows.
        engine: name to file them under; the table's software if None.
        one_row: whether a GEMM of one row is a kernel of its own.
    """
    engine = table.software if engine is None else engine
    apart = one_row and table.operator == "gemm"
    for rows, texts in _by_text(table, apart):
        numbers = {k: v[rows] for k, v in table.shape.items() if v.dtype.kind == "f"}
        shape: dict[str, Any] = {**numbers, **texts}
        if np.isnan(shape.get("touched", 0.0)).all():
            shape.pop("touched", None)
        shape = dict(completed(table.operator, shape))
        part = table.select(rows)
        name = variant(table.operator, shape)
        name += ONE_ROW * bool(apart and np.all(shape["m"] <= 1))
        yield Kernel(table.operator, name, engine, shape, part.latency_s, part)


def _by_text(table: KernelTable, one_row: bool) -> Iterator[tuple[Any, dict[str, str]]]:
    names = [n for n, c in table.shape.items() if c.dtype.kind != "f"]
    codes = np.zeros(len(table), np.intp)
    for name in names:
        codes = codes * 64 + np.unique(table.shape[name], return_inverse=True)[1]
    if table.operator == "linear_attention":
        codes = codes * 2 + (table.shape["new_tokens"] <= RECURRENT_TOKENS)
    if one_row:
        codes = codes * 2 + (table.shape["m"] <= 1)
    if "window" in table.shape:
        codes = codes * 2 + (table.shape["window"] > 0)
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        yield rows, {n: str(table.shape[n][rows[0]]) for n in names}


def physics(kernel: Kernel, hardware: Hardware) -> Any:
    """Return a function from efficiencies to the physics' latency of a kernel's rows."""
    if kernel.operator in COLLECTIVES:
        return lambda e: inside_latency(kernel.operator, hardware, kernel.shape, e)
    peak = hardware.peak(rate_key(kernel.operator, kernel.shape))
    bandwidth, units = hardware.memory_bandwidth_bytes_per_s, hardware.compute_units

    @lru_cache(maxsize=1)
    def done(*of: tuple[str, float]) -> Work:
        return work_on(kernel.operator, kernel.shape, hardware.kind, Efficiency(**dict(of)))

    return lambda e: roofline_latency(
        done(*((n, getattr(e, n)) for n in _WORK_NAMES)), peak, bandwidth, units, e)


# What is fitted: lowest and highest value; where it starts, if not as the generic kernel.
_NAMES = ("compute", "memory", "half_bytes", "launch_s", "ridge")
_BOUNDS: dict[str, tuple[float, float]] = {
    "compute": (0.01, 1.1), "memory": (0.02, 1.5), "half_bytes": (1e3, 1e9),
    "launch_s": (2e-7, 1e-3), "ridge": (1.0, 8.0), "unskipped": (1e-7, 1.0),
    "masked": (1e-3, 1.0), "padding": (1e-3, 1.0)}
_FIRST = {"unskipped": 0.05, "masked": 0.5, "padding": 0.5}
# Those of them that say how much work is done.
_WORK_NAMES = ("unskipped", "masked", "padding", "tile_rows")
# Tiles of a GEMM in rows, of which each kernel takes the one that its rows like best.
TILES = (64.0, 128.0)


def fit_efficiency(kernel: Kernel, hardware: Hardware, seed: int = 0) -> Efficiency:
    """Return the physical parameters that fit a kernel's rows best, robustly."""
    few = kernel.select(_some(len(kernel.latency_s), PHYSICS_ROWS, seed))
    # The fastest rows are nearly all launch.
    launch = max(0.8 * float(np.quantile(few.latency_s, 0.01)), 3e-7)
    start = replace(GENERIC[kernel.operator], launch_s=launch)
    names: tuple[str, ...] = _NAMES
    if kernel.operator == "gemm":
        if hardware.kind == "cpu":
            return _fitted(few, hardware, replace(start, tile_rows=1.0), names)[0]
        found = [_fitted(few, hardware, replace(start, tile_rows=t), (*names, "padding"))
                 for t in TILES]
        return min(found, key=lambda f: f[1])[0]
    if kernel.variant.endswith(WINDOWED):
        names = (*names, "unskipped")
    if kernel.operator == "attention_prefill" and hardware.kind == "cpu":
        names = (*names, "masked")
    return _fitted(few, hardware, start, names)[0]


def _fitted(
    kernel: Kernel, hardware: Hardware, start: Efficiency, names: Sequence[str]
) -> tuple[Efficiency, float]:
    """Return the best values of some parameters, and the loss that is left."""
    from scipy.optimize import least_squares

    seconds, target = physics(kernel, hardware), np.log(kernel.latency_s)
    low, high = np.log([_BOUNDS[n] for n in names]).T
    x0 = np.log([_FIRST.get(n, getattr(start, n)) for n in names])

    def efficiency(x: Array) -> Efficiency:
        return replace(start, **dict(zip(names, np.exp(x).tolist(), strict=True)))

    def residual(x: Array) -> Any:
        return np.log(seconds(efficiency(x)).seconds) - target

    found = least_squares(residual, np.clip(x0, low + 1e-6, high - 1e-6), bounds=(low, high),
                          loss="soft_l1", f_scale=0.1, max_nfev=60)
    return efficiency(found.x), float(found.cost)


def _some(rows: int, most: int, seed: int) -> Any:
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def features_of(kernel: Kernel, e: Efficiency) -> list[Array]:
    """Return the log2 features of a kernel's rows, one array each."""
    rows = len(kernel.latency_s)
    return [np.broadcast_to(np.asarray(f, float), rows)
            for f in features(kernel.operator, kernel.shape, e)]


# Stiffness of the correction: the first for dense tables; small ones, whose noise a loose grid
# would copy, take the one that rows held out like best.
STIFFNESS = (0.05, 0.3, 2.0)
DENSE = 5000


def fit_surface(kernel: Kernel, hardware: Hardware) -> Surface:
    """Return the surface of a kernel: physics and, where rows suffice, the correction."""
    efficiency = fit_efficiency(kernel, hardware)
    rows = len(kernel.latency_s)
    if rows < FEWEST_FOR_CORRECTION or kernel.operator not in FEATURES:
        return Surface(efficiency, None, rows)
    residual = np.log(kernel.latency_s / physics(kernel, hardware)(efficiency).seconds)
    where = features_of(kernel, efficiency)
    layouts = NODES[kernel.operator] if kernel.variant.endswith(WINDOWED) else (
        NODES[kernel.operator][:1])
    nodes = _best([(n, STIFFNESS[0]) for n in layouts], where, residual)[0]
    stiff = STIFFNESS[:1] if rows > DENSE else STIFFNESS
    nodes, stiffness = _best([(nodes, s) for s in stiff], where, residual)
    correction = fit_correction(where, residual, nodes, stiffness)
    layers = fit_layers(kernel.operator, kernel.shape, residual - correction.at(where)[0])
    return Surface(efficiency, correction, rows, layers=layers)


def _best(
    choices: Sequence[tuple[Nodes, float]], where: Sequence[Array], residual: Array
) -> tuple[Nodes, float]:
    """Return the nodes and the stiffness that a quarter of the rows, held out, like best."""
    if len(choices) == 1:
        return choices[0]
    order = np.random.default_rng(5).permutation(len(residual))
    held, kept = order[: len(order) // 4], order[len(order) // 4:]
    missed = []
    for nodes, stiffness in choices:
        grid = fit_correction([f[kept] for f in where], residual[kept], nodes, stiffness, passes=2)
        value = grid.at([f[held] for f in where])[0]
        missed.append(float(np.mean(np.minimum(np.abs(residual[held] - value), 0.5))))
    return choices[int(np.argmin(missed))]


def predict(surface: Surface, kernel: Kernel, hardware: Hardware) -> Latency:
    """Return the latency of a kernel's rows under a surface."""
    found = physics(kernel, hardware)(surface.efficiency)
    return corrected(found, surface, kernel.operator, kernel.shape, 1.0)


def log_errors(surface: Surface, kernel: Kernel, hardware: Hardware) -> Array:
    """Return log(measured / predicted) of a kernel's rows."""
    return np.log(kernel.latency_s / predict(surface, kernel, hardware).seconds)


def error_figures(errors: Array) -> dict[str, float]:
    """Return median, 90th percentile and signed bias of log errors, as shares."""
    if len(errors) == 0:
        return {}
    size = np.expm1(np.abs(errors))
    return {"rows": len(errors), "median": float(f"{np.median(size):.4g}"),
            "p90": float(f"{np.quantile(size, 0.9):.4g}"),
            "bias": float(f"{np.expm1(np.median(errors)):.4g}")}


def random_errors(kernel: Kernel, hardware: Hardware, seed: int = 1) -> Array:
    """Return log(measured / predicted) of a random fifth of the rows, by a fit of the others.

    Small tables are held out a fifth at a time until all rows were: their tenth worst row is
    otherwise a matter of luck.
    """
    rng, rows = np.random.default_rng(seed), len(kernel.latency_s)
    folds = np.array_split(rng.permutation(rows), 5)
    errors = []
    for fold in folds[: 1 if rows > DENSE else 5]:
        kept = np.setdiff1d(np.arange(rows), fold)
        surface = fit_surface(kernel.select(kept), hardware)
        errors.append(log_errors(surface, kernel.select(np.sort(fold)), hardware))
    return rng.permutation(np.concatenate(errors))


def enough_for(errors: Array, share: float = 0.9) -> float:
    """Return the log error whose ±1.645 multiple will hold a share of errors like these.

    The quantile is that of conformal prediction: of n errors the ceil((n + 1)·share)-th smallest,
    the largest where n is too small for that (Vovk et al. 2005).
    """
    level = min(1.0, share * (len(errors) + 1.0) / len(errors))
    return max(float(np.quantile(np.abs(errors), level, method="higher")) / NINETY,
               LEAST_LOG_ERROR)


def coverage(errors: Array, log_error: Any) -> float:
    """Return the share of errors within the 90 % interval."""
    return round(float(np.mean(np.abs(errors) <= NINETY * np.asarray(log_error))), 3)
