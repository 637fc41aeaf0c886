"""Side by side with AIConfigurator: the same search by both, one line a case.

    pip install "costsim[silicon]"
    python benchmarks/peers/aiconfigurator.py
    python benchmarks/peers/aiconfigurator.py --case qwen3-32b --json peers.json

AIConfigurator (package aiconfigurator-core, Apache-2.0, NVIDIA) interpolates measured kernel
tables and sweeps batch and context tokens for one layout at a time
(``find_best_agg_result_under_constraints``); the loop over layouts around it is written here as
its own command line does it. Ours prices every layout, precision and batch in one call. Both use
vLLM's kernel tables, the same prompts and targets, and one weight and cache type a case.

Where the measured serving points of that package hold the same model, accelerator and lengths
(rows for fitting only: even checksum), ``judge`` says how far each is from the measurements.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from costsim.engine.layout import Layout
from costsim.engine.precision import Precision
from costsim.engine.presets import load_settings
from costsim.engine.search import Found, search
from costsim.errors import InputError
from costsim.hardware.loader import load_hardware
from costsim.models.architecture import is_moe
from costsim.models.loader import load_model

ENGINE = "vllm"


@dataclass(frozen=True)
class Case:
    """One search: model, accelerators, lengths, targets, data type of weights."""

    model: str
    theirs: str
    system: str
    hardware: str
    accelerators: int
    isl: int
    osl: int
    ttft_s: float
    tpot_s: float
    weights: str
    kv: str = "bf16"


LLAMA8, LLAMA70, LLAMA405 = (f"meta-llama/Meta-Llama-3.1-{n}B" for n in (8, 70, 405))
CASES = (
    Case("llama-3.1-8b", LLAMA8, "h100_sxm", "h100_sxm", 2, 1024, 1024, 0.5, 0.02, "bf16"),
    Case("llama-3.1-8b", LLAMA8, "l40s", "l40s", 2, 1024, 256, 1.0, 0.05, "bf16"),
    Case("llama-3.1-70b", LLAMA70, "h100_sxm", "h100_sxm", 8, 1024, 1024, 1.0, 0.03, "fp8", "fp8"),
    Case("llama-3.1-70b", LLAMA70, "h200_sxm", "h200_sxm", 8, 4000, 500, 1.0, 0.04, "bf16"),
    Case("llama-3.1-70b", LLAMA70, "b200_sxm", "b200_sxm", 8, 8192, 1024, 2.0, 0.03, "nvfp4",
         "fp8"),
    Case("llama-3.1-405b", LLAMA405, "h200_sxm", "h200_sxm", 8, 1024, 1024, 2.0, 0.06, "fp8",
         "fp8"),
    Case("qwen3-32b", "Qwen/Qwen3-32B", "h100_sxm", "h100_sxm", 8, 4000, 1000, 1.0, 0.03, "fp8",
         "fp8"),
    Case("qwen3-32b", "Qwen/Qwen3-32B", "b200_sxm", "b200_sxm", 4, 1024, 8192, 1.0, 0.02, "fp8",
         "fp8"),
    Case("qwen3-30b-a3b", "Qwen/Qwen3-30B-A3B", "h100_sxm", "h100_sxm", 4, 4000, 500, 1.0, 0.03,
         "fp8_block"),
    Case("qwen3-235b-a22b", "Qwen/Qwen3-235B-A22B", "h200_sxm", "h200_sxm", 8, 4000, 1000, 2.0,
         0.04, "fp8_block"),
    Case("mixtral-8x7b", "mistralai/Mixtral-8x7B-v0.1", "h100_sxm", "h100_sxm", 4, 1024, 512, 1.0,
         0.03, "bf16"),
    Case("deepseek-v3", "deepseek-ai/DeepSeek-V3", "h200_sxm", "h200_sxm", 8, 4000, 1000, 3.0,
         0.06, "fp8_block"),
    Case("deepseek-v3", "deepseek-ai/DeepSeek-V3", "b200_sxm", "b200_sxm", 8, 1024, 1024, 2.0,
         0.05, "fp8_block"),
    Case("gpt-oss-120b", "openai/gpt-oss-120b", "b200_sxm", "b200_sxm", 8, 1024, 1024, 1.0, 0.02,
         "mxfp4"),
)
GEMM = {"bf16": "bfloat16", "fp8": "fp8", "fp8_block": "fp8_block", "nvfp4": "nvfp4"}
MOE = {"bf16": "bfloat16", "fp8": "fp8", "fp8_block": "fp8_block", "nvfp4": "nvfp4",
       "mxfp4": "w4a16_mxfp4"}


def ours(case: Case) -> dict[str, Any]:
    """Return our best point, how long the search took and how many points it had."""
    model, hardware = load_model(case.model), load_hardware(case.hardware)
    own = Precision.of_checkpoint(model.quantisation)
    low = "fp8" if case.weights == "fp8_block" else case.weights
    precision = own if own.experts == case.weights else Precision.uniform(case.weights, low)
    precision = Precision(precision.attention, precision.ffn, precision.experts, precision.head,
                          precision.activation, case.kv)
    arguments: dict[str, Any] = {
        "max_accelerators": case.accelerators, "ttft_s": case.ttft_s, "tpot_s": case.tpot_s,
        "precisions": [precision], "settings": load_settings(ENGINE)}
    search(model, hardware, case.isl, case.osl, **arguments)  # reads files; not timed, as theirs
    found, seconds = timed(lambda: search(model, hardware, case.isl, case.osl, **arguments), 5)
    summary = _summary(found, seconds)
    every, seconds = timed(lambda: search(model, hardware, case.isl, case.osl,
                                          batches=range(1, 1025), **arguments), 3)
    return summary | {"every_batch_s": seconds, "every_batch_points": len(every)}


def timed(work: Callable[[], Any], times: int) -> tuple[Any, float]:
    """Return what some work gives, and the shortest time it took.

    What was left over before is collected first: with both packages' tables in memory a collection
    in the middle of a search takes ten times as long as the search.
    """
    shortest = float("inf")
    for _ in range(times):
        gc.collect()
        started = time.perf_counter()
        result = work()
        shortest = min(shortest, time.perf_counter() - started)
    return result, shortest


def _summary(found: Found, seconds: float) -> dict[str, Any]:
    result: dict[str, Any] = {"seconds": seconds, "points": len(found)}
    try:
        best = found.best()
    except InputError as error:
        return {**result, "error": str(error)}
    deployment = found.at(best)
    return {**result, "layout": str(deployment.layout), "batch": int(found.batch[best]),
            "per_accelerator": float(found.output_tokens_per_s_per_accelerator[best]),
            "ttft_s": float(found.ttft_s[best]), "tpot_s": float(found.tpot_s[best])}


def _config_of(name: str) -> str:
    """Return a folder with the package's own config where it does not know the name by itself."""
    import shutil
    import tempfile
    from pathlib import Path

    import aiconfigurator_core

    configs = Path(aiconfigurator_core.__file__).parent / "model_configs"
    known = configs / f"{name.replace('/', '--')}_config.json"
    if not name.startswith("mistralai/") or not known.is_file():
        return name
    folder = Path(tempfile.gettempdir()) / "costsim-peers" / name.replace("/", "--")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(known, folder / "config.json")
    return str(folder)


def layouts(case: Case, sparse: bool) -> list[tuple[int, int, int, int]]:
    """Return (tp, attention dp, moe tp, moe ep) as AIConfigurator's own sweep combines them."""
    sizes = [n for n in (1, 2, 4, 8, 16) if n <= case.accelerators]
    if not sparse:
        return [(n, 1, 1, 1) for n in sizes]
    found = []
    for n in sizes:
        for tp in [t for t in sizes if t <= n]:
            found += [(tp, n // tp, n // ep, ep) for ep in sizes if ep <= n]
    return found


class Theirs:
    """AIConfigurator's tables and backend for one system, loaded once."""

    def __init__(self, system: str) -> None:
        from aiconfigurator_core.sdk.backends.factory import get_backend
        from aiconfigurator_core.sdk.perf_database import (
            get_database_view,
            get_latest_database_version,
        )

        self.version = get_latest_database_version(system, ENGINE)
        self.database = get_database_view(system, ENGINE, self.version)
        self.points, self._new = 0, get_backend

    def backend(self) -> Any:
        """Return a backend that counts its points; it caches without the layout, so one each."""
        backend = self._new(ENGINE)
        run = backend.run_agg

        def counted(*given: Any, **named: Any) -> Any:
            self.points += 1
            return run(*given, **named)

        backend.run_agg = counted
        return backend

    def search(self, case: Case, sparse: bool) -> dict[str, Any]:
        """Return their best point over all layouts, with number of points and two times.

        ``first_s`` is that of the first search, which also makes what a table is interpolated
        with; ``seconds`` that of a search when this is there, as ours.
        """
        _, first = timed(lambda: self._search(case, sparse), 1)
        found, again = timed(lambda: self._search(case, sparse), 2)
        return found | {"first_s": first, "seconds": again}

    def _search(self, case: Case, sparse: bool) -> dict[str, Any]:
        best, errors, before = None, [], self.points
        for layout in layouts(case, sparse):
            try:
                row = self._best_of(case, layout)
            except Exception as error:
                # Their tables lack some layouts; which ones is part of the result.
                errors.append(f"{layout}: {type(error).__name__}")
                continue
            if row and (best is None or row["tokens/s/gpu"] > best["tokens/s/gpu"]):
                best = {**row, "layout": layout}
        result: dict[str, Any] = {"points": self.points - before, "without_tables": len(errors)}
        if best is None:
            return {**result, "error": "; ".join(errors[:2]) or "no point meets the targets"}
        tp, dp, _, ep = best["layout"]
        return {**result, "layout": str(Layout(tp=tp, ep=ep, dp=dp)),
                "batch": int(best["concurrency"]), "per_accelerator": float(best["tokens/s/gpu"]),
                "ttft_s": best["ttft"] / 1e3, "tpot_s": best["tpot"] / 1e3}

    def tpot_at(
        self, case: Case, layout: Layout, batch: int, isl: int, osl: int
    ) -> float | None:
        """Return their TPOT [s] at one point, one prompt per step; None without tables."""
        from aiconfigurator_core.sdk.config import RuntimeConfig

        stage = layout.tp * layout.dp
        try:
            model = self._model(case, (layout.tp, layout.dp, stage // layout.ep, layout.ep))
            summary = self.backend().run_agg(
                model=model, database=self.database, ctx_tokens=isl,
                runtime_config=RuntimeConfig(batch_size=max(batch // layout.dp, 1), isl=isl,
                                             osl=osl))
        except Exception:
            # Lacking tables raise many kinds of errors there; such points are not compared.
            return None
        result = summary.get_result_dict()
        return result["tpot"] / 1e3 if result and result["tpot"] > 0 else None

    def _model(self, case: Case, layout: tuple[int, int, int, int]) -> Any:
        from aiconfigurator_core.sdk.config_builders import build_model_config
        from aiconfigurator_core.sdk.models import get_model

        tp, dp, moe_tp, moe_ep = layout
        config = build_model_config(
            tp, 1, dp, moe_tp, moe_ep, gemm_quant_mode=GEMM.get(case.weights, "bfloat16"),
            kvcache_quant_mode="fp8" if case.kv == "fp8" else "bfloat16",
            moe_quant_mode=MOE[case.weights])
        return get_model(_config_of(case.theirs), config, ENGINE)

    def _best_of(self, case: Case, layout: tuple[int, int, int, int]) -> dict[str, Any] | None:
        from aiconfigurator_core.sdk.config import RuntimeConfig

        model = self._model(case, layout)
        wanted = RuntimeConfig(isl=case.isl, osl=case.osl, ttft=case.ttft_s * 1e3,
                               tpot=case.tpot_s * 1e3)
        summary = self.backend().find_best_agg_result_under_constraints(
            model, self.database, wanted, max_batch_size=1024)
        frame = summary.get_summary_df()
        return dict(frame.iloc[0]) if len(frame) else None


def judge(case: Case, loaded: Theirs) -> list[tuple[float, float]]:
    """Return log(predicted / measured) TPOT of ours and theirs on the measured points for fitting.

    Points of vLLM with the case's model, accelerator and weights, at any lengths and layout.
    """
    from pathlib import Path

    import aiconfigurator_core

    from costsim.engine.deployment import deploy
    from costsim.engine.steady_state import operating_point
    from costsim.validation.silicon import model_of, precision_of
    from costsim.validation.silicon_points import read_points

    table = Path(aiconfigurator_core.__file__).parent / "systems" / "silicon_sample.csv"
    found = []
    for row in read_points(table)[0]:
        if not (row.fit and row.layout is not None and row.hardware == case.hardware
                and row.engine == ENGINE and row.weights == case.weights):
            continue
        try:
            model = model_of(row)
        except InputError:
            continue
        if model.name != case.model:
            continue
        point = operating_point(
            deploy(model, load_hardware(case.hardware), row.layout, precision_of(row),
                   load_settings(row.engine)), row.concurrency, row.isl, row.osl)
        theirs = loaded.tpot_at(case, row.layout, row.concurrency, row.isl, row.osl)
        if theirs is not None:
            found.append((float(np.log(point.tpot_s / row.tpot_s)),
                          float(np.log(theirs / row.tpot_s))))
    return found


def _line(name: str, result: dict[str, Any]) -> str:
    work = f"{result['points']:6d} points {result['seconds']:7.3f} s"
    if "error" in result:
        return f"  {name:14s} {work}  {result['error'][:90]}"
    return (f"  {name:14s} {work}  {result['per_accelerator']:7.0f} tok/s/acc  "
            f"TTFT {1e3 * result['ttft_s']:6.0f} ms  TPOT {1e3 * result['tpot_s']:5.1f} ms  "
            f"{result['layout']} batch {result['batch']}")


def compare(case: Case, loaded: dict[str, Theirs]) -> dict[str, Any]:
    """Run one case by both and print it."""
    print(f"{case.model} {case.weights} on up to {case.accelerators} x {case.hardware}, "
          f"{case.isl}/{case.osl}, TTFT {1e3 * case.ttft_s:.0f} ms TPOT {1e3 * case.tpot_s:.0f} ms")
    if case.system not in loaded:
        loaded[case.system] = Theirs(case.system)
    model = load_model(case.model)
    sparse = is_moe(model)
    mine, other = ours(case), loaded[case.system].search(case, sparse)
    print(_line("costsim", mine))
    print(_line("aiconfigurator", other))
    measured = np.array(judge(case, loaded[case.system])).reshape(-1, 2)
    if len(measured):
        bias, error = np.median(measured, axis=0), np.median(np.abs(measured), axis=0)
        print(f"  {len(measured)} measured vLLM points (for fitting), log TPOT: ours "
              f"{bias[0]:+.2f}, median error {error[0]:.2f}; theirs {bias[1]:+.2f}, {error[1]:.2f}")
    each = mine["every_batch_s"] / mine["every_batch_points"]
    speed = other["seconds"] / max(other["points"], 1) / each
    print(f"  every batch to 1024: {mine['every_batch_points']} points in "
          f"{mine['every_batch_s']:.3f} s; a point takes theirs {speed:.0f} x as long")
    return {"case": vars(case), "costsim": mine, "aiconfigurator": other,
            "measured_log_errors": measured.tolist(), "time_per_point_ratio": speed}


HEAD = """# Side by side with AIConfigurator

Written by `python benchmarks/peers/aiconfigurator.py --markdown docs/peers-aiconfigurator.md`;
aiconfigurator-core 0.12.0, vLLM's kernel tables, best aggregated point that meets the targets.
Throughput in output tokens/s per accelerator; *points* searched and *time*, files read before:
theirs of a search again and of the first with a table. *Faster*: how many times longer theirs takes
than ours, again and the first time. *Every batch* is our search over all batches to 1024, and how
many times longer one point takes theirs, again. *Judge* is the median of log(predicted / measured)
TPOT over the measured vLLM points that may be fitted on.

"""
COLUMNS = ("case", "targets TTFT, TPOT", "ours", "TTFT, TPOT", "layout, batch", "theirs",
           "TTFT, TPOT", "layout, batch", "ours / theirs", "points, time ours",
           "points, time theirs", "faster: again, first", "every batch", "judge: ours, theirs")


def markdown(results: list[dict[str, Any]]) -> str:
    """Return the results as a table."""
    top = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    return HEAD + "\n".join(top + [_row(each) for each in results]) + "\n"


def _row(result: dict[str, Any]) -> str:
    case, mine, other = result["case"], result["costsim"], result["aiconfigurator"]
    both = "error" not in mine and "error" not in other
    ratio = f"{mine['per_accelerator'] / other['per_accelerator']:.2f}" if both else "–"
    errors = np.array(result["measured_log_errors"]).reshape(-1, 2)
    judged = "–"
    if len(errors):
        ours_bias, their_bias = np.median(errors, axis=0)
        judged = f"{ours_bias:+.2f}, {their_bias:+.2f} ({len(errors)})"
    cells = [
        f"{case['model']} {case['weights']}, ≤ {case['accelerators']} × {case['hardware']}, "
        f"{case['isl']}/{case['osl']}",
        f"{case['ttft_s']:g} s, {1e3 * case['tpot_s']:g} ms",
        *_cells(mine), *_cells(other), ratio,
        f"{mine['points']}, {1e3 * mine['seconds']:.1f} ms",
        f"{other['points']}, {1e3 * other['seconds']:.0f} ms (first {1e3 * other['first_s']:.0f})",
        f"{other['seconds'] / mine['seconds']:.0f} ×, {other['first_s'] / mine['seconds']:.0f} ×",
        f"{mine['every_batch_points']} in {mine['every_batch_s']:.2f} s, "
        f"{result['time_per_point_ratio']:.0f} ×", judged,
    ]
    return "| " + " | ".join(cells) + " |"


def _cells(result: dict[str, Any]) -> list[str]:
    if "error" in result:
        return [result["error"][:60], "–", "–"]
    times = f"{1e3 * result['ttft_s']:.0f}, {1e3 * result['tpot_s']:.1f} ms"
    return [f"{result['per_accelerator']:.0f}", times, f"{result['layout']}, {result['batch']}"]


def main() -> None:
    """Run all cases, or those of one model."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--case", default="", help="only cases whose model has this in its name")
    options.add_argument("--json", default="", help="write the results to this file")
    options.add_argument("--markdown", default="", help="write a table of the results")
    given = options.parse_args()
    logging.disable(logging.WARNING)
    loaded: dict[str, Theirs] = {}
    results = [compare(case, loaded) for case in CASES if given.case in case.model]
    if given.json:
        from costsim.files import write_atomically

        write_atomically(given.json, json.dumps(results, indent=1))
    if given.markdown:
        from costsim.files import write_atomically

        write_atomically(given.markdown, markdown(results))


if __name__ == "__main__":
    main()
