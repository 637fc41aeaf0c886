"""Layouts that can be built, the search over them, presets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from costsim.engine.deployment import Deployment
from costsim.engine.layout import Layout
from costsim.engine.presets import list_engines, load_settings, preset_sources
from costsim.engine.search import enumerate_layouts, pareto_front, precisions_for, search
from costsim.engine.settings import Routing, Speculation
from costsim.engine.steady_state import operating_point
from costsim.engine.validity import allowed, check_layout
from costsim.errors import DoesNotFitError, InputError
from costsim.hardware.accelerator import Hardware
from costsim.hardware.loader import load_hardware
from costsim.kernels.calibration import Calibration
from costsim.models.loader import load_model

ROOFLINE = Calibration.roofline()


@pytest.mark.parametrize(("layout", "said"), [
    (Layout(tp=3), "tp = 3"), (Layout(pp=100), "pp = 100"), (Layout(tp=0), "at least 1"),
    (Layout(ep=2), "ep = 2"), (Layout(tp=1.5), "whole number"),
])
def test_layouts_that_cannot_be_built(layout: Layout, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_layout(load_model("llama-3.1-70b"), layout)


@pytest.mark.parametrize("layout", [Layout(tp=8, ep=16), Layout(dp=512, ep=512),
                                    Layout(tp=8, ep=3)])
def test_expert_parallelism_that_cannot_be_built(layout: Layout) -> None:
    with pytest.raises(InputError, match="ep = "):
        check_layout(load_model("deepseek-v3"), layout)


@pytest.mark.parametrize("name", ["llama-3.1-70b", "deepseek-v3", "gpt-oss-120b"])
def test_enumerated_layouts_are_valid_and_unique(h100: Hardware, name: str) -> None:
    model = load_model(name)
    layouts = enumerate_layouts(model, h100, 16)
    assert np.all(allowed(model, layouts))
    rows = {tuple(r) for r in np.stack([layouts.tp, layouts.pp, layouts.ep, layouts.dp], 1)}
    assert len(rows) == len(layouts.tp)
    assert np.max(layouts.accelerators) <= 16
    for row in rows:
        check_layout(model, Layout(*(int(x) for x in row)))


def test_search_agrees_with_single_points(h100: Hardware) -> None:
    found = search(load_model("mixtral-8x7b"), h100, 2000, 300, 8, calibration=ROOFLINE)
    assert len(found) > 300
    for index in np.random.default_rng(0).choice(len(found), 12, replace=False):
        one = operating_point(found.at(index), found.batch[index], 2000, 300)
        assert bool(one.fits)
        assert float(one.tpot_s) == pytest.approx(found.tpot_s[index], rel=1e-9)
        assert float(one.ttft_s) == pytest.approx(found.ttft_s[index], rel=1e-9)


@pytest.mark.parametrize("name", ["llama-3.1-70b", "qwen3-30b-a3b", "deepseek-v3"])
def test_search_over_every_batch_agrees_with_single_points(name: str) -> None:
    """On measured kernels, where rows of the grid are folded and kernels joined."""
    model, hardware = load_model(name), load_hardware("b200_sxm")
    found = search(model, hardware, 2000, 300, 8, settings=load_settings("vllm"),
                   batches=range(1, 301))
    keys = np.stack([found.deployment, found.tp, found.pp, found.ep, found.dp, found.batch])
    assert len(np.unique(keys, axis=1).T) == len(found)
    changes = np.any(np.diff(keys[:5], axis=1) != 0, axis=0)
    assert np.all(changes | (np.diff(found.batch) == 1)), "batches of a layout follow one another"
    for index in np.random.default_rng(1).choice(len(found), 15, replace=False):
        one = operating_point(found.at(index), found.batch[index], 2000, 300)
        for figure in ("tpot_s", "ttft_s", "requests_per_s", "log_error_throughput"):
            assert float(getattr(one, figure)) == pytest.approx(
                getattr(found, figure)[index], rel=1e-9), figure


def test_best_point_meets_targets_and_front_is_not_beaten(h100: Hardware) -> None:
    found = search(load_model("llama-3.1-70b"), [h100, load_hardware("h200_sxm")], 4000, 500, 8,
                   ttft_s=2.0, tpot_s=0.04, calibration=ROOFLINE)
    best = found.best()
    assert found.meets[best] and found.pareto[best]
    assert found.ttft_s[best] <= 2.0 and found.tpot_s[best] <= 0.04
    rate = found.output_tokens_per_s_per_accelerator
    for index in np.flatnonzero(found.pareto):
        beaten = found.meets & (found.tpot_s <= found.tpot_s[index]) & (rate > rate[index])
        assert not beaten.any()


def test_search_without_a_fit_says_so(h100: Hardware) -> None:
    with pytest.raises(DoesNotFitError, match="fits on no layout of up to 2 x h100_sxm"):
        search(load_model("deepseek-v3"), h100, 1000, 100, 2, calibration=ROOFLINE)
    found = search(load_model("llama-3.1-8b"), h100, 1000, 100, 1, tpot_s=1e-6,
                   calibration=ROOFLINE)
    with pytest.raises(DoesNotFitError, match="lowest TPOT is"):
        found.best()


def test_precisions_follow_the_hardware() -> None:
    model = load_model("llama-3.1-70b")
    assert len(precisions_for(model, load_hardware("a100_sxm_80gb"))) == 1
    assert len(precisions_for(model, load_hardware("b200_sxm"))) == 4


@given(arrays.arrays(float, st.integers(1, 40), elements=st.floats(0, 10)), st.data())
def test_pareto_front_is_what_no_point_beats(cost: np.ndarray, data: st.DataObject) -> None:
    gain = data.draw(arrays.arrays(float, len(cost), elements=st.floats(0, 10)))
    front = pareto_front(cost, gain)
    assert front.any()
    for index in range(len(cost)):
        better = (cost <= cost[index]) & (gain >= gain[index]) & (
            (cost < cost[index]) | (gain > gain[index]))
        assert not (front[index] and better.any())


@pytest.mark.parametrize("name", ["vllm", "sglang", "trtllm"])
def test_presets_load_and_every_figure_has_a_source(name: str) -> None:
    assert name in list_engines()
    settings = load_settings(name)
    assert settings.name == name and settings.version
    assert set(preset_sources(name)) >= {"memory_utilization", "host_step_s"}
    assert load_settings(name, max_num_seqs=7).max_num_seqs == 7


def test_a_preset_of_ones_own_may_draft_and_route(tmp_path: Path) -> None:
    path = tmp_path / "drafting.toml"
    path.write_text("""extends = "vllm"
[settings]
speculation = "mtp:2:0.7"
routing = "power_law:0.4"
[sources]
speculation = "our server"
routing = "our traffic"
""")
    settings = load_settings(str(path))
    assert settings.speculation == Speculation("mtp", 2, 0.7)
    assert settings.routing == Routing("power_law", 0.4)
    assert settings.host_request_s == load_settings("vllm").host_request_s
    path.write_text(path.read_text().replace("mtp:2", "mtp:0"))
    with pytest.raises(InputError, match="from 1 to 64"):
        load_settings(str(path))


def test_unknown_engine_is_refused_with_a_suggestion() -> None:
    with pytest.raises(InputError, match=r"unknown engine/preset 'vlm'.*did you mean 'vllm'"):
        load_settings("vlm")


def test_engines_differ(serve: Callable[..., Deployment]) -> None:
    points = {n: operating_point(serve("llama-3.1-70b", tp=4, settings=load_settings(n)),
                                 64, 1000, 500) for n in ("vllm", "sglang", "trtllm")}
    assert len({float(p.tpot_s) for p in points.values()}) == 3
