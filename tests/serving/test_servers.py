"""Real vLLM servers, replayed from their kernel profiles alone; nothing is fitted to requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from costsim.validation.serving import replay, report

pytestmark = pytest.mark.published
DENSE = "serving/rtxpro6000-Llama-3.1-8B"
SPARSE = "serving/rtxpro6000-Qwen3-30B-A3B-Instruct-2507"
LIMITS = {
    ("tpot_s", "mean"): 0.03, ("e2e_s", "p50"): 0.05, ("e2e_s", "p90"): 0.05,
    ("ttft_s", "p50"): 0.15,
}  # fmt: skip


@pytest.mark.parametrize("name", [DENSE, SPARSE])
def test_times_of_a_real_server(shared_data: Path, name: str) -> None:
    found = replay(shared_data / name)
    for (figure, statistic), limit in LIMITS.items():
        assert abs(found.error(figure, statistic)) < limit, (figure, statistic)
    assert abs(found.error("duration_s")) < 0.02


def test_an_accelerator_a_tenth_faster_is_caught(shared_data: Path) -> None:
    assert abs(replay(shared_data / DENSE, speed=1.1).error("tpot_s", "mean")) > 0.03


def test_the_report_stands_beside_the_published_error(shared_data: Path) -> None:
    text = report(shared_data / "serving")
    assert "LLMServingSim" in text and "-1.7 %" in text
