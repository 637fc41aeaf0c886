"""Studies of scenarios: shapes of demand, quality by laws, and that every scenario answers."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costsim.errors import InputError
from costsim.models.loader import load_model
from costsim.planning.results import ScenarioResult
from costsim.planning.run import run_scenario
from costsim.planning.scenario import list_scenarios, load_scenario
from costsim.planning.studies.combinations import price_ratio
from costsim.planning.studies.fleet import hourly_rates
from costsim.planning.studies.quality import dense_equal, design_of
from costsim.planning.studies.run import run_study
from costsim.planning.studies.seats import zoned_rates
from costsim.planning.studies.sparse_kernels import measured
from costsim.reports.pages import write_index, write_page
from costsim.sparsity.forms import Design
from costsim.sparsity.laws import load_law

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(path.stem for path in (ROOT / "scenarios").glob("*.toml"))
OFFICE = [0.0] * 9 + [1.0] * 8 + [0.0] * 7


@given(st.lists(st.floats(0.0, 10.0), min_size=24, max_size=24).filter(lambda x: sum(x) > 0.1))
def test_a_day_holds_all_its_queries(shape: list[float]) -> None:
    rates = hourly_rates(1e6, 3.0, shape)
    assert rates.sum() * 3600.0 == pytest.approx(3e6)


def test_zones_keep_the_week_and_flatten_the_peak() -> None:
    zones = [SimpleNamespace(name=str(h), share=0.5, utc_offset=h) for h in (-8, 8)]
    rates = zoned_rates(1e6, 10.0, zones, OFFICE, 0.0)
    one = zoned_rates(1e6, 10.0, zones[:1], OFFICE, 0.0)
    assert rates.shape == (168,)
    assert rates.sum() * 3600.0 == pytest.approx(5 * 1e7) == one.sum() * 3600.0
    assert rates.max() < 0.7 * one.max()
    # 9 o'clock at UTC-8 is 17 o'clock UTC: the first working hour of Monday.
    assert np.flatnonzero(one)[0] == 17


def test_a_dense_model_equals_itself_by_every_law() -> None:
    model = load_model("llama-3.1-70b")
    design = design_of(model, 15e12)
    for name in ("ludziejewski", "abnar", "krajewski", "clark_s_base"):
        law = load_law(name)
        size = dense_equal(law, float(law.predict(design)), 15e12)
        assert size == pytest.approx(float(design.active), rel=0.01)
    assert math.isnan(dense_equal(load_law("abnar"), 0.1, 15e12))


def test_design_of_a_mixture() -> None:
    design = design_of(load_model("mixtral-8x7b"), 1e12)
    assert isinstance(design, Design)
    assert float(design.experts) == 4.0  # 8 experts, top 2
    assert design.total > 3 * design.active
    fine = design_of(load_model("deepseek-v3"), 1e12)
    assert float(fine.granularity) > 10 and 25 < float(fine.experts) < 32


def test_public_price_of_a_query_fell_two_and_a_half_times() -> None:
    scenario = load_scenario("gpt4_turbo")
    chat = scenario.workloads[0]
    ratio = price_ratio(ScenarioResult(scenario), "gpt-4 (8k)",
                        "gpt-4-1106-preview (GPT-4 Turbo)", chat)
    assert ratio == pytest.approx((1000 * 30 + 300 * 60) / (1000 * 10 + 300 * 30))
    with pytest.raises(InputError, match="did you mean"):
        price_ratio(ScenarioResult(scenario), "gpt-4 (8k", "gpt-4 (8k)", chat)


def test_measured_table_of_sparse_products() -> None:
    rows = measured()
    assert len(rows) >= 50
    for row in rows:
        assert row["speed_up"] == pytest.approx(row["dense_s"] / row["latency_s"], rel=0.01)
    dense = [r for r in rows if r["density"] == 0.5]
    thin = [r for r in rows if r["density"] == 0.05]
    assert np.mean([r["speed_up"] for r in thin]) > np.mean([r["speed_up"] for r in dense])


@pytest.mark.parametrize("name", SHIPPED)
def test_every_scenario_has_studies_assumptions_and_a_page(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.studies and scenario.assumptions
    page = (ROOT / "docs" / "scenarios" / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {scenario.title}")
    for study in scenario.studies:
        assert study.title in page
    for model in scenario.models:
        if model.model.provenance == "rumoured":
            assert "rumoured" in page


def test_all_that_the_question_asks_for_ship() -> None:
    asked = {"gpt4", "arrakis", "gpt4_turbo", "gobi", "chatgpt", "office365", "open_source",
             "google_sparse", "sparse_kernels"}
    assert asked <= set(list_scenarios())


@pytest.fixture(scope="module")
def gobi() -> ScenarioResult:
    return run_scenario(load_scenario("gobi"))


def test_images_cost_what_their_tokens_and_tower_take(gobi: ScenarioResult) -> None:
    (study,) = gobi.studies
    assert study.chart is not None
    for series in study.chart.series:
        text, one, four = series.y
        assert text < one < four
        # An image costs about the same, alone or with three more.
        assert (four - text) / 4 == pytest.approx(one - text, rel=0.5)
    assert len(study.findings) == 3


def test_pages_are_written_from_results(gobi: ScenarioResult, tmp_path: Path) -> None:
    page = write_page(gobi, tmp_path / "none", tmp_path / "docs" / "scenarios")
    text = page.read_text(encoding="utf-8")
    assert "STALE" not in text and "--pages docs/scenarios" in text
    for line in [*gobi.findings, *gobi.studies[0].findings]:
        assert line in text
    index = write_index([gobi], page.parent).read_text(encoding="utf-8")
    assert "(gobi.md)" in index


def test_skew_and_width_of_expert_parallelism_are_priced() -> None:
    scenario = load_scenario("arrakis")
    row = next(s for s in scenario.studies if s.kind == "breakers")
    small = row.model_copy(update={"models": ["wide64"], "routing_alpha": [0.8],
                                   "batches": [1, 64], "ep": [64, 128], "hardware": "b200_sxm"})
    found = run_study(ScenarioResult(scenario), small)
    cost = {r[1]: r[2] for r in found.rows}
    assert float(cost["load of experts ∝ rank^-0.8"]) > 0
    assert any(name.startswith("TP8 EP") for name in cost)
    with pytest.raises(InputError, match="model of a study"):
        run_study(ScenarioResult(scenario), small.model_copy(update={"models": ["wide65"]}))


def test_training_takes_a_price_an_hour() -> None:
    scenario = load_scenario("google_sparse")
    row = next(s for s in scenario.studies if s.kind == "training")
    two = run_study(ScenarioResult(scenario),
                    row.model_copy(update={"models": ["gpt3"], "price": "$2/h"}))
    one = run_study(ScenarioResult(scenario),
                    row.model_copy(update={"models": ["gpt3"], "price": "$1/h"}))
    assert two.chart and one.chart
    assert two.chart.series[0].y[0] == pytest.approx(2 * one.chart.series[0].y[0])


def test_a_study_with_a_wrong_key_is_refused(tmp_path: Path) -> None:
    text = (ROOT / "scenarios" / "gobi.toml").read_text(encoding="utf-8")
    path = tmp_path / "bad.toml"
    path.write_text(text.replace('kind = "increments"', 'kind = "increment"'))
    with pytest.raises(InputError, match="increment"):
        load_scenario(path)
    path.write_text(text.replace('unit = "an image"', 'units = "an image"'))
    with pytest.raises(InputError, match="unit"):
        load_scenario(path)
    office = (ROOT / "scenarios" / "office365.toml").read_text(encoding="utf-8")
    path.write_text(office.replace('licensed = "licensed"', 'licensed = "licensd"'))
    with pytest.raises(InputError, match=r"key 'licensed'.*did you mean 'licensed'"):
        load_scenario(path)
    path.write_text(office.replace('api = "gpt-4-turbo"', 'api = "gpt-5-turbo"'))
    with pytest.raises(InputError, match="key 'api'"):
        load_scenario(path)
