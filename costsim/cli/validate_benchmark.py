"""``costsim validate FILE``: a user's own benchmark; and the refit of ``costsim calibrate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from costsim.cli.options import (
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

SUFFIXES = (".json", ".jsonl")


@click.command("benchmark")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", required=True, shell_complete=complete_model,
              help="That was served: name, config.json or TOML.")
@click.option("--hardware", required=True, shell_complete=complete_hardware,
              help="That served it.")
@layout_options
@output_options
def command(
    files: tuple[Path, ...], model: str, hardware: str, as_json: bool, output: Path | None,
    **options: Any,
) -> None:
    """Compare your own benchmark with the prediction, metric by metric, with intervals.

    FILES are results of vllm bench serve, sglang.bench_serving, AIPerf or GenAI-Perf, or guidellm.
    The word 'benchmark' may be left out.

    Example: costsim validate mine.json --model llama-3.1-8b --hardware h100_sxm --tp 1
    """
    from costsim.reports.validation_benchmark import benchmark_table, draw_benchmark
    from costsim.validation.user_benchmark import compare_runs

    runs = read(files)
    data = compare_runs(runs, deployment_for(runs, model, hardware, options)).as_dict()
    emit(data, lambda: benchmark_table(data), as_json, output, "benchmark")
    if output is not None:
        paths = draw_benchmark(data, output)
        click.echo(f"figures: {', '.join(map(str, paths))}", err=as_json)


def read(files: Sequence[Path]) -> list[Run]:
    """Return the runs of files."""
    from costsim.validation.benchmarks.read import read_runs

    return read_runs(files)


def deployment_for(
    runs: Sequence[Run], model: str, hardware: str, options: dict[str, Any]
) -> Deployment:
    """Return what was measured.

    Without --tp it is what the files' metadata say (``tensor_parallel_size``), else the fewest
    accelerators that hold the longest run.
    """
    from costsim.planning.estimate import make_deployment
    from costsim.planning.precision import precision_from

    precision = precision_from(model, options.pop("precision"), options.pop("kv"))
    engine = options.pop("engine")
    if options["tp"] is None:
        options["tp"] = _stated_tp(runs)
    return make_deployment(
        model, hardware, layout_from(options), precision=precision, engine=engine,
        context=max(run.isl + run.osl for run in runs))


def _stated_tp(runs: Sequence[Run]) -> int | None:
    stated = {run.metadata.get(key, "") for run in runs for key in ("tensor_parallel_size", "tp")}
    numbers = {int(text) for text in stated if text.isdigit() and int(text) > 0}
    return numbers.pop() if len(numbers) == 1 else None


def is_benchmark(sources: Sequence[str]) -> bool:
    """Return whether --from names results of a benchmark and not a table of kernels."""
    return bool(sources) and all(Path(s).suffix in SUFFIXES for s in sources)


def refit_files(
    sources: Sequence[str], model: str | None, hardware: str | None, name: str,
    options: dict[str, Any], as_json: bool, output: Path | None,
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
    deployment = deployment_for(runs, str(model), str(hardware), options)
    name = name or f"{deployment.settings.name}-{files[0].stem}"
    preset_path(name, deployment.settings.name)
    found = save(refit(runs, deployment, name), ", ".join(f.name for f in files))
    data = found.as_dict()
    emit(data, lambda: refit_table(data), as_json, output, "refit")
    if not as_json:
        click.echo(f"written: {found.file}")
