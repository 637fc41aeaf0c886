"""``costsim validate FILE``: a user's own benchmark; and the refit of ``costsim calibrate``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from costsim.cli.options import (
    Command,
    PositiveNumber,
    change_option,
    complete_hardware,
    complete_model,
    emit,
    layout_from,
    layout_options,
    output_options,
)

if TYPE_CHECKING:
    from costsim.engine.deployment import Deployment
    from costsim.validation.benchmarks.run import Run

SUFFIXES = (".json", ".jsonl", ".csv", ".txt", ".log", ".out", ".md")
# What the tools call the engine they speak to, and the preset of that name.
_ENGINES = {"vllm": "vllm", "sglang": "sglang", "tensorrt": "trtllm", "trt": "trtllm"}
# Words in a served model's name that say the type of its weights.
_TYPES = {"fp8": "fp8", "nvfp4": "nvfp4", "fp4": "nvfp4", "awq": "int4",
          "gptq": "int4", "w4a16": "int4", "int4": "int4", "w8a8": "int8", "int8": "int8"}


def replica_option(command: Command) -> Command:
    """Add --replicas."""
    return click.option("--replicas", type=PositiveNumber(whole=True), default=1,
                        show_default=True, help="Copies of the layout that shared the load."
                        )(command)


@click.command("benchmark")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", required=True, shell_complete=complete_model,
              help="That was served: name, config.json or TOML.")
@click.option("--hardware", required=True, shell_complete=complete_hardware,
              help="That served it.")
@replica_option
@change_option
@layout_options
@output_options
def command(
    files: tuple[Path, ...], model: str, hardware: str, replicas: int, as_json: bool,
    output: Path | None, **options: Any,
) -> None:
    """Compare your own benchmark with the prediction, metric by metric, with intervals.

    FILES are results of vllm bench serve, sglang.bench_serving, AIPerf or GenAI-Perf, or guidellm,
    or logs with what the first two print. Each run is simulated with as many requests, sent the
    same way. The word 'benchmark' may be left out.

    Example: costsim validate mine.json --model llama-3.1-8b --hardware h100_sxm --tp 1
    """
    from costsim.reports.validation_benchmark import benchmark_table, draw_benchmark
    from costsim.validation.user_benchmark import compare_runs

    runs = read(files)
    _forget_default_engine(options)
    deployment = deployment_for(runs, model, hardware, options)
    data = compare_runs(runs, deployment, replicas).as_dict()
    emit(data, lambda: benchmark_table(data), as_json, output, "benchmark")
    if output is not None:
        paths = draw_benchmark(data, output)
        click.echo(f"figures: {', '.join(map(str, paths))}", err=as_json)


def _forget_default_engine(options: dict[str, Any]) -> None:
    """Set the engine to None where --engine was not given: the files may name theirs."""
    context = click.get_current_context()
    if context.get_parameter_source("engine") is ParameterSource.DEFAULT:
        options["engine"] = None


def read(files: Sequence[Path]) -> list[Run]:
    """Return the runs of files."""
    from costsim.validation.benchmarks.read import read_runs

    return read_runs(files)


def deployment_for(
    runs: Sequence[Run], model: str, hardware: str, options: dict[str, Any]
) -> Deployment:
    """Return what was measured.

    What is not given is what the files say: the engine they spoke to, ``tensor_parallel_size``,
    the data type in the served model's name. Else: vLLM, the fewest accelerators that hold the
    longest run, the checkpoint's own type. Limits that the engine sets by the accelerator's memory
    are set so.
    """
    from costsim.engine.hardware_limits import with_hardware_limits
    from costsim.engine.presets import load_settings
    from costsim.hardware.loader import load_hardware
    from costsim.planning.estimate import make_deployment
    from costsim.planning.precision import precision_from

    weights, kv = options.pop("precision"), options.pop("kv")
    precision = precision_from(model, weights or stated_type(runs), kv)
    engine = load_settings(options.pop("engine") or stated_engine(runs))
    machine = load_hardware(hardware)
    if options["tp"] is None:
        options["tp"] = _stated_tp(runs)
    changes = options.pop("changes", ())
    return make_deployment(
        model, machine, layout_from(options), precision=precision,
        engine=with_hardware_limits(engine, machine),
        context=max(run.isl + run.osl for run in runs), changes=changes)


def stated_engine(runs: Sequence[Run]) -> str:
    """Return the preset of the engine that the files name; vLLM where they name none or several."""
    named = {preset for run in runs for start, preset in _ENGINES.items()
             if run.engine.lower().startswith(start)}
    return named.pop() if len(named) == 1 else "vllm"


def stated_type(runs: Sequence[Run]) -> str | None:
    """Return the type of the weights that the served model's name ends in, such as fp8."""
    words = {word for run in runs for word in _TYPES
             if word in re.split(r"[^a-z0-9]+", f"{run.model} {_quantization(run)}".lower())}
    return _TYPES[words.pop()] if len(words) == 1 else None


def _quantization(run: Run) -> str:
    return str(run.metadata.get("quantization", ""))


def _stated_tp(runs: Sequence[Run]) -> int | None:
    keys = ("tensor_parallel_size", "tp", "tp_size")
    stated = {run.metadata.get(key, "") for run in runs for key in keys}
    numbers = {int(text) for text in stated if text.isdigit() and int(text) > 0}
    return numbers.pop() if len(numbers) == 1 else None


def is_benchmark(sources: Sequence[str]) -> bool:
    """Return whether --from names results of a benchmark and not a table of kernels."""
    return bool(sources) and all(_is_result(Path(s)) for s in sources)


def _is_result(path: Path) -> bool:
    """Return whether a file is a benchmark's result by its name; of a CSV by its first line."""
    if path.suffix != ".csv":
        return path.suffix in SUFFIXES
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return "request_throughput" in file.readline()
    except OSError:
        return False


def refit_files(
    sources: Sequence[str], model: str | None, hardware: str | None, name: str,
    replicas: int, options: dict[str, Any], as_json: bool, output: Path | None,
) -> None:
    """Fit the engine's overheads to benchmark results, save and show before and after."""
    from costsim.errors import InputError
    from costsim.reports.validation_benchmark import refit_table
    from costsim.validation.refit import preset_path, refit, save

    for given, flag in ((model, "--model"), (hardware, "--hardware")):
        if not given:
            raise InputError(f"{sources[0]}: a benchmark needs {flag}: what was measured")
    files = [Path(s) for s in sources]
    runs = read(files)
    _forget_default_engine(options)
    deployment = deployment_for(runs, str(model), str(hardware), options)
    name = name or f"{deployment.settings.name}-{files[0].stem}"
    preset_path(name, deployment.settings.name)
    found = save(refit(runs, deployment, name, replicas), ", ".join(f.name for f in files))
    data = found.as_dict()
    emit(data, lambda: refit_table(data), as_json, output, "refit")
    if not as_json:
        click.echo(f"written: {found.file}")
