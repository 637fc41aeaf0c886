"""Published results: the table is whole, predictions reach the aim, and a planted fault is seen."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from costsim.engine.layout import Layout
from costsim.errors import InputError
from costsim.hardware.loader import load_hardware
from costsim.models.loader import load_model
from costsim.validation.comparison import summarise
from costsim.validation.published import aims, calibration_of, compare
from costsim.validation.published_case import (
    ENGINE,
    KERNELS,
    Case,
    settings_of,
    without_fitted_figures,
)
from costsim.validation.published_csv import COLUMNS, read_published
from costsim.validation.published_points import (
    REGIMES,
    PublishedPoint,
    published_points,
    read_layout,
)
from costsim.validation.published_regimes import predict

BY_ID = {p.id: p for p in published_points()}
H100_70B = "trtllm-1.0 llama-3.3-70b h100_sxm TP2 "


def some(many: int = 120) -> list[PublishedPoint]:
    """Return a random sample (by checksum) of burst points on hardware with own kernels."""
    own = [p for p in published_points()
           if p.regime == "burst" and calibration_of(p.hardware) == "measured"]
    return sorted(own, key=lambda p: zlib.crc32(p.id.encode()))[:many]


def test_the_table_is_whole() -> None:
    points = published_points()
    assert len(points) >= 60
    assert len(BY_ID) == len(points)
    for p in points:
        assert p.regime in REGIMES
        assert p.value > 0 and p.isl > 0
        assert p.document.title and p.document.date and p.document.assumed and p.section
        load_model(p.model)
        load_hardware(p.hardware)
        assert p.layout is None or p.accelerators % int(p.layout.accelerators) == 0


def test_figures_are_those_of_the_documents() -> None:
    """A few cells, read again from the documents by hand."""
    assert BY_ID[H100_70B + "2048/128"].value == 762
    assert BY_ID["trtllm-1.1 qwen3-235b-a22b h100_sxm DEP8 1000/1000"].value == 8 * 1932
    assert BY_ID["trtllm-0.17 llama-3.1-8b a100_sxm_80gb TP1 5000/500"].value == 825.13
    assert BY_ID["trtllm-1.0 llama-3.1-405b b200_sxm TP4 20000/2000"].value == 672


def test_throughput_reaches_the_aim_and_a_gpu_at_half_its_rate_does_not() -> None:
    points = some()
    found, left = compare(points)
    assert not left
    aim = aims(found)[0]
    assert aim.met, aim
    slow = aims(compare(points, rate=0.5)[0])[0]
    assert not slow.met
    assert slow.reached > aim.reached + 0.2


def test_nothing_fitted_to_serving_points_is_used() -> None:
    plain = without_fitted_figures("trtllm")
    assert plain.kernel_time_factor == 1.0 and plain.host_step_s == 0.0
    assert plain.frontend_s == 0.0
    assert plain.log_error_tpot > 0.0
    point = BY_ID[H100_70B + "1000/1000"]
    assert settings_of(point, ENGINE) != settings_of(point, KERNELS)


def test_calibration_of_hardware() -> None:
    assert calibration_of("h100_sxm") == "measured"
    assert calibration_of("mi300x") == "in part"
    assert calibration_of("mi325x") == "borrowed"
    assert calibration_of("tpu_v4") == "uncalibrated"


def test_static_batch_is_its_prefill_and_its_decodes() -> None:
    point = next(p for p in published_points() if p.regime == "static" and p.batch == 8)
    parts = {q: predict(Case(replace(point, quantity=q))).value
             for q in ("ttft_s", "tpot_s", "output_tokens_per_s")}
    seconds = parts["ttft_s"] + (point.osl - 1) * parts["tpot_s"]
    assert parts["output_tokens_per_s"] == pytest.approx(8 * point.osl / seconds)


def test_a_burst_of_more_requests_comes_closer_to_the_steady_state() -> None:
    point = BY_ID[H100_70B + "1000/1000"]
    rates = [predict(Case(replace(point, requests=n))).value for n in (50, 400, 3000)]
    assert rates == sorted(rates)


def test_tighter_limits_never_raise_the_rate() -> None:
    point = next(p for p in published_points() if p.regime == "limits" and p.layout is not None)
    rates = [predict(Case(replace(point, tpot_p99_s=limit))).value for limit in (0.03, 0.06, 0.2)]
    assert rates == sorted(rates)
    offline = predict(Case(replace(point, regime="saturated"))).value
    assert rates[-1] <= 1.15 * offline


def test_batches_are_padded_to_the_graphs_of_the_document() -> None:
    point = BY_ID[H100_70B + "128/2048"]
    plain = replace(point, document=replace(point.document, graph_sizes=()))
    coarse = replace(point, document=replace(point.document, graph_sizes=(1, 384)))
    rates = [predict(Case(p)).value for p in (plain, point, coarse)]
    assert rates[0] >= rates[1] > rates[2]


def test_what_is_left_neutral_widens_the_interval() -> None:
    point = BY_ID["trtllm-1.0 qwen3-30b-a3b gb200_nvl72 TP1 128/128"]
    alone, fitted = predict(Case(point)), predict(Case(point, ENGINE))
    assert alone.value > fitted.value
    assert alone.log_error > fitted.log_error


def test_full_attention_where_the_engine_used_no_window() -> None:
    point = replace(BY_ID["trtllm-0.17 llama-3.1-8b h100_sxm TP1 20000/2000"], model="mistral-7b")
    window, full = (predict(Case(replace(point, full_attention=f))).value for f in (False, True))
    assert full < window


@pytest.mark.parametrize(("text", "layout"), [
    ("TP2,PP4", Layout(tp=2, pp=4)), ("DEP4", Layout(dp=4, ep=4)),
    ("DEP2,PP2", Layout(dp=2, ep=2, pp=2)),
])
def test_layouts_are_read(text: str, layout: Layout) -> None:
    assert read_layout(text) == layout


def test_a_layout_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="TP2,PP4"):
        read_layout("eight")


def test_collected_table(shared_data: Path) -> None:
    points, left = read_published(shared_data / "published" / "serving.csv")
    assert len({p.id for p in points}) + sum(left.values()) == 817
    assert sum(left.values()) < 0.12 * 817
    twins = 0
    for p in points:
        if p.regime == "burst" and p.document.key.startswith("trtllm-1") and p.layout is not None:
            same = [q for q in published_points() if (q.document.key, q.model, q.hardware, q.isl,
                    q.osl, q.accelerators) == (p.document.key, p.model, p.hardware, p.isl, p.osl,
                                               p.accelerators) and q.layout == p.layout]
            for q in same:
                assert q.value == pytest.approx(p.value, rel=0.001), p.id
                assert (q.weights, q.kv, q.requests) == (p.weights, p.kv, p.requests)
            twins += bool(same)
    assert twins > 100


def test_collected_table_with_mistakes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_published(tmp_path / "none.csv")
    (tmp_path / "some.csv").write_text("id,source\n1,2\n", encoding="utf-8")
    with pytest.raises(InputError, match="column date"):
        read_published(tmp_path / "some.csv")
    row = ["a", "x @00f37686", "2025-08", "Llama 3.3 70B", "H100-SXM-80GB", "2", "FP8",
           "TensorRT-LLM", "1000", "1000", "4205", "max", "yes"]
    for column, text, message in ((5, "two", r"line 2: .*'two'"), (8, "777", "")):
        bad = [*row[:column], text, *row[column + 1:]]
        (tmp_path / "bad.csv").write_text(f"{','.join(COLUMNS)}\n{','.join(bad)}\n",
                                          encoding="utf-8")
        if message:
            with pytest.raises(InputError, match=message):
                read_published(tmp_path / "bad.csv")
        else:
            assert read_published(tmp_path / "bad.csv")[1] == {
                "number of requests at lengths 777/1000 is not known": 1}


def test_summaries_have_bias_and_coverage() -> None:
    found, _ = compare([BY_ID[H100_70B + x] for x in ("128/2048", "2048/128", "5000/500")])
    s = summarise(found)
    assert s.points == 3 and 0 <= s.inside <= 1
    assert s.median == pytest.approx(np.median([abs(p.relative) for p in found]))
    low, high = found[0].interval
    assert low < found[0].predicted < high
