"""Predictions of the measured serving points stay as near as they are, on rows never fitted on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from costsim.engine.deployment import Deployment
from costsim.validation import silicon as module
from costsim.validation.silicon import Prediction, predict, summaries
from costsim.validation.silicon_points import ServingPoint, read_points


@pytest.fixture(scope="module")
def held_out(silicon: Path) -> list[ServingPoint]:
    """Every fourth odd row, in the order of the file."""
    points, _ = read_points(silicon / "systems" / "silicon_sample.csv")
    return [p for p in points if not p.fit][::4]


def _predicted(points: list[ServingPoint]) -> list[Prediction]:
    found, left = predict(points)
    assert len(found) >= 0.95 * len(points), [each.reason for each in left[:5]]
    return found


def test_held_out_rows(held_out: list[ServingPoint]) -> None:
    found = summaries(_predicted(held_out))
    assert found["tpot"].median < 0.12 and found["tpot"].p90 < 0.38
    assert found["throughput"].median < 0.13
    assert found["ttft"].median < 0.30
    assert all(0.80 <= each.inside <= 0.97 for each in found.values())


def test_half_the_bandwidth_is_caught(
    held_out: list[ServingPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: memory at half its rate."""
    plain = module.deployment_of

    def slow(*arguments: object) -> Deployment:
        deployment = plain(*arguments)  # type: ignore[arg-type]
        hardware = deployment.hardware
        half = hardware.memory_bandwidth_bytes_per_s / 2.0
        return replace(deployment, hardware=hardware.with_fields(
            memory_bandwidth_bytes_per_s=half))

    monkeypatch.setattr(module, "deployment_of", slow)
    assert summaries(_predicted(held_out))["tpot"].median > 0.2
