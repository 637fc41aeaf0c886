"""AIConfigurator and costsim on the same measured serving points, never fitted on by either of us.

    pip install "costsim[silicon]"
    python benchmarks/peers/aiconfigurator_silicon.py
    python benchmarks/peers/aiconfigurator_silicon.py --write costsim/validation/peers.toml

The package aiconfigurator-core (Apache-2.0, NVIDIA) carries measured TTFT and TPOT of vLLM, SGLang
and TensorRT-LLM (``systems/silicon_sample.csv``) and the estimator itself. A random sample of the
aggregated rows that costsim never fits on is given to both: AIConfigurator with its newest kernel
tables of that engine and system, the row's layout, data types and concurrency, and one prompt per
mixed step (its own default); costsim with its presets. Rows that one of them cannot predict count
against its share; the errors are printed over what each predicts, and over what both do.
"""

from __future__ import annotations

import argparse
import csv
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from costsim.validation.silicon import predict
from costsim.validation.silicon_comparison import sample_errors, sample_ids
from costsim.validation.silicon_points import ServingPoint, read_points, sample_path

QUANT = {"bf16": "bfloat16", "fp8": "fp8", "fp8_block": "fp8_block", "nvfp4": "nvfp4",
         "int4": "int4_wo"}
# Names of the file whose configuration the package carries under another name.
MODELS = {"meta-llama/Llama-3.1-8B-Instruct": "meta-llama/Meta-Llama-3.1-8B",
          "nvidia/Llama-3.1-8B-Instruct-FP8": "meta-llama/Meta-Llama-3.1-8B",
          "meta-llama/Llama-3.1-70B": "meta-llama/Meta-Llama-3.1-70B",
          "zhipuai/GLM-5": "nvidia/GLM-5-NVFP4", "nvidia/Qwen3-32B-NVFP4": "Qwen/Qwen3-32B"}
# Data types (linear layers, experts) tried after those of the row, where it has no tables for them:
# block-scaled fp8 is recorded as fp8, gpt-oss's four bits as nvfp4.
OTHERS = {"fp8": (("fp8_block", "fp8_block"), ("bfloat16", "fp8_block"), ("bfloat16", "fp8")),
          "nvfp4": (("bfloat16", "nvfp4"), ("fp8_block", "nvfp4"), ("bfloat16", "w4a8_mxfp4_mxfp8"),
                    ("bfloat16", "w4a16_mxfp4")),
          "int4": (("bfloat16", "int4_wo"),)}
SYSTEMS = {"a100_sxm_80gb": "a100_sxm", "gb200_nvl72": "gb200", "gb300_nvl72": "gb300"}
SOURCE = "python benchmarks/peers/aiconfigurator_silicon.py (aiconfigurator-core 0.12.0)"


@cache
def database(system: str, engine: str) -> Any:
    """Return AIConfigurator's newest kernel tables of a system and engine."""
    from aiconfigurator_core.sdk.perf_database import (
        get_database_view,
        get_latest_database_version,
    )

    version = get_latest_database_version(system, engine)
    return get_database_view(system, engine, version)


def theirs(point: ServingPoint, columns: dict[str, str]) -> tuple[float, float] | str:
    """Return AIConfigurator's TTFT and TPOT [s] of a row, or the kind of its first error."""
    own = (columns["gemm_quant_mode"] or QUANT[point.weights],
           columns["moe_quant_mode"] or QUANT[point.weights])
    if point.model == "openai/gpt-oss-120b":
        types = OTHERS["nvfp4"][2:]
    else:
        types = (own, *OTHERS.get(point.weights, ()))
    found = [_estimate(point, MODELS.get(columns["model_path"], columns["model_path"]), *types[0])]
    for linear, experts in types[1:]:
        if not isinstance(found[-1], str):
            break
        found.append(_estimate(point, MODELS.get(columns["model_path"], columns["model_path"]),
                               linear, experts))
    return found[0] if isinstance(found[-1], str) else found[-1]


def _estimate(
    point: ServingPoint, name: str, linear: str, experts: str
) -> tuple[float, float] | str:
    from aiconfigurator_core.sdk.backends.factory import get_backend
    from aiconfigurator_core.sdk.config import RuntimeConfig
    from aiconfigurator_core.sdk.config_builders import build_model_config
    from aiconfigurator_core.sdk.models import get_model

    layout = point.layout
    assert layout is not None
    system = SYSTEMS.get(point.hardware, point.hardware)
    try:
        config = build_model_config(
            int(layout.tp), int(layout.pp), int(layout.dp),
            int(layout.tp * layout.dp // layout.ep), int(layout.ep),
            gemm_quant_mode=linear, moe_quant_mode=experts,
            kvcache_quant_mode="fp8" if point.engine == "trtllm" else "bfloat16")
        model = get_model(name, config, point.engine)
        summary = get_backend(point.engine).run_agg(
            model=model, database=database(system, point.engine), ctx_tokens=point.isl,
            runtime_config=RuntimeConfig(
                batch_size=max(round(point.concurrency / layout.dp), 1), isl=point.isl,
                osl=point.osl))
    except Exception as error:
        # Lacking tables, layouts and models raise many kinds of errors there: all are misses.
        return type(error).__name__
    found = summary.get_result_dict()
    if not found or not found["tpot"] > 0:
        return "no result (out of memory)"
    return found["ttft"] / 1e3, found["tpot"] / 1e3


def raw_columns() -> dict[str, dict[str, str]]:
    """Return the rows of the file as they stand, by id."""
    with sample_path().open(newline="", encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def run(ids: list[str]) -> tuple[dict[str, tuple[float, float]], dict[str, str]]:
    """Return AIConfigurator's TTFT and TPOT [s] by row, and its errors by row."""
    columns = raw_columns()
    readable = {p.id: p for p in read_points(sample_path())[0]}
    found: dict[str, tuple[float, float]] = {}
    missed: dict[str, str] = {}
    for row in ids:
        point = readable.get(row)
        result = ("no single layout" if point is None or point.layout is None
                  else theirs(point, columns[row]))
        if isinstance(result, str):
            missed[row] = result
        else:
            found[row] = result
    return found, missed


def toml(figures: Mapping[str, float], missed: Sequence[str]) -> str:
    """Return the contents of ``costsim/validation/peers.toml``."""
    rows = [f'[[peers]]\ncomparison = "silicon"\nprogram = "AIConfigurator 0.12.0"\n'
            f'figure = "{what}"\nvalue = "{100 * value:.1f} %"\nsource = "{SOURCE}"\n'
            for what, value in figures.items()]
    names = "".join(f'    "{row}",\n' for row in missed)
    return (f"# What other programs reach on the figures of our comparisons; written by\n"
            f"# {SOURCE}\n# --write costsim/validation/peers.toml\n\n"
            f"# Rows of its sample that AIConfigurator cannot predict.\n"
            f"aiconfigurator_misses = [\n{names}]\n\n" + "\n".join(rows))


def main() -> None:
    """Print the figures, and write AIConfigurator's where asked."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--write", default="", help="write AIConfigurator's figures to this file")
    given = options.parse_args()
    logging.disable(logging.WARNING)
    ids = sample_ids()
    started = time.perf_counter()
    other, missed = run(ids)
    their_s, started = time.perf_counter() - started, time.perf_counter()
    points = {p.id: p for p in read_points(sample_path())[0] if p.id in set(ids)}
    mine = {q.point.id: (q.ttft_s, q.tpot_s) for q in predict(list(points.values()))[0]}
    own_s = time.perf_counter() - started
    both = [row for row in ids if row in mine and row in other]
    print(f"{len(ids)} rows; AIConfigurator {their_s:.1f} s, costsim {own_s:.2f} s; its misses: "
          f"{dict(Counter(missed.values()))}")
    figures = {}
    for name, found in (("AIConfigurator", other), ("costsim", mine)):
        figures[name] = {"rows predicted": len(found) / len(ids),
                         **sample_errors(found, points, list(found))}
        shared = sample_errors(found, points, both)
        for label, values in ((name, figures[name]), (f"{name}, {len(both)} rows of both", shared)):
            print(f"{label:38s} " + "  ".join(f"{k} {100 * v:.1f} %" for k, v in values.items()))
    if given.write:
        from costsim.files import write_atomically

        write_atomically(given.write, toml(figures["AIConfigurator"], sorted(missed)))


if __name__ == "__main__":
    main()
