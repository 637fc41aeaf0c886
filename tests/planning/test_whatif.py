"""What-ifs move what physics says they move, and refuse what they cannot read."""

from __future__ import annotations

import pytest

from costsim.engine.layout import Layout
from costsim.errors import InputError
from costsim.planning.estimate import make_deployment
from costsim.planning.whatif import parse_variation, whatif


def _values(text: str, field: str, batch: int = 16) -> list[float]:
    start = make_deployment("llama-3.1-70b", "h100_sxm", Layout(tp=4))
    found = whatif(start, text, batch=batch, isl=1024, osl=256)
    return [float(getattr(o.estimate, field)) for o in found.outcomes if o.estimate]


def test_ranges_have_equal_ratios() -> None:
    v = parse_variation("hbm_bandwidth=0.5x..2x:3")
    assert v.relative and v.field == "memory_bandwidth_bytes_per_s"
    assert v.values == pytest.approx((0.5, 1.0, 2.0))


def test_quantities_take_units() -> None:
    v = parse_variation("hardware.memory=80 GB,141 GB")
    assert not v.relative and v.values == pytest.approx((80e9, 141e9))


def test_factor_one_changes_nothing() -> None:
    start = make_deployment("llama-3.1-8b", "h100_sxm", Layout())
    for field in ("hbm_bandwidth", "peak", "price", "scale_up_bandwidth", "layers"):
        found = whatif(start, f"{field}=1x", batch=8, isl=512, osl=128)
        (only,) = found.outcomes
        assert only.estimate is not None
        assert float(only.estimate.usd_per_query) == pytest.approx(
            float(found.base.usd_per_query), rel=1e-12), field


def test_price_scales_cost_and_leaves_speed() -> None:
    cost = _values("price=1x,2x", "usd_per_query")
    speed = _values("price=1x,2x", "tpot_s")
    assert cost[1] == pytest.approx(2 * cost[0], rel=1e-9)
    assert speed[0] == pytest.approx(speed[1], rel=1e-12)


def test_an_absolute_price_is_paid_exactly() -> None:
    start = make_deployment("llama-3.1-70b", "h100_sxm", Layout(tp=4))
    found = whatif(start, "hardware.price=$2/h,$4/h", batch=16, isl=1024, osl=256)
    for usd, outcome in zip((2.0, 4.0), found.outcomes, strict=True):
        assert outcome.estimate is not None
        rate = float(outcome.estimate.requests_per_s)
        assert float(outcome.estimate.usd_per_query) == pytest.approx(4 * usd / 3600 / rate)


@pytest.mark.parametrize("text", ["hbm_bandwidth=0.5x,1x,2x", "peak=0.5x,1x,2x",
                                  "scale_up_bandwidth=0.5x,1x,2x"])
def test_faster_hardware_is_never_slower(text: str) -> None:
    tpot = _values(text, "tpot_s")
    assert tpot[0] >= tpot[1] >= tpot[2]


def test_decode_is_held_by_bandwidth_and_not_by_peak() -> None:
    half_bandwidth = _values("hbm_bandwidth=0.5x,1x", "tpot_s", batch=1)
    half_peak = _values("peak=0.5x,1x", "tpot_s", batch=1)
    assert half_bandwidth[0] / half_bandwidth[1] > 1.4
    assert half_peak[0] / half_peak[1] < 1.1


def test_what_cannot_run_keeps_its_row_and_reason() -> None:
    start = make_deployment("llama-3.1-70b", "h100_sxm", Layout(tp=4))
    found = whatif(start, "tp=1,3,4", batch=16, isl=1024, osl=256)
    assert [o.estimate is not None for o in found.outcomes] == [False, False, True]
    assert all(o.reason for o in found.outcomes[:2])


@pytest.mark.parametrize(("text", "message"), [
    ("hbm_bandwith=0.5x..2x", "did you mean"), ("tp=", "field=low..high"),
    ("peak=2x..1x", "must rise"), ("peak=1x..2x:1", "2 to 200"),
    ("precision.weights=fp9,fp8", "fp9"), ("hbm_bandwidth=3 TFLOP/s,4 TFLOP/s", "bandwidth"),
    ("batch=nan,2", "--vary"), ("price=0", "positive"), ("tp=-1,2", "--vary"),
])
def test_bad_variations(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_variation(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
