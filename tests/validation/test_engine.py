"""The comparison with real models: what it must see, and a small real run of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costsim.engine.precision import Precision
from costsim.engine.presets import load_settings
from costsim.engine.step import StepTime
from costsim.hardware.accelerator import Hardware
from costsim.kernels.calibration import Calibration
from costsim.kernels.efficiency import Efficiency, roofline_latency
from costsim.kernels.measure.cases import Grid, all_cases
from costsim.kernels.measure.journal import Journal
from costsim.kernels.measure.machine import Machine
from costsim.kernels.measure.noise import NoiseReport
from costsim.kernels.operators import completed, rate_key, work_on
from costsim.kernels.table import KernelTable, make_table
from costsim.validation.engine import LINEARS, compare, host_times, ratios
from costsim.validation.engine_models import Point, Spec, specs
from costsim.validation.engine_result import AIMS

MACHINE = Machine("test", 2, 1, 1, 3.2e7, 1.6e10, {}, {}, 1)
RATE, BANDWIDTH = 1e11, 2e10
GRID = Grid(
    rows=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512), bytes=tuple(4096 * 4**i for i in range(9)),
    weights=((64, 256), (256, 256), (1024, 1024), (4096, 1024), (1024, 4096), (9000, 900)),
    heads=((8, 4, 64), (16, 8, 64), (12, 4, 128)), batches=(1, 4, 16, 64),
    lengths=(32, 128, 512), contexts=(32, 256, 2048), tokens=(1, 4, 16, 64, 256, 1024),
    experts=((512, 512, 8, 2), (1024, 256, 32, 4)), flop=1e12, scores_bytes=1e12)
KINDS = ("", "rms_norm", "head_norm", "rope", "concatenate", "add", "swiglu", "embedding",
         "routing")


def _tables(slower: float = 1.0) -> list[KernelTable]:
    """Return tables of a machine that is exactly a roofline."""
    hardware, found = _roofline(), {}
    for case in all_cases(GRID, ("fp32",)):
        for kind in KINDS if case.operator == "elementwise" else ("",):
            shape = {**case.shape, **({"kind": kind} if case.operator == "elementwise" else {})}
            found.setdefault(case.operator, []).append(shape)
    tables = []
    for operator, rows in found.items():
        seconds = []
        for shape in rows:
            done = work_on(operator, completed(operator, shape), "cpu")
            e = Efficiency(1.0, 1.0, 1e3, 2e-6, 4.0)
            peak = hardware.peak(rate_key(operator, shape))
            seconds.append(float(roofline_latency(done, peak, BANDWIDTH, 1.0, e).seconds))
        columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        tables.append(make_table(operator, columns, slower * np.array(seconds)))
    return tables


def _roofline() -> Hardware:
    from costsim.kernels.local_profile import local_hardware

    one = make_table("gemm", {"m": [512.0], "n": 1e3, "k": 1e3, "dtype": "fp32",
                              "activation": "fp32"}, [2 * 512 * 1e6 / RATE])
    copy = make_table("elementwise", {"bytes": [1e9], "kind": ""}, [1e9 / BANDWIDTH])
    return local_hardware([one, copy], MACHINE, "here")


class _Found:
    """What a measurement would have found."""

    def __init__(self, steps: dict[tuple[str, str], float], slower: float = 1.0) -> None:
        self.tables, self.steps = _tables(slower), steps
        self.spreads = dict.fromkeys(steps, 0.0)
        self.kernel_spread, self.parameters = 0.0, {}
        self.noise, self.seconds = NoiseReport(), 1.0


def _real_steps(chosen: list[Spec], layer_s: float, step_s: float) -> dict[tuple[str, str], float]:
    """Return the steps of models on the roofline, with so much host time."""
    from costsim.engine.deployment import deploy
    from costsim.engine.step import step_time
    from costsim.kernels.fit import fit

    hardware = _roofline()
    calibration: Calibration = fit(_tables(), hardware, name="here", engine="")
    settings = replace(load_settings("transformers"), host_layer_curve=(), layer_gap_s=layer_s,
                       host_step_s=step_s)
    found = {}
    for spec in chosen:
        at = deploy(spec.model, hardware, None, Precision(*["fp32"] * 7), settings, calibration)
        for p in spec.points:
            call: dict[str, Any] = (
                {"prefill_requests": p.requests, "prefill_tokens": p.tokens}
                if p.phase == "prefill" else
                {"decode_requests": p.requests, "decode_context": p.tokens + 1})
            found[spec.name, str(p)] = float(step_time(at, **call).seconds)
    return found


@pytest.fixture(scope="module")
def chosen() -> list[Spec]:
    return [s for s in specs(True) if s.host or s.name in ("llama-28m", "mixtral-84m")]


@pytest.fixture(scope="module")
def real(chosen: list[Spec]) -> dict[tuple[str, str], float]:
    return _real_steps(chosen, 3e-4, 1e-3)


def test_host_times_come_from_two_depths_at_each_streaming() -> None:
    small, slope = [s for s in specs(True) if s.host], 1e-11
    kernels, measured = {}, {}
    for spec in small:
        depth = spec.config["num_hidden_layers"]
        kernels[spec.name] = StepTime(1e-3 * depth, {}, {}, 0.0, 0.0, 2e6 * depth, 0.0)
        host = 1e-4 + slope * spec.stream_bytes
        measured[spec.name, str(spec.points[0])] = (1e-3 + host) * depth + 5e-4
    curve, step_s = host_times(kernels, measured, small[::-1])
    assert step_s == pytest.approx(5e-4)
    for moved, seconds in curve:
        assert seconds == pytest.approx(1e-4 + slope * (moved - 2e6) / LINEARS)


def test_a_machine_that_is_as_modelled_is_predicted(
    chosen: list[Spec], real: dict[tuple[str, str], float]
) -> None:
    found = compare(_Found(real), chosen, MACHINE, "cpu", "fp32")
    by_class = {s["class"]: s for s in found.summaries() if not s["phase"]}
    assert by_class["dense"]["median"] < 0.03 and by_class["moe"]["median"] < 0.05
    assert [s for _, s in found.host_layer] == pytest.approx([3e-4] * 4, rel=0.1)
    assert found.ratio_summary()["median"] < 0.05
    assert len(found.ratios) == 10 and not any(s.model.startswith("host") for s in found.steps)


def test_kernels_of_another_machine_are_noticed(
    chosen: list[Spec], real: dict[tuple[str, str], float]
) -> None:
    """A planted fault: kernels timed at half the rate of the machine that ran the models."""
    found = compare(_Found(real, slower=2.0), chosen, MACHINE, "cpu", "fp32")
    by_class = {s["class"]: s for s in found.summaries() if not s["phase"]}
    assert by_class["dense"]["median"] > 2 * AIMS["dense"]
    assert by_class["dense"]["bias"] > 0.3


def test_a_slow_model_is_noticed(
    chosen: list[Spec], real: dict[tuple[str, str], float]
) -> None:
    """A planted fault: the mixture of experts takes half as long again as its kernels say."""
    slow = {key: t * (1.5 if key[0] == "mixtral-84m" else 1.0) for key, t in real.items()}
    found = compare(_Found(slow), chosen, MACHINE, "cpu", "fp32")
    assert found.ratio_summary()["median"] > 0.3
    assert all(r.error < 0 for r in found.ratios)


def test_ratios_pair_the_same_steps(chosen: list[Spec], real: dict[tuple[str, str], float]) -> None:
    found = compare(_Found(real), chosen, MACHINE, "cpu", "fp32")
    assert {(r.moe, r.dense) for r in ratios(found.steps, chosen)} == {("mixtral-84m", "llama-28m")}


def test_pairs_have_the_same_active_parameters() -> None:
    from costsim.models.count import active_parameters

    at = {s.name: s.model for s in specs(False)}
    for spec in specs(False):
        if spec.pair:
            both = [active_parameters(at[n]) for n in (spec.name, spec.pair)]
            assert both[0] == pytest.approx(both[1], rel=0.02), spec.name


def _small() -> list[Spec]:
    shared = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
              "vocab_size": 256}
    points = (Point("decode", 2, 24), Point("prefill", 1, 16))
    moe = {"model_type": "qwen3_moe", "intermediate_size": 256, "moe_intermediate_size": 64,
           "num_experts": 8, "num_experts_per_tok": 2, "decoder_sparse_step": 1, "head_dim": 32,
           "mlp_only_layers": [], "norm_topk_prob": True}
    host = [replace(s, config={**s.config, **shared, "intermediate_size": 256})
            for s in specs(True) if s.host]
    return [*host,
            Spec("small", {**host[0].config, "model_type": "qwen3", "head_dim": 32,
                           "intermediate_size": 128, "num_hidden_layers": 2}, points),
            Spec("small-moe", {**host[0].config, **moe, "num_hidden_layers": 2}, points, "small")]


SMALL = Grid(rows=(1, 4, 16), weights=((128, 128), (256, 128)), heads=((4, 2, 32),),
             batches=(1, 2, 4), lengths=(8, 16, 32), contexts=(16, 32, 64),
             experts=((128, 64, 8, 2), (96, 64, 8, 2)), tokens=(1, 2, 16),
             bytes=(4096, 16384, 65536, 1 << 18, 1 << 19, 1 << 20), flop=1e8)


def _measure(path: Path, progress: Callable[[int, int, str], None]) -> Any:
    from costsim.kernels.measure.transformers_kernels import TransformersBackend
    from costsim.validation.engine_run import Plan, engine_cases, measure_engine

    plan = Plan(_small(), engine_cases(SMALL, "fp32"), "cpu", "fp32", "grouped_mm", 1, 1e-4, 1e-4,
                2)
    backend = TransformersBackend("cpu", 1e6, "fp32")
    return measure_engine(plan, MACHINE, backend, Journal.open(path, {"a": 1}), progress), plan


def test_a_small_run_is_measured_interrupted_and_taken_up(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="extra 'measure' not installed")
    transformers = pytest.importorskip("transformers", reason="extra 'measure' not installed")
    if int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("transformers 5 or later is needed")
    path = tmp_path / "engine.jsonl"

    def stop(done: int, total: int, what: str) -> None:
        if done == 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _measure(path, stop)
    found, plan = _measure(path, lambda *_: None)
    assert found.taken_over == 100
    assert all(t > 0 for t in found.steps.values())
    assert found.parameters["small"] < found.parameters["small-moe"]
    result = compare(found, plan.specs, MACHINE, "cpu", "fp32")
    # The machine may be busy and the models are mostly Python: only the size must be right.
    assert len(result.steps) == 4
    assert all(abs(s.error) < np.log(4) for s in result.steps)
    assert {k["variant"] for k in result.kernels if k["operator"] == "elementwise"} == set(KINDS)


@pytest.mark.parametrize(("args", "message"), [
    (["--only", "llama-29m"], "unknown model 'llama-29m'"),
    (["--device", "tpu"], "tpu"), (["--threads", "0"], "positive"),
])
def test_mistakes_of_the_command_are_one_line(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="extra 'measure' not installed")
    pytest.importorskip("transformers", reason="extra 'measure' not installed")
    from costsim.cli import main

    with pytest.raises(SystemExit) as left:
        main(["validate", "engine", *args])
    said = capsys.readouterr().err.strip()
    assert left.value.code == 2 and message in said and "\n" not in said


def test_experts_of_either_implementation_give_the_same() -> None:
    """The kernels timed alone are the library's: sorted and grouped, or expert by expert."""
    torch = pytest.importorskip("torch", reason="extra 'measure' not installed")
    transformers = pytest.importorskip("transformers", reason="extra 'measure' not installed")
    if int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("transformers 5 or later is needed")
    from costsim.kernels.measure.transformers_kernels import TransformersBackend

    shape = {"tokens": 6, "hidden": 32, "width": 16, "experts": 4, "top_k": 2, "dtype": "fp32"}
    found = []
    for experts in ("grouped_mm", "eager"):
        torch.manual_seed(0)
        backend = TransformersBackend("cpu", 1e5, "fp32", experts, seed=3)
        call, more = backend.prepare("moe", shape)
        found.append(call())
        assert 2 <= more["touched"] <= 4
    assert float(found[0].abs().max()) > 0
    assert torch.allclose(*found, atol=1e-6)
    for kind in KINDS:
        backend.prepare("elementwise", {"kind": kind, "bytes": 4096})[0]()
