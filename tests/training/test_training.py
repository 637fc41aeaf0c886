"""Training estimates against closed forms, published memory and step times, and brute force."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from costsim.cli import cli
from costsim.errors import DoesNotFitError, InputError
from costsim.hardware.accelerator import Hardware
from costsim.hardware.loader import load_hardware
from costsim.kernels.calibration import Calibration
from costsim.models.architecture import Model
from costsim.models.loader import load_model
from costsim.training import (
    Failures,
    TrainingLayout,
    TrainingPlan,
    estimate_training,
    search_layout,
)
from costsim.training.estimate import TrainingEstimate, model_flop
from costsim.training.failures import optimal_interval_s, useful_share
from costsim.training.memory import layer_activation_bytes, training_memory
from costsim.training.published_rows import model_of
from costsim.training.schedule import bubble_time, in_flight
from costsim.training.traffic import half_all_reduce_time

ROOFLINE = Calibration.roofline()
GIB = 2.0**30


@pytest.fixture(scope="module")
def llama() -> Model:
    return load_model("llama-2-7b")


@pytest.fixture(scope="module")
def a100() -> Hardware:
    return load_hardware("a100_sxm_80gb")


def plan_of(**changes: object) -> TrainingPlan:
    plan = TrainingPlan(1e9, 2**20, 4096, TrainingLayout(dp=64), failures=None)
    return replace(plan, **changes)  # type: ignore[arg-type]


def predicted(model: Model, hardware: Hardware, **changes: object) -> TrainingEstimate:
    return estimate_training(model, hardware, plan_of(**changes), calibration=ROOFLINE)


@pytest.mark.theory
@pytest.mark.parametrize(("schedule", "chunks", "expected"), [
    ("gpipe", 1, 7 * 3.0), ("1f1b", 1, 7 * 3.0), ("interleaved", 4, 7 * 3.0 / 4),
    ("zero_bubble", 1, 7 * 1.0), ("dualpipe", 1, 3 * 2.0)])
def test_bubbles_are_those_of_the_papers(schedule: str, chunks: int, expected: float) -> None:
    assert bubble_time(schedule, 8, 1.0, 2.0, chunks) == pytest.approx(expected)


@pytest.mark.theory
def test_one_stage_has_no_bubble() -> None:
    for schedule in ("gpipe", "1f1b", "interleaved", "zero_bubble", "dualpipe"):
        assert float(bubble_time(schedule, 1, 1.0, 2.0)) == 0.0
        assert float(in_flight(schedule, 1, 1)) == 1.0


def slots_by_simulation(stages: int, many: int) -> int:
    """Run 1F1B in unit steps (forward 1, backward 2) with its dependencies; return the span."""
    orders = []
    for stage in range(stages):
        warm = min(stages - stage - 1, many)
        order = [("f", i) for i in range(warm)]
        for i in range(many - warm):
            order += [("f", warm + i), ("b", i)]
        orders.append(order + [("b", i) for i in range(many - warm, many)])
    done: dict[tuple[str, int, int], int] = {}
    clock, at = [0] * stages, [0] * stages
    while any(at[s] < len(orders[s]) for s in range(stages)):
        for s in range(stages):
            while at[s] < len(orders[s]):
                kind, i = orders[s][at[s]]
                before = [(kind, i, s - 1)] if kind == "f" and s else []
                if kind == "b":
                    before = [("f", i, s)] + ([("b", i, s + 1)] if s + 1 < stages else [])
                if any(b not in done for b in before):
                    break
                start = max([clock[s], *(done[b] for b in before)])
                clock[s] = start + (1 if kind == "f" else 2)
                done[kind, i, s] = clock[s]
                at[s] += 1
    return max(clock)


@pytest.mark.theory
@pytest.mark.parametrize(("stages", "many"), [(1, 3), (2, 2), (4, 4), (4, 9), (8, 16)])
def test_1f1b_time_equals_a_simulated_pipeline(stages: int, many: int) -> None:
    formula = many * 3.0 + float(bubble_time("1f1b", stages, 1.0, 2.0))
    assert slots_by_simulation(stages, many) == formula


@pytest.mark.theory
def test_young_daly_interval_is_the_best() -> None:
    failures = Failures(mtbf_h=50_000, checkpoint_s=30, restart_s=300)
    best = float(optimal_interval_s(failures, 16_384))
    tried = np.linspace(0.2, 5, 400) * best
    shares = [float(useful_share(replace(failures, checkpoint_interval_s=t), 16_384))
              for t in tried]
    assert tried[int(np.argmax(shares))] == pytest.approx(best, rel=0.1)


@pytest.mark.published
def test_llama3_reports_more_than_90_percent_effective_time() -> None:
    share = float(useful_share(Failures(restart_s=600), 16_384))
    assert 0.88 < share < 0.97


@pytest.mark.theory
def test_reduce_scatter_time_by_hand(a100: Hardware) -> None:
    up, out = a100.scale_up, a100.scale_out
    quiet = a100.with_fields(scale_up=replace(up, latency_s=0.0),
                             scale_out=replace(out, latency_s=0.0))
    found = float(half_all_reduce_time(quiet, 16, 8, 8e9))
    by_hand = 7 / 8 * 8e9 / (0.8 * 300e9) + 1 / 2 * 1e9 / (0.8 * 25e9)
    assert found == pytest.approx(by_hand)


# Korthikanti et al. 2022, figure 1 (GiB per GPU), as in calculon-ai/calculon llm/validation.py.
MEMORY = [
    ("megatron-22b", dict(tp=8, micro_batch=4), 1, 45.5625, 59.25, 9.5625),
    ("gpt-3-175b", dict(tp=8, pp=8, virtual_stages=3), 64, 45.5625, 66.84375, 12.3515625),
    ("mt-nlg-530b", dict(tp=8, pp=35, virtual_stages=3), 280, 31.640625, 114.0234375,
     23.076171875),
    ("megatron-1t", dict(tp=8, pp=64), 512, 32.958984375, 131.25, 26.5625),
]


@pytest.mark.published
@pytest.mark.parametrize(("name", "layout", "batch", "state", "whole", "saved"), MEMORY)
def test_memory_of_megatron(
    name: str, layout: dict[str, int], batch: int, state: float, whole: float, saved: float
) -> None:
    batch = max(batch, layout.get("micro_batch", 1))
    schedule = "interleaved" if "virtual_stages" in layout else "1f1b"
    plan = TrainingPlan(1e9, batch * 2048, 2048, TrainingLayout(**layout), zero=0,
                        schedule=schedule, fused_attention=False, sequence_parallel=False)
    memory = training_memory(model_of(name), plan)
    # Ours adds the embedding on the fullest stage, which the figure leaves out.
    held = float(memory.weights + memory.gradients + memory.optimizer) / GIB
    assert state < held < 1.15 * state
    assert float(memory.activations) / GIB == pytest.approx(whole, rel=0.01)
    saving = plan.with_changes(sequence_parallel=True, recompute="selective")
    found = float(training_memory(model_of(name), saving).activations) / GIB
    assert found == pytest.approx(saved, rel=0.01)


@pytest.mark.theory
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_activations_of_one_gpt_layer_by_formula(recompute: str) -> None:
    model, s, h, a = model_of("megatron-22b"), 2048, 6144, 64
    plan = TrainingPlan(1e9, 4 * s, s, TrainingLayout(tp=8), recompute=recompute,
                        fused_attention=False)
    expected = {"none": (34 * h + 5 * a * s) / 8, "selective": 34 * h / 8, "full": 2 * h / 8}
    found = layer_activation_bytes(model, model.layers[0], plan)
    assert float(found) == pytest.approx(expected[recompute])


@pytest.mark.theory
def test_adam_takes_18_bytes_and_zero_divides_them(llama: Model) -> None:
    state = []
    for zero in (0, 1, 2, 3):
        m = training_memory(llama, plan_of(zero=zero))
        state.append(float(m.weights + m.gradients + m.optimizer) / 6.738e9)
    expected = [18, 6 + 12 / 64, 2 + 16 / 64, 18 / 64]
    assert state == pytest.approx(expected, rel=0.005)


@pytest.mark.theory
def test_model_flop_is_six_n_d_and_attention(llama: Model) -> None:
    plan = plan_of()
    without_embedding = 6.738e9 - 32000 * 4096
    expected = 6 * without_embedding + 12 * 32 * 4096 * 4096
    assert model_flop(llama, plan) / plan.global_batch_tokens == pytest.approx(expected, rel=0.01)


def test_parts_add_up_and_mfu_follows(llama: Model, a100: Hardware) -> None:
    e = predicted(llama, a100)
    assert sum(e.step.parts.values()) == pytest.approx(e.step.seconds)
    flop = model_flop(llama, e.plan)
    assert e.mfu == pytest.approx(flop / (float(e.step.seconds) * 64 * 312e12))
    assert e.gpu_hours == pytest.approx(e.days * 24 * 64)
    assert 0 < e.mfu < 1


@settings(max_examples=25, deadline=None)
@given(tp=st.sampled_from([1, 2, 4, 8]), pp=st.sampled_from([1, 2, 4, 8]),
       batch=st.sampled_from([1, 2]), recompute=st.sampled_from(["none", "selective", "full"]),
       zero=st.sampled_from([0, 1, 2, 3]))
def test_invariants(
    llama: Model, a100: Hardware, tp: int, pp: int, batch: int, recompute: str, zero: int
) -> None:
    layout = TrainingLayout(tp=tp, pp=pp, dp=64 // (tp * pp), micro_batch=batch)
    e = predicted(llama, a100, layout=layout, recompute=recompute, zero=zero)
    assert 0 < e.mfu < 1 and e.accelerators == 64
    assert all(float(v) >= 0 for v in e.step.parts.values())
    faster = a100.with_fields(
        peak_flop_per_s={k: 2 * v for k, v in a100.peak_flop_per_s.items()},
        memory_bandwidth_bytes_per_s=2 * a100.memory_bandwidth_bytes_per_s)
    again = predicted(llama, faster, layout=layout, recompute=recompute, zero=zero)
    assert again.step.seconds < e.step.seconds
    twice = predicted(llama, a100, layout=layout, recompute=recompute, zero=zero, tokens=2e9)
    assert twice.gpu_hours == pytest.approx(2 * float(e.gpu_hours))


def test_recomputation_trades_time_for_memory(llama: Model, a100: Hardware) -> None:
    none, full = (predicted(llama, a100, recompute=r) for r in ("none", "full"))
    assert full.step.seconds > 1.15 * none.step.seconds
    assert full.memory.activations < 0.2 * none.memory.activations
    assert full.mfu < none.mfu


def test_arrays_give_the_same_as_one_at_a_time(llama: Model, a100: Hardware) -> None:
    tps, pps = np.array([1, 2, 4, 8]), np.array([8, 4, 2, 1])
    many = predicted(llama, a100, layout=TrainingLayout(tp=tps, pp=pps, dp=8))
    for i in range(4):
        one = predicted(llama, a100, layout=TrainingLayout(int(tps[i]), int(pps[i]), 8))
        assert many.step.seconds[i] == pytest.approx(float(one.step.seconds))
        assert many.memory.total[i] == pytest.approx(float(one.memory.total))


def test_search_equals_brute_force(llama: Model, a100: Hardware) -> None:
    plan = plan_of(tokens=1e9, layout=TrainingLayout())
    best = search_layout(llama, a100, 16, plan, zero=(1,), recompute=("none", "full"),
                         calibration=ROOFLINE)
    found = math.inf
    for tp in (1, 2, 4, 8):
        for pp in (1, 2, 4, 8, 16):
            for mb in (1, 2, 4, 8):
                for v in (1, 2, 4, 8):
                    for recompute in ("none", "full"):
                        found = min(found, _days(llama, a100, plan, tp, pp, mb, v, recompute))
    assert float(best.days) == pytest.approx(found)
    assert best.fits


def _days(
    model: Model, hardware: Hardware, plan: TrainingPlan, tp: int, pp: int, mb: int, v: int,
    recompute: str,
) -> float:
    if tp * pp > 16 or pp * v > 32 or (v > 1 and pp == 1):
        return math.inf
    layout = TrainingLayout(tp=tp, pp=pp, dp=16 // (tp * pp), micro_batch=mb, virtual_stages=v)
    tried = plan.with_changes(layout=layout, recompute=recompute, schedule="interleaved", zero=1)
    e = estimate_training(model, hardware, tried, calibration=ROOFLINE)
    return float(e.days) if e.fits else math.inf


def test_money_carries_the_interval_of_prices(llama: Model, a100: Hardware) -> None:
    e = estimate_training(llama, a100, plan_of(), price=(1.0, 2.0, 4.0), calibration=ROOFLINE)
    assert e.usd is not None and e.usd.value == pytest.approx(2 * float(e.gpu_hours))
    low, high = e.usd.interval()
    assert low < e.usd.value / 2 and high > e.usd.value * 2
    assert estimate_training(llama, a100, plan_of(), price="on_demand").usd is not None


def test_experts_are_cheaper_to_train_than_their_dense_total() -> None:
    moe, h800 = load_model("mixtral-8x7b"), load_hardware("h800_sxm")
    e = predicted(moe, h800, layout=TrainingLayout(pp=4, dp=16, ep=8))
    dense = predicted(load_model("llama-2-70b"), h800, layout=TrainingLayout(pp=4, dp=16))
    assert float(e.gpu_hours) < 0.5 * float(dense.gpu_hours)
    assert float(e.step.parts["network"]) > 0


BAD = [
    (dict(layout=TrainingLayout(tp=3, dp=8)), "does not divide the 32 heads"),
    (dict(layout=TrainingLayout(pp=64)), "more than the 32 layers"),
    (dict(layout=TrainingLayout(dp=8, ep=4)), "more than the 0 experts"),
    (dict(layout=TrainingLayout(dp=1024)), "larger batch"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_layouts_that_do_not_divide(
    llama: Model, a100: Hardware, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        predicted(llama, a100, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("changes", "message"), [
    (dict(tokens=float("nan")), "tokens"), (dict(tokens=-1), "tokens"),
    (dict(recompute="ful"), "did you mean 'full'"), (dict(zero=4), "allowed: 0, 1, 2, 3"),
    (dict(schedule="1f1"), "did you mean '1f1b'"), (dict(overlap_model=2.0), "0 to 1"),
    (dict(layout=TrainingLayout(tp=0)), "tp"), (dict(layout=TrainingLayout(dp=1.5)), "dp")])
def test_bad_plans_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_of(**changes)


def test_a_model_that_cannot_fit(a100: Hardware) -> None:
    big = load_model("mt-nlg-530b")
    with pytest.raises(DoesNotFitError, match="GB"):
        search_layout(big, a100, 8, plan_of(layout=TrainingLayout()), calibration=ROOFLINE)
    with pytest.raises(DoesNotFitError, match="needed on one a100"):
        estimate_training(big, a100, plan_of(layout=TrainingLayout(tp=8)), require_fit=True,
                          calibration=ROOFLINE)


def test_latent_attention_expanded_again_keeps_less_and_takes_longer() -> None:
    model, h800 = load_model("deepseek-v3"), load_hardware("h800_sxm")
    layout = TrainingLayout(pp=16, dp=32, ep=32)
    none, again = (predicted(model, h800, layout=layout, recompute=r, global_batch_tokens=2**23)
                   for r in ("none", "selective"))
    assert again.memory.activations < 0.8 * none.memory.activations
    assert none.step.seconds < again.step.seconds < 1.1 * none.step.seconds


def test_fp8_activations_take_half() -> None:
    model = load_model("llama-2-7b")
    two, one = (layer_activation_bytes(model, model.layers[0], plan_of(activation_bytes=b))
                for b in (2.0, 1.0))
    assert float(one) == pytest.approx(0.5 * float(two))


def test_train_command(tmp_path: Path) -> None:
    args = ["train", "llama-2-7b", "a100_sxm_80gb", "--accelerators", "64,128", "--tokens", "2T"]
    result = CliRunner().invoke(cli, [*args, "--json", "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "training.json").read_text())
    assert [r["accelerators"] for r in rows] == [64, 128]
    assert rows[1]["days"] < rows[0]["days"] and 0 < rows[0]["mfu"] < 1
    assert (tmp_path / "training.png").exists()
    given = CliRunner().invoke(cli, [*args[:3], "--tokens", "2T", "--dp", "64", "--no-failures",
                                     "--kernels-only", "--price", "2"])
    assert given.exit_code == 0 and "DP64" in given.output


@pytest.mark.parametrize(("args", "message"), [
    (["--accelerators", "8,x"], "whole numbers"), (["--price", "cheap"], "--price"),
    (["--recompute", "ful"], "did you mean 'full'"), (["--tp", "3"], "does not divide")])
def test_train_command_refuses(args: list[str], message: str) -> None:
    found = CliRunner().invoke(cli, ["train", "llama-2-7b", "a100_sxm_80gb", "--tokens", "2T",
                                     *args])
    assert found.exit_code != 0 and message in f"{found.output}{found.exception}"
