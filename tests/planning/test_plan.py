"""Plans end to end: capacity, targets, limits, classes, traces, commands, files."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import costsim
from costsim.cli import cli
from costsim.errors import InputError
from costsim.models.loader import load_model
from costsim.planning.plan import Plan, load_plan, plan, plan_demands
from costsim.planning.plan_check import hours_to_check
from costsim.planning.plan_fleet import select_pools
from costsim.planning.plan_points import mean_batch
from costsim.planning.targets import Target
from costsim.planning.workload import Demand, demand_of, hours_of
from costsim.serving.traffic import generated

MODEL = "llama-3.1-8b"
PRICES = {"h100_sxm": {"on_demand": 3.0, "reserved_3y": 1.5, "spot": 1.2},
          "l40s": {"on_demand": 1.0}}  # fmt: skip
TARGET = Target(ttft_p99_s=1.0, tpot_p99_s=0.03)
FAST: dict[str, Any] = {"prices": PRICES, "compare": False, "check": False,
                        "disaggregated": False}  # fmt: skip
RATES = 40.0 * (0.6 + 0.4 * np.sin(np.arange(24) / 24 * 2 * np.pi))


@pytest.fixture(scope="module")
def checked() -> Plan:
    return plan(MODEL, ["h100_sxm", "l40s"], traffic=RATES, target=TARGET, isl=800, osl=150,
                prices=PRICES, requests=1500, disaggregated=False)  # fmt: skip


def test_every_hour_is_carried_and_paid(checked: Plan) -> None:
    fleet, found = checked.problem.fleet, checked.solution
    for h in range(24):
        carried = sum(p.capacity[0] * (found.replicas[c, h] + found.spot[c, h])
                      for c, p in enumerate(fleet.pools))  # fmt: skip
        assert carried >= fleet.demand[0, h] * (1 - 1e-6)
    assert found.lp_bound_usd <= found.bound_usd + 1e-6 <= checked.usd_per_month + 1e-3


def test_the_bill_adds_up_to_the_cent(checked: Plan) -> None:
    assert sum(checked.bill.values()) == Decimal(f"{checked.usd_per_month:.2f}")
    assert checked.usd_per_query * checked.queries_per_month == pytest.approx(
        checked.usd_per_month
    )
    by_demand = checked.usd_by_demand()[MODEL]
    assert by_demand == pytest.approx(checked.usd_per_query)


def test_the_simulated_targets_hold(checked: Plan) -> None:
    assert checked.holds
    measures = {row.measure for row in checked.held}
    assert measures == {"p99 TTFT", "p99 TPOT"}
    assert all(row.upper_s >= row.value_s for row in checked.held)


def test_runners_up_cost_more_and_say_why(checked: Plan) -> None:
    assert checked.runners_up
    for row in checked.runners_up:
        assert row.why
        assert np.isnan(row.usd_per_month) or row.usd_per_month >= checked.usd_per_month * 0.999


def test_worth_of_price_and_targets(checked: Plan) -> None:
    assert checked.worth is not None
    total = sum(checked.worth.price_1_percent_usd.values())
    assert total == pytest.approx(0.01 * checked.usd_per_month)
    assert checked.worth.tpot_1ms_usd >= -1e-6 and checked.worth.ttft_10ms_usd >= -1e-6


def test_repair_takes_capacity_until_targets_hold() -> None:
    """With an optimistic start the check fails, and the repaired plan holds and costs more."""
    tight = Target(ttft_p99_s=0.4, tpot_p99_s=0.012)
    free = plan(MODEL, ["h100_sxm"], traffic=1.0, target=tight, isl=1500, osl=100, **FAST)
    one = free.problem.fleet.pools[0].capacity[0]
    free = plan(MODEL, ["h100_sxm"], traffic=1.55 * one, target=tight, isl=1500, osl=100, **FAST)
    only = [i for i, p in enumerate(free.problem.everything.pools) if p.capacity[0] == one]
    pools = tuple(replace(p, capacity=tuple(1.6 * r for r in p.capacity))
                  for p in free.problem.everything.pools)  # fmt: skip
    from costsim.planning.plan_check import check_plan
    from costsim.planning.plan_fleet import solve_problem
    from costsim.planning.plan_repair import Repairer

    options = replace(free.options, requests=1500)
    problem = replace(free.problem, everything=replace(free.problem.everything, pools=pools),
                      chosen=tuple(only))  # fmt: skip
    found = solve_problem(problem, options)
    first, costs = check_plan(problem, found, options), [found.usd]
    held = first
    for _ in range(8):
        if all(row.held for row in held):
            break
        problem = Repairer(problem, found, options).repaired(held)
        found = solve_problem(problem, options)
        costs.append(found.usd)
        held = check_plan(problem, found, options)
    assert not all(row.held for row in first), "a capacity 60 % too high must be caught"
    assert all(row.held for row in held)
    assert costs[-1] > costs[0]


def test_more_load_and_tighter_targets_never_cost_less() -> None:
    def usd(rate: float, tpot: float) -> float:
        target = Target(ttft_p99_s=1.0, tpot_p99_s=tpot)
        return plan(MODEL, ["h100_sxm", "l40s"], traffic=rate, target=target, isl=800, osl=150,
                    **FAST).usd_per_month  # fmt: skip

    assert usd(20, 0.03) <= usd(60, 0.03) <= usd(60, 0.015) * (1 + 1e-3)


def test_chip_limits_spill_over_to_the_dearer_hardware() -> None:
    free = plan(MODEL, ["h100_sxm", "l40s"], traffic=200.0, target=TARGET, **FAST)
    name = max(free.chips(), key=lambda n: free.chips()[n].max())
    limited = plan(MODEL, ["h100_sxm", "l40s"], traffic=200.0, target=TARGET, limits={name: 2},
                   **FAST)  # fmt: skip
    assert limited.chips().get(name, np.zeros(1)).max() <= 2
    assert limited.usd_per_month > free.usd_per_month
    with pytest.raises(InputError, match="the chip limits"):
        plan(MODEL, ["h100_sxm"], traffic=500.0, target=TARGET, limits={"h100_sxm": 1}, **FAST)


def test_strict_and_mild_classes_share_a_fleet() -> None:
    strict = Demand("chat", MODEL, np.array([20.0]), 800, 150, target=Target(tpot_p99_s=0.015))
    mild = Demand("batch", MODEL, np.array([20.0]), 800, 150, target=Target(tpot_p99_s=0.2))
    from costsim.planning.plan_options import PlanOptions

    options = PlanOptions(**FAST)
    kinds = [costsim.load_hardware("h100_sxm")]
    models = {MODEL: load_model(MODEL)}
    both = plan_demands([strict, mild], models, kinds, options)
    for w in range(2):
        served = both.solution.served[w].sum()
        assert served == pytest.approx(20.0)
    # a pool made for the mild class never serves the strict one
    for candidate, pool in zip(both.problem.candidates, both.problem.everything.pools, strict=True):
        if candidate.tpot_s > 0.0151:
            assert pool.capacity[0] == 0
    alone = sum(plan_demands([d], models, kinds, options).usd_per_month for d in (strict, mild))
    assert both.usd_per_month <= alone * (1 + 1e-3)


@pytest.mark.theory
def test_mean_batch_is_the_square_root_rule() -> None:
    from scipy.stats import poisson

    for limit in (16.0, 100.0, 1000.0):
        mean = float(mean_batch(limit))
        assert mean + 2.326 * np.sqrt(mean) == pytest.approx(limit)
        assert 0.98 <= poisson.cdf(limit, mean) <= 0.998


def test_pools_left_out_are_never_cheaper(checked: Plan) -> None:
    everything = checked.problem.everything
    chosen = select_pools(everything)
    assert chosen and len(chosen) <= len(everything.pools)


def test_demand_of_traces_and_tables() -> None:
    day = np.sort(np.random.default_rng(1).uniform(0, 86_400, 5000))
    flow = generated(day, 300, 40)
    demand = demand_of(flow, MODEL)
    assert len(demand.rates) == 24 and demand.rates.sum() * 3600 == pytest.approx(5000, rel=0.01)
    assert (demand.isl, demand.osl) == (300, 40)
    short = demand_of(generated(np.arange(0, 1000, 0.5), 300, 40), MODEL)
    assert len(short.rates) == 1 and short.rates[0] == pytest.approx(2.0)
    made = demand_of({"arrivals": "poisson", "rate": 5.0, "requests": 400, "input_tokens": 100,
                      "output_tokens": 10}, MODEL)  # fmt: skip
    assert made.rates[0] == pytest.approx(5.0, rel=0.2)
    rates, weights = hours_of([short, demand])
    assert rates.shape == (2, 24) and weights.sum() == pytest.approx(730.5)
    again = demand.requests(3.0, 200, seed=1)
    assert len(again) == 200 and again.rate == pytest.approx(3.0)


def test_json_is_complete(checked: Plan) -> None:
    from costsim.cli.options import dump

    data = json.loads(dump(checked.as_dict()))
    assert data["holds"] is True and data["operating_points_considered"] > 1000
    assert len(data["hours"]) == 24 and data["pools"][0]["commands"]["vllm"][0].startswith("vllm")
    own = data["break_even"]["options"][0]
    assert own["name"].startswith("own") and own["capital_usd"] > 0


FILE = """
terms = ["on_demand", "reserved_3y"]
cold_start_s = 60
uncertainty = { traffic_growth = [0.9, 1.3], price_of_h100_sxm = 1.0 }
[redundancy]
spare = 1
[[hardware]]
name = "h100_sxm"
limit = 32
prices = { on_demand = 3.0, reserved_3y = 1.5 }
[[demands]]
name = "chat"
model = "llama-3.1-8b"
isl = 800
osl = 150
growth = 0.5
target = { ttft_p99_s = 1.0, tpot_p99_s = 0.03 }
[demands.weekdays]
weekday = [4,4,4,4,4,4,8,12,16,20,20,20,20,20,20,20,16,12,8,8,8,4,4,4]
weekend = [4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,4,4]
"""


def test_plan_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(FILE)
    demands, hardware, options = load_plan(path)
    assert len(demands[0].rates) == 168 and demands[0].rates.max() == pytest.approx(30.0)
    assert demands[0].rates[24 * 5 + 12] == pytest.approx(6.0)
    assert options.spare == 1 and options.limits == {"h100_sxm": 32.0}
    assert hardware[0].name == "h100_sxm"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("growth = 0.5", "grwth = 0.5", "did you mean 'growth'"),
        ("limit = 32", "limit = -1", "limit"),
        ('model = "llama-3.1-8b"', 'model = "llama-3.1-8b"\nrate = 3', "give one of rate"),
        ("weekend = [4,", "weekend = [", "24 rates"),
        ('"reserved_3y"]', '"reserved"]', "reserved_3y"),
        ("ttft_p99_s = 1.0", "ttft_p99_s = -1.0", "greater than 0"),
        ('name = "h100_sxm"', 'name = "h100"', "did you mean|unknown"),
        ("[0.9, 1.3]", "[1.3, 0.9]", "traffic_growth|must be below"),
    ],
)
def test_mistakes_in_a_file_are_one_line(
    tmp_path: Path, before: str, after: str, words: str
) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(FILE.replace(before, after, 1))
    with pytest.raises(InputError, match=words) as caught:
        load_plan(path)
    assert "\n" not in str(caught.value)


def test_command_line_writes_everything(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(cli, [
        "plan", "--model", MODEL, "--hardware", "h100_sxm,l40s:8", "--rate", "20", "--ttft", "1s",
        "--tpot", "30ms", "--no-check", "--uncertainty", "--draws", "256", "--json", "--output",
        str(out),
    ])  # fmt: skip
    assert result.exit_code == 0, result.output
    data = json.loads(result.output)
    assert 0 <= data["uncertainty"]["holds"] <= 1
    names = {p.name for p in out.iterdir()}
    assert {"plan.json", "hours.png", "hours.svg", "waterfall.png", "tornado.png",
            "break_even.png", "pool_1.yaml", "pool_1.sh"} <= names  # fmt: skip


def test_command_line_prints_tables() -> None:
    result = CliRunner().invoke(cli, [
        "plan", "--model", MODEL, "--hardware", "h100_sxm", "--rate", "20", "--ttft", "1s",
        "--tpot", "30ms", "--no-check",
    ])  # fmt: skip
    assert result.exit_code == 0, result.output
    for words in ("gap to the LP bound", "a month", "vllm serve", "What a little more saves"):
        assert words in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give a file, or --model"),
        (["--model", MODEL, "--rate", "3"], "--hardware is needed"),
        (["--model", MODEL, "--hardware", "h100_sxm"], "give --rate or --trace"),
        (["--model", MODEL, "--hardware", "h100_sxm", "--rate", "x"], "must be a number"),
        (["--model", MODEL, "--hardware", "h100_sxm", "--rate", "-3"], "not negative"),
        (["--model", MODEL, "--hardware", "h100_sxm:x", "--rate", "3"], "must be a number"),
        (["--model", MODEL, "--hardware", "h100_sxm", "--rate", "3", "--terms", "on_demnd"],
         "did you mean 'on_demand'"),
        (["--model", MODEL, "--hardware", "h100_sxm,h100_sxm", "--rate", "3"], "given twice"),
        (["--model", "llama-3.1-405b", "--hardware", "l4", "--rate", "3", "--tpot", "1ms"],
         "served by none"),
    ],
)  # fmt: skip
def test_bad_options_are_one_line(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(cli, ["plan", *arguments])
    assert result.exit_code != 0
    message = str(result.exception) + result.output
    assert words in message and "Traceback" not in result.output


def test_nothing_running_in_an_hour_is_not_checked(checked: Plan) -> None:
    runs = hours_to_check(checked.problem, checked.solution, checked.options)
    assert runs and all(run.replicas >= 1 and sum(run.rates) > 0 for run in runs)
