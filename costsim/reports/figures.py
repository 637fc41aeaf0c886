"""Figures of a scenario's run that a person would put on a slide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from costsim.reports.style import MARKERS, colours, dollars, figure, label_right, save

if TYPE_CHECKING:
    from costsim.planning.load import LoadCurve
    from costsim.planning.results import Cell, ScenarioResult

Drawn = list[Path]


def _foot(result: ScenarioResult, extra: str = "") -> str:
    rumoured = any(e.model.provenance == "rumoured" for e in result.scenario.models)
    parts = ["costsim"]
    if rumoured:
        parts.append("models marked (r) rest on rumoured figures")
    calibrations = sorted({f"{c.hardware.key}: {c.estimate.deployment.calibration.provenance}"
                           for c in result.found() if c.estimate})
    parts.append("kernel times " + "; ".join(calibrations))
    return ". ".join([*parts, extra]).rstrip(". ") + "."


def label(cell: Cell) -> str:
    """Return a model's name with the mark of rumoured ones."""
    return cell.name + (" (r)" if cell.model.model.provenance == "rumoured" else "")


def _names(result: ScenarioResult) -> dict[str, str]:
    return colours([m.title for m in result.scenario.models])


def cost_against_load(result: ScenarioResult, folder: Path) -> Drawn:
    """Cost per query against load, one panel per accelerator, for the first workload."""
    workload = result.scenario.workloads[0]
    keys = [h.key for h in result.scenario.hardware if (h.key, workload.key) in result.curves]
    if not keys:
        return []
    title = f"Cost per query against load · {workload.title}, {workload.target}"
    foot = _foot(result, "teeth: whole replicas are paid for, busy or not; lines: replicas that "
                         "are full; they end where the fleet does")
    with figure(title, foot, columns=len(keys), height=5.8) as (drawn, axes):
        tint = _names(result)
        for axis, key in zip(np.atleast_1d(axes), keys, strict=True):
            _load_curves(axis, result.curves[(key, workload.key)], tint, result)
            limit = next(h.limit for h in result.scenario.hardware if h.key == key)
            axis.set_title(f"{key}, up to {limit}", fontsize=10.5)
            axis.set_xlabel("requests per second")
            axis.yaxis.set_major_formatter(dollars)
        np.atleast_1d(axes)[0].set_ylabel("$ per query")
        _legend_below(drawn, np.atleast_1d(axes))
        return save(drawn, folder, "cost_against_load")


def _load_curves(axis: Any, curves: Sequence[LoadCurve], tint: dict[str, str],
                 result: ScenarioResult) -> None:
    """Draw each deployment's cost against load from a tenth of the smallest replica's capacity."""
    start = 0.1 * min(c.usd_per_replica_s / c.floor_usd for c in curves)
    for i, curve in enumerate(curves):
        mark = " (r)" if _rumoured(result, curve.name) else ""
        load = np.asarray(curve.requests_per_s)
        seen = (load >= start) & np.isfinite(curve.usd_per_query)
        axis.loglog(load[seen], curve.usd_per_query[seen], color=tint[curve.name], lw=0.7,
                    alpha=0.55)
        full = np.geomspace(start, max(curve.capacity_requests_per_s, start), 60)
        cost = curve.without_steps(full)
        # Replicas of one size cost the same below their capacity: the lines lie on each other
        # there, so that later ones are drawn thinner and leave the earlier in sight.
        axis.loglog(full, cost, color=tint[curve.name], lw=max(5.0 - 0.55 * i, 1.2),
                    solid_capstyle="butt", label=curve.name + mark)
        axis.plot(full[-1:], cost[-1:], "o", color=tint[curve.name], ms=4.5)


def _rumoured(result: ScenarioResult, title: str) -> bool:
    return any(m.title == title and m.model.provenance == "rumoured"
               for m in result.scenario.models)


def _legend_below(drawn: Any, axes: Any) -> None:
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(text, handle)
    rows = -(-len(found) // 4)
    # In inches from the top, so that it sits the same above panels of any height.
    height = drawn.get_figheight()
    drawn.legend(found.values(), found.keys(), loc="upper left", ncol=min(len(found), 4),
                 bbox_to_anchor=(0.005, 1 - 0.32 / height), fontsize=8.5)
    drawn.costsim_top = 1 - (0.42 + 0.19 * rows) / height


def pareto(result: ScenarioResult, folder: Path) -> Drawn:
    """Throughput per accelerator against interactivity, over batch, best layout of each."""
    from costsim.engine.steady_state import operating_point

    workload = result.scenario.workloads[0]
    hardware = _richest(result, workload.key)
    cells = [c for c in result.found(hardware, workload.key) if c.choice]
    if not cells:
        return []
    title = f"Throughput against interactivity · {workload.title} on {hardware}"
    with figure(title, _foot(result, "each curve: batch from 1 to what fits")) as (drawn, axis):
        tint = _names(result)
        batches = np.unique(np.round(np.logspace(0, 3.3, 60)))
        for i, cell in enumerate(cells):
            assert cell.choice is not None and cell.estimate is not None
            point = operating_point(cell.choice.deployment, batch=batches, isl=cell.estimate.isl,
                                    osl=cell.estimate.osl)
            fits = np.asarray(point.fits)
            speed = 1.0 / np.asarray(point.tpot_s)[fits]
            gain = np.asarray(point.output_tokens_per_s_per_accelerator)[fits]
            axis.plot(speed, gain, color=tint[cell.name], lw=1.6)
            axis.plot(1.0 / float(cell.estimate.tpot_s),
                      float(cell.estimate.output_tokens_per_s_per_accelerator),
                      MARKERS[i % len(MARKERS)], color=tint[cell.name], ms=7,
                      label=f"{label(cell)}, {cell.choice.deployment.layout}")
        axis.set_yscale("log")
        if np.isfinite(workload.target.tpot_s):
            _target_line(axis, 1 / workload.target.tpot_s)
        axis.set_xlabel("output tokens per second and user (1/TPOT)")
        axis.set_ylabel("output tokens per second and accelerator")
        axis.legend(loc="best", fontsize=8)
        return save(drawn, folder, "throughput_against_interactivity")


def _richest(result: ScenarioResult, workload: str) -> str:
    """Return the accelerator on which most models fit, the last of equals."""
    counts = {h.key: len([c for c in result.found(h.key, workload) if not c.reason])
              for h in result.scenario.hardware}
    return max(reversed(list(counts)), key=lambda k: counts[k])


def step_breakdown(result: ScenarioResult, folder: Path) -> Drawn:
    """Where the accelerator time of an output token goes, by model."""
    workload = result.scenario.workloads[0]
    hardware = _richest(result, workload.key)
    cells = [c for c in result.found(hardware, workload.key) if c.estimate]
    if not cells:
        return []
    parts, rows = _token_parts(cells)
    title = f"Accelerator time per output token · {workload.title} on {hardware}"
    with figure(title, _foot(result, "decode step times accelerators over batch"),
                height=1.4 + 0.55 * len(cells)) as (drawn, axis):
        left = np.zeros(len(cells))
        for name, tint in colours(parts).items():
            values = np.array([row.get(name, 0.0) for row in rows]) * 1e3
            axis.barh(range(len(cells)), values, left=left, color=tint, label=name, height=0.7)
            left += values
        axis.set_yticks(range(len(cells)), [label(c) for c in cells])
        axis.invert_yaxis()
        axis.set_xlabel("accelerator milliseconds per output token")
        axis.grid(axis="y", visible=False)
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return save(drawn, folder, "step_breakdown")


_GROUPS = {
    "qkv projection": "attention weights", "output projection": "attention weights",
    "latent expansion": "attention weights", "attention (decode)": "KV cache",
    "indexer": "KV cache", "linear attention": "KV cache", "ffn up": "dense FFN",
    "ffn down": "dense FFN", "shared expert up": "dense FFN", "shared expert down": "dense FFN",
    "experts": "experts", "router": "experts", "expert dispatch": "all-to-all",
    "expert combine": "all-to-all", "all-reduce": "all-reduce", "host": "host",
    "kernel launches": "host",
}


def _token_parts(cells: list[Cell]) -> tuple[list[str], list[dict[str, float]]]:
    rows: list[dict[str, float]] = []
    for cell in cells:
        assert cell.estimate is not None
        weight = float(cell.estimate.deployment.accelerators) / cell.estimate.batch
        row: dict[str, float] = {}
        for name, value in cell.estimate.point.decode.by_operator.items():
            group = _GROUPS.get(name, "norms, head and other")
            row[group] = row.get(group, 0.0) + float(np.max(value)) * weight
        rows.append(row)
    order = ["attention weights", "KV cache", "dense FFN", "experts", "all-to-all", "all-reduce",
             "host", "norms, head and other"]
    return [n for n in order if any(r.get(n, 0.0) > 0 for r in rows)], rows


def cost_against_experts(result: ScenarioResult, folder: Path) -> Drawn:
    """Cost per query and accelerators per replica against the number of experts."""
    points = [p for p in result.sweep if p.estimate is not None and not p.reason]
    if len(points) < 2:
        return []
    workload = result.scenario.workloads[0]
    title = f"What more experts cost at equal active parameters · {workload.title}"
    foot = _foot(result, "shaded: 90 % interval; numbers: accelerators of a replica")
    with figure(title, foot) as (drawn, axis):
        names = list(dict.fromkeys(p.hardware for p in points))
        for name, tint in colours(names).items():
            own = [p for p in points if p.hardware == name]
            x = [p.experts for p in own]
            y = [float(p.estimate.usd_per_query) for p in own if p.estimate]
            bounds = np.array([p.estimate.usd_per_query.interval() for p in own if p.estimate])
            axis.fill_between(x, bounds[:, 0], bounds[:, 1], color=tint, alpha=0.12, lw=0)
            axis.plot(x, y, "o-", color=tint, lw=1.8, label=name)
            for p, cost in zip(own, y, strict=True):
                size = int(p.estimate.deployment.accelerators) if p.estimate else 0
                axis.annotate(str(size), (p.experts, cost), textcoords="offset points",
                              xytext=(0, 7), ha="center", fontsize=8, color=tint)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        ticks = sorted({p.experts for p in result.sweep})
        axis.set_xticks(ticks, [str(t) for t in ticks])
        axis.yaxis.set_major_formatter(dollars)
        axis.set_xlabel("experts")
        axis.set_ylabel("$ per query at full load")
        missing = sorted({p.experts for p in result.sweep} - {p.experts for p in points})
        if missing:
            note = f"\n{', '.join(map(str, missing))} experts fit on none"
            axis.set_title(axis.get_title(loc="left") + note, loc="left", fontsize=10.5)
        axis.legend()
        return save(drawn, folder, "cost_against_experts")


def roofline(result: ScenarioResult, folder: Path) -> Drawn:
    """The roofline of one accelerator with the operators of a decode step and of a prompt on it."""
    from costsim.engine.profile import operator_points

    workload = result.scenario.workloads[0]
    hardware = _richest(result, workload.key)
    base = next((c for c in result.found(hardware, workload.key)
                 if c.model.key != result.scenario.baseline), None)
    if base is None or base.choice is None or base.estimate is None:
        return []
    d = base.choice.deployment
    points = operator_points(d, base.choice.batch, base.estimate.isl, base.estimate.osl)
    title = f"Roofline · {label(base)}\non {hardware}, {d.layout}, batch {base.choice.batch}"
    with figure(title, _foot(result), height=5.8) as (drawn, axis):
        peak = float(d.hardware.peak("int8" if d.precision.ffn == "int8" else "bf16"))
        bandwidth = float(d.hardware.memory_bandwidth_bytes_per_s)
        x = np.logspace(-1, 4.5, 200)
        axis.loglog(x, np.minimum(peak, x * bandwidth) / 1e12, color="#333333", lw=2)
        axis.axvline(peak / bandwidth, color="#999999", lw=0.8, ls=":")
        axis.annotate(f"ridge {peak / bandwidth:.0f} FLOP/B", (peak / bandwidth, 0.02),
                      xycoords=("data", "axes fraction"), textcoords="offset points",
                      xytext=(4, 0), fontsize=8, color="#666666")
        marks = []
        for phase, marker, tint in (("decode", "o", "#D55E00"), ("prefill", "s", "#0072B2")):
            own = [p for p in points if p.phase == phase and p.flop > 0]
            axis.plot([p.intensity for p in own], [p.flop_per_s / 1e12 for p in own], marker,
                      color=tint, ms=7, ls="", label=phase)
            marks += [(names, p.intensity, p.flop_per_s / 1e12, tint) for names, p in _bunched(own)]
        axis.set_xlim(x[0], x[-1])
        label_right(axis, marks)
        axis.set_xlabel("FLOP per byte of main memory")
        axis.set_ylabel("TFLOP/s per accelerator")
        axis.legend(loc="upper left")
        return save(drawn, folder, "roofline")


def _bunched(points: list[Any]) -> list[tuple[str, Any]]:
    """Return points with their names, those that lie on each other under one label."""
    groups: list[list[Any]] = []
    for p in sorted(points, key=lambda p: p.intensity):
        last = groups[-1][-1] if groups else None
        near = last is not None and abs(np.log(p.intensity / last.intensity)) < 0.35 and abs(
            np.log(p.flop_per_s / last.flop_per_s)) < 0.35
        if near:
            groups[-1].append(p)
        else:
            groups.append([p])
    return [(", ".join(p.name for p in g), g[0]) for g in groups]


def latency_distribution(result: ScenarioResult, folder: Path) -> Drawn:
    """Simulated distributions of TTFT and TPOT."""
    if not result.latencies:
        return []
    workload = result.scenario.workloads[0]
    title = f"Latency under Poisson traffic at 70 % of capacity, simulated · {workload.title}"
    with figure(title, _foot(result, "points: 99th percentile"), columns=2) as (drawn, axes):
        tint = colours(list(result.latencies))
        for axis, name, text in zip(axes, ("ttft_s", "tpot_s"),
                                    ("time to first token [s]", "time per output token [ms]"),
                                    strict=True):
            scale = 1.0 if name == "ttft_s" else 1e3
            for who, found in result.latencies.items():
                values = np.array(found["samples"][name]) * scale
                if not len(values):
                    continue
                mark = " (r)" if _rumoured(result, who.rpartition(" on ")[0]) else ""
                axis.plot(values, np.linspace(0, 100, len(values)), color=tint[who], lw=1.8,
                          label=who + mark)
                tail = float(np.quantile(values, 0.99))
                axis.plot([tail], [99], "o", color=tint[who], ms=5)
            axis.set_xlabel(text)
            axis.axhline(99, color="#bbbbbb", lw=0.8, ls=":")
            _target_line(axis, getattr(result.scenario.workloads[0].target, name) * scale)
            axis.set_ylim(0, 101)
        axes[0].set_ylabel("share of requests [%]")
        _legend_below(drawn, axes)
        return save(drawn, folder, "latency_distribution")


def _target_line(axis: Any, target: float) -> None:
    if not np.isfinite(target):
        return
    axis.axvline(target, color="#888888", lw=1, ls="--")
    axis.annotate("target", (target, 0.0), xycoords=("data", "axes fraction"), fontsize=8.5,
                  textcoords="offset points", xytext=(4, 4), color="#666666",
                  bbox={"facecolor": "white", "alpha": 0.8, "lw": 0, "pad": 1})


FIGURES: dict[str, Callable[[ScenarioResult, Path], Drawn]] = {
    "cost_against_load": cost_against_load,
    "throughput_against_interactivity": pareto,
    "step_breakdown": step_breakdown,
    "cost_against_experts": cost_against_experts,
    "roofline": roofline,
    "latency_distribution": latency_distribution,
}


def draw_all(result: ScenarioResult, folder: Path,
             progress: Callable[[str], None] | None = None) -> Drawn:
    """Draw every figure that the result has data for; returns the files."""
    from costsim.reports.figures_studies import draw_studies

    written: Drawn = draw_studies(result, folder)
    for name, draw in FIGURES.items():
        if progress:
            progress(name)
        written += draw(result, folder)
    return written
