"""The published recipes tell the deployments behind the measured serving points."""

from __future__ import annotations

import csv
import datetime
from dataclasses import replace
from pathlib import Path

from costsim.validation.silicon_points import read_points
from costsim.validation.silicon_recipes import Run, candidates, load_recipes, told
from costsim.validation.silicon_setups import is_public, run_of, whole

# github.com/SemiAnalysisAI/InferenceX, dsr1-fp4-gb200-dynamo-trt, 1024/1024, "c24": one prefill
# worker of four GPUs and four decode workers of eight, with (mtp3) and without drafting.
RUN = Run("trtllm", "gb200", "dsr1", "fp4", 1024, 1024, 24, 4, 8, 4, None,
          "tensorrtllm-runtime:0.8.1.post2", datetime.date(2026, 3, 23), (0.221, 0.00747))


def test_recipes_are_whole() -> None:
    recipes = [(c, r) for rows in load_recipes().values() for c, r in rows]
    assert len(recipes) > 1000
    for concurrency, recipe in recipes:
        assert concurrency and recipe.first <= recipe.last and recipe.image
        for pool in (recipe.prefill, recipe.decode):
            assert pool is None or (pool.count > 0 and pool.gpus > 0 and pool.experts > 0)


def test_one_deployment_with_and_without_drafting_is_left() -> None:
    found, own = candidates(RUN)
    assert own
    assert {r.draft_tokens for r in found} == {0, 3}
    for recipe in found:
        assert recipe.prefill is not None
        assert (recipe.prefill.count, recipe.prefill.gpus) == (1, 4)
        assert (recipe.decode.count, recipe.decode.gpus) == (4, 8)
        assert not recipe.decode.data_parallel


def test_the_faster_of_two_runs_drafts() -> None:
    fast = replace(RUN, times=(0.288, 0.00432))
    slow, quick = told([RUN, fast])
    assert slow and quick and not slow.assumed and not quick.assumed
    assert (slow.recipe.draft_tokens, quick.recipe.draft_tokens) == (0, 3)


def test_a_run_known_not_to_draft_makes_the_other_draft() -> None:
    """Also where it was the faster one: what is known beats the order."""
    fast = replace(RUN, times=(0.288, 0.00432))
    first, second = told([RUN, fast], plain=[fast.times])
    assert first and second
    assert (first.recipe.draft_tokens, second.recipe.draft_tokens) == (3, 0)


def test_a_run_on_its_own_is_marked() -> None:
    (alone,) = told([RUN])
    assert alone and alone.recipe.draft_tokens == 0 and "drafting" in alone.assumed


def test_unknown_load_takes_its_neighbour_and_says_so() -> None:
    (found,) = told([replace(RUN, concurrency=29)])
    assert found and "neighbour" in found.assumed


def test_recorded_workers_agree_with_the_recipes(silicon: Path) -> None:
    """The dump records workers: recipes found for rows of the same runs without them agree."""
    with (silicon / "systems" / "silicon_sample.csv").open(encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["mode"] == "disagg" and is_public(r)]
    runs = [run_of(r) for r in rows]
    counts = {run.times: (whole(row["prefill_num_workers"]), whole(row["decode_num_workers"]))
              for run, row in zip(runs, rows, strict=True) if row["prefill_num_workers"]}
    found = [(each.recipe, counts[run.times])
             for run, row, each in zip(runs, rows, told(runs, counts), strict=True)
             if each and not each.assumed and run.times in counts
             and not row["prefill_num_workers"]]
    agreeing = sum((recipe.prefill and recipe.prefill.count, recipe.decode.count) == count
                   for recipe, count in found)
    assert len(found) > 200 and agreeing > 0.95 * len(found)


def test_few_rows_stay_open(silicon: Path) -> None:
    points, _ = read_points(silicon / "systems" / "silicon_sample.csv")
    pools = [p for p in points if p.layout is None]
    assert sum(bool(p.assumed) for p in pools) < 0.15 * len(pools)
    assert sum(p.decode is not None and p.decode.workers is None for p in pools) < 20
