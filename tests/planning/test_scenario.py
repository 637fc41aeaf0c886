"""Scenario files: those that ship, the one in the docs, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from costsim.errors import InputError
from costsim.models.count import active_parameters, total_parameters
from costsim.planning.run import run_scenario
from costsim.planning.scenario import list_scenarios, load_scenario

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "scenarios.md").read_text(encoding="utf-8")


def _example() -> str:
    found = re.search(r"<!-- example -->\s*```toml\n(.+?)```", PAGE, re.S)
    assert found is not None
    return found.group(1)


@pytest.mark.parametrize("name", list_scenarios())
def test_shipped_scenarios_load_and_say_their_question(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.question.endswith("?") or "?" in scenario.question
    assert scenario.source


def test_variants_of_arrakis_keep_what_they_promise() -> None:
    models = {m.key: m.model for m in load_scenario("arrakis").models}
    total, active = total_parameters(models["gpt4"]), active_parameters(models["gpt4"])
    for key in ("sparse64", "sparse128", "sparse256"):
        assert float(total_parameters(models[key])) == pytest.approx(float(total), rel=0.03)
        assert float(active_parameters(models[key])) < float(active)
    for key in ("wide64", "dense_active"):
        assert float(active_parameters(models[key])) == pytest.approx(float(active), rel=0.03)


def test_the_example_of_the_docs_runs(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(_example(), encoding="utf-8")
    result = run_scenario(load_scenario(path))
    assert len(result.cells) == 2
    assert any("chat on h100_sxm" in line for line in result.findings)


def test_the_docs_name_every_key() -> None:
    from costsim.planning import scenario_schema as s

    for table in (s.ModelRow, s.HardwareRow, s.WorkloadRow, s.TargetTable, s.ScenarioTable,
                  s.ImagesTable, s.ApiPriceRow):
        for key in table.model_fields:
            assert key in PAGE, f"{table.__name__}.{key}"


@pytest.mark.parametrize(("old", "new", "message"), [
    ('key = "moe"', 'key = "dense"', "stands twice"),
    ('title = "Mixtral', 'baseline = "x"\ntitle = "Mixtral', "baseline"),
    ('model = "mixtral-8x7b"', 'variant_of = "later"\nexperts = 8\ntop_k = 2', "variant_of"),
    ('model = "mixtral-8x7b"', 'variant_of = "dense"', "experts"),
    ("limit = 16", "limit = 0", "limit"),
    ("isl = 1000", 'isl = "3 s"', "isl"),
    ('precision = "fp8"', 'precision = "fp9"', "fp9"),
])
def test_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(_example().replace(old, new), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_scenario(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
