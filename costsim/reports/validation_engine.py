"""Tables and figure of real models timed on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group

from costsim.reports.style import colours, figure, save
from costsim.reports.tables import plain_table
from costsim.reports.validation import percent
from costsim.units import format_quantity

CLASSES = {"dense": "all dense", "moe": "all mixtures of experts"}


def engine_table(data: Mapping[str, Any]) -> Group:
    """Return the terminal's tables of real models timed here."""
    about, ratio = data["about"], data["ratio"]
    versions = about.get("versions", {})
    head = (f"{about.get('processor', '')}, {about.get('threads')} thread(s), "
            f"{about.get('dtype')}; torch {versions.get('torch')}, transformers "
            f"{versions.get('transformers')}; {data['seconds']:.0f} s")
    layer = "; ".join(f"{format_quantity(at['seconds'], 'time')} at "
                      f"{format_quantity(at['bytes'], 'bytes')}" for at in data["host_layer"])
    host = (f"host, measured on small models: {format_quantity(data['host_step_s'], 'time')} a "
            f"step; a layer, by the bytes moved in it: {layer}")
    scatter = (f"scatter between rounds (slowest over fastest, median): kernels "
               f"{percent(data['kernel_spread'])}, steps {percent(data['step_spread'])}")
    rows = [[CLASSES.get(s["class"], s["class"]), s["phase"], str(s["points"]),
             percent(s["median"]), percent(s["aim"]), percent(s["p90"]), percent(s["bias"], True),
             percent(s["inside"])] for s in data["summaries"]]
    columns = ("model", "phase", "steps", "median", "aim", "p90", "bias", "in 90 %")
    parts: list[Any] = [head, data["noise_sentence"], scatter, host,
                        plain_table("Steps of real models: error of the prediction", columns,
                                    rows, left=2)]
    if ratio["points"]:
        parts.append(_ratios(data))
    return Group(*parts, _worst(data))


def _ratios(data: Mapping[str, Any]) -> Any:
    rows = [[f"{r['moe']} / {r['dense']}", r["step"], f"{r['measured']:.2f}",
             f"{r['predicted']:.2f}", percent(np.expm1(r["error"]), True)]
            for r in data["ratios"]]
    ratio = data["ratio"]
    rows.append([f"median error (aim {percent(ratio['aim'])})", "", "", "",
                 percent(ratio["median"])])
    return plain_table("Time of a mixture of experts over that of its dense pair",
                       ("pair", "step", "measured", "predicted", "error"), rows, left=2)


def _worst(data: Mapping[str, Any]) -> Any:
    rows = []
    for s in sorted(data["steps"], key=lambda s: -abs(s["error"]))[:10]:
        largest = sorted(s["by_operator"].items(), key=lambda item: -item[1])[:3]
        parts = ", ".join(f"{name} {percent(part / s['predicted_s'])}" for name, part in largest)
        rows.append([s["model"], f"{s['phase']} {s['requests']}x{s['tokens']}",
                     format_quantity(s["measured_s"], "time"),
                     format_quantity(s["predicted_s"], "time"),
                     percent(np.expm1(s["error"]), True), percent(s["spread"]), parts])
    columns = ("model", "step", "measured", "predicted", "error", "spread", "mostly")
    return plain_table("The ten steps that are furthest off", columns, rows, left=2)


def draw_engine(data: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw predicted against measured time of every step, and measured against predicted ratios."""
    about = data["about"]
    foot = (f"costsim validate engine; {about.get('processor', '')}, {about.get('threads')} "
            f"thread(s), {about.get('dtype')}; kernels measured on their own")
    panels = 2 if data["ratios"] else 1
    with figure("Steps of real models, timed here", foot, columns=panels, height=5.2) as (
            drawn, axes):
        first = axes[0] if panels == 2 else axes
        _steps(first, data)
        if panels == 2:
            _ratio_panel(axes[1], data)
        return save(drawn, folder, "engine")


def _steps(axis: Any, data: Mapping[str, Any]) -> None:
    names = list(dict.fromkeys(s["model"] for s in data["steps"]))
    tint = colours(names)
    for name in names:
        for phase, marker in (("decode", "o"), ("prefill", "^")):
            own = [s for s in data["steps"] if (s["model"], s["phase"]) == (name, phase)]
            axis.scatter([1e3 * s["measured_s"] for s in own],
                         [1e3 * s["predicted_s"] for s in own], s=22, marker=marker,
                         color=tint[name], alpha=0.8, label=name if phase == "decode" else None)
    line = np.array(axis.get_xlim())
    line[0] = max(line[0], 1e-3 + min(1e3 * s["measured_s"] for s in data["steps"]) * 0.8)
    axis.fill_between(line, line / 1.12, line * 1.12, color="#999999", alpha=0.2, lw=0,
                      label="±12 %")
    axis.plot(line, line, color="#333333", lw=1)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("measured step [ms]  (● decode, ▲ prefill)")
    axis.set_ylabel("predicted step [ms]")
    axis.legend(fontsize=8)


def _ratio_panel(axis: Any, data: Mapping[str, Any]) -> None:
    pairs = list(dict.fromkeys(r["moe"] for r in data["ratios"]))
    tint = colours(pairs)
    for name in pairs:
        own = [r for r in data["ratios"] if r["moe"] == name]
        axis.scatter([r["measured"] for r in own], [r["predicted"] for r in own], s=26,
                     color=tint[name], alpha=0.8, label=f"{name} / {own[0]['dense']}")
    line = np.array(axis.get_xlim())
    axis.fill_between(line, line / 1.1, line * 1.1, color="#999999", alpha=0.2, lw=0,
                      label="±10 %")
    axis.plot(line, line, color="#333333", lw=1)
    axis.set_xlabel("measured MoE time over dense")
    axis.set_ylabel("predicted MoE time over dense")
    axis.legend(fontsize=8)
