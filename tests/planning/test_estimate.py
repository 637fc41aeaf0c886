"""An estimate's money and intervals agree with what they are made of."""

from __future__ import annotations

import math

import pytest

import costsim as cs
from costsim.errors import InputError

REQUEST = {"batch": 16, "isl": 1024, "osl": 256}


def test_cost_per_query_is_rent_over_throughput() -> None:
    e = cs.estimate("llama-3.1-70b", "h100_sxm", cs.Layout(tp=4), **REQUEST)
    per_second = 4 * float(e.rent.central) / 3600
    assert float(e.usd_per_query) == pytest.approx(per_second / float(e.requests_per_s), rel=1e-9)
    assert float(e.usd_per_million_tokens) == pytest.approx(
        float(e.usd_per_query) / 1280 * 1e6, rel=1e-9)


def test_price_range_widens_the_interval_of_cost_alone() -> None:
    e = cs.estimate("llama-3.1-70b", "h100_sxm", cs.Layout(tp=4), **REQUEST)
    below, above = e.rent.log_error
    speed = e.requests_per_s.log_error_low
    assert above > 0
    assert e.usd_per_query.log_error_high == pytest.approx(math.hypot(speed, above))
    assert e.usd_per_query.log_error_low == pytest.approx(math.hypot(speed, below))


def test_operators_of_a_decode_step_add_up() -> None:
    d = cs.estimate("mixtral-8x7b", "h100_sxm", **REQUEST).as_dict()
    operators, resources = d["decode_step_by_operator_s"], d["decode_step_by_resource_s"]
    assert isinstance(operators, dict) and isinstance(resources, dict)
    assert sum(operators.values()) == pytest.approx(sum(resources.values()), rel=1e-6)


def test_smallest_layout_holds_the_model_and_half_of_it_does_not() -> None:
    e = cs.estimate("llama-3.1-70b", "h100_sxm", **REQUEST)
    count = int(e.deployment.accelerators)
    assert count > 1
    with pytest.raises(InputError):
        cs.estimate("llama-3.1-70b", "h100_sxm", cs.Layout(tp=count // 2), **REQUEST)


def test_rumours_show_in_the_provenance() -> None:
    assert "rumoured" in cs.estimate("gpt-4", "b200_sxm", **REQUEST).provenance
    assert "rumoured" not in cs.estimate("llama-3.1-8b", "b200_sxm", **REQUEST).provenance
