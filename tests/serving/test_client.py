"""A client that limits what is in flight: the queue in front of it is the client's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costsim.errors import InputError
from costsim.serving.pool import ReplicaSpec
from costsim.serving.results import SimulationResult
from costsim.serving.scheduler import Scheduler
from costsim.serving.simulation import simulate
from costsim.serving.step_cost import AffineCost
from costsim.serving.traffic import Sessions, generated


def _run(arrivals: np.ndarray, limit: int, output: np.ndarray, mode: str = "fast",
         **more: np.ndarray) -> SimulationResult:
    spec = ReplicaSpec(AffineCost(0.002, 1e-5, 1e-8, 1e-5), 100_000, Scheduler(max_num_seqs=512))
    traffic = generated(arrivals, 50, output, max_in_flight=limit, columns=dict(more))
    return simulate(spec, traffic, mode=mode, invariants=True)


def _most_in_flight(found: SimulationResult) -> int:
    sent, done = np.sort(found.table["arrival"]), np.sort(found.table["finished"])
    return max(i + 1 - int(np.searchsorted(done, t, side="right")) for i, t in enumerate(sent))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 99))
def test_never_more_than_the_limit_and_every_request_is_served(
    limit: int, many: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    due = np.sort(rng.uniform(0, 0.5, many))
    output = rng.integers(1, 60, many)
    found = _run(due, limit, output)
    assert len(found) == many and np.all(np.isfinite(found.table["finished"]))
    assert _most_in_flight(found) <= limit
    assert np.array_equal(found.table["output"], output)
    assert np.all(np.sort(found.table["arrival"]) >= due - 1e-12)


def test_a_place_goes_to_the_next_the_moment_it_is_free() -> None:
    found = _run(np.zeros(30), 3, np.full(30, 20))
    done, sent = np.sort(found.table["finished"]), np.sort(found.table["arrival"])
    assert np.allclose(sent[3:], done[:-3])


def test_fast_and_step_by_step_agree() -> None:
    output = np.random.default_rng(1).integers(1, 80, 60)
    due = np.linspace(0, 0.3, 60)
    quick, slow = (_run(due, 7, output, mode) for mode in ("fast", "steps"))
    for name in ("arrival", "first_token", "finished"):
        assert np.allclose(quick.table[name], slow.table[name])


def test_a_limit_above_all_requests_changes_nothing() -> None:
    due, output = np.linspace(0, 1, 20), np.full(20, 30)
    free, held = _run(due, 0, output), _run(due, 20, output)
    assert np.allclose(free.table["finished"], held.table["finished"])


def test_further_columns_go_with_their_requests() -> None:
    rank = np.arange(12)
    found = _run(np.zeros(12), 4, np.full(12, 5), priority=rank)
    assert np.array_equal(found.table["priority"], rank)


def test_sessions_make_their_own_loop() -> None:
    with pytest.raises(InputError, match="does not go with sessions"):
        generated(np.zeros(2), 10, 10, max_in_flight=1, sessions=Sessions(turns=2))
    with pytest.raises(InputError, match="must not be negative"):
        generated(np.zeros(2), 10, 10, max_in_flight=-1)
