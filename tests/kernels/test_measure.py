"""Measuring this machine: what is timed is right, interrupts lose nothing, noise is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from costsim.errors import InputError
from costsim.kernels.calibrate import calibrate
from costsim.kernels.measure.cases import QUICK, Grid, all_cases
from costsim.kernels.measure.extras import all_reduce_times, block_sparse, gather_scatter
from costsim.kernels.measure.journal import Journal
from costsim.kernels.measure.machine import Machine, this_machine
from costsim.kernels.measure.noise import NoiseReport
from costsim.kernels.measure.numpy_kernels import NumpyBackend
from costsim.kernels.measure.run import measure
from costsim.kernels.measure.timing import time_call

SMALL = Grid(
    rows=(1, 4, 16, 64), weights=((64, 64), (128, 64), (64, 128), (128, 128)),
    heads=((4, 2, 16),), batches=(1, 2), lengths=(8, 16, 32), contexts=(16, 32, 64),
    experts=((32, 16, 4, 2),), tokens=(1, 2, 4, 8, 16, 32),
    bytes=tuple(1 << i for i in range(12, 20)), flop=1e8)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty home of the user's profiles."""
    monkeypatch.setenv("COSTSIM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_kernels_take_turns_so_that_each_has_its_share() -> None:
    cases = all_cases(QUICK, ("fp32",))
    first = [c.operator for c in cases[:50]]
    assert min(first.count(o) for o in ("gemm", "moe", "attention_decode", "elementwise")) >= 9
    assert len({c.key for c in cases}) == len(cases)
    assert [c.key for c in cases] == [c.key for c in all_cases(QUICK, ("fp32",))]


def test_an_interrupted_run_goes_on_with_the_very_same_measurements(tmp_path: Path) -> None:
    backend, machine = NumpyBackend(1e6), this_machine()
    cases, path = all_cases(SMALL, backend.dtypes), tmp_path / "journal.jsonl"

    def stop(done: int, total: int, what: str) -> None:
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(backend, cases, machine, Journal.open(path, {"a": 1}), 0.0, progress=stop)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"key": "gemm{\\"k\\": 64')  # what a kill in the middle of a write leaves
    journal = Journal.open(path, {"a": 1})
    before = dict(journal.done)
    assert len(before) == 10
    found = measure(backend, cases, machine, journal, 0.0)
    assert found.taken_over == 10 and len(journal.done) == len(cases)
    assert {k: journal.done[k] for k in before} == before
    again = measure(backend, cases, machine, Journal.open(path, {"a": 1}), 0.0)
    for one, other in zip(found.tables, again.tables, strict=True):
        np.testing.assert_array_equal(one.latency_s, other.latency_s)


def test_another_machines_measurements_are_not_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal.open(path, {"machine": "a"}).add("x", quiet_s=1.0)
    assert Journal.open(path, {"machine": "b"}).done == {}


def test_no_case_starts_after_the_budget() -> None:
    backend = NumpyBackend(1e6)
    cases = all_cases(SMALL, backend.dtypes)
    journal = Journal(None, {})
    found = measure(backend, cases, this_machine(), journal, 0.0, total_budget_s=0.0)
    assert not journal.done and not found.tables


def test_timing_finds_the_length_of_a_call_and_its_quiet_half() -> None:
    now = [0.0]
    lengths = iter([1e-3] * 8 + [5e-3, 1e-3, 1e-3] * 200)

    def call() -> None:
        now[0] += next(lengths)

    timing = time_call(call, 0.05, clock=lambda: now[0])
    assert timing.median_s == pytest.approx(1e-3) and timing.quiet_s == pytest.approx(1e-3)


def test_a_noisy_machine_says_what_makes_it_so() -> None:
    machine = Machine("cpu", 8, 2, 2, 3e7, 1e10, {}, {"OMP_NUM_THREADS": "1"}, threads=1)
    noise = NoiseReport(notes=machine.notes(), load_average=3.0)
    for second, latency in enumerate([1.0, 1.2, 0.9, 1.3, 1.0, 1.4]):
        noise.add(float(second), latency)
    said = noise.sentence()
    for part in ("noisy machine", "SMT: 2 threads", "NUMA: 2 nodes", "OMP_NUM_THREADS=1",
                 "load average 3.0", "1.56 times", "processor time"):
        assert part in said, part
    quiet = NoiseReport()
    for second in range(6):
        quiet.add(float(second), 1.0 + 0.001 * (second % 2))
    assert quiet.sentence().startswith("quiet machine")


def test_block_sparse_products_are_those_of_the_dense_matrix() -> None:
    matrix = block_sparse(64, 16, 0.5)
    x = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
    np.testing.assert_allclose(matrix @ x, matrix.toarray() @ x, atol=1e-4)
    assert matrix.nnz == len(matrix.data) * 16 * 16 < 64 * 64


def test_tokens_come_back_from_their_experts_once_for_each() -> None:
    chosen = np.array([2, 0, 1, 0, 2, 1])
    x = np.arange(6.0).reshape(3, 2)
    np.testing.assert_allclose(gather_scatter(chosen, x), 2 * x)


def test_processes_reduce_together() -> None:
    ((small, _), (large, _)) = all_reduce_times(2, (1 << 12, 1 << 20), repeats=3)
    assert 0 < small < 1.0 and 0 < large < 1.0


def test_a_calibration_is_a_profile_for_every_other_command(home: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = calibrate(backend="numpy", name="mine", output=tmp_path / "out", grid=SMALL,
                       extras=False, threads=1,
                       progress=lambda done, total, what: seen.append((done, total)))
    assert result.missing == 0 and {r["operator"] for r in result.rows()} >= {"gemm", "moe"}
    assert seen[-1][0] < seen[-1][1] == len(all_cases(SMALL, ("fp32",)))
    assert not list((home / "journals").glob("*"))
    from costsim.hardware.loader import load_hardware
    from costsim.kernels.store import load_calibration

    hardware = load_hardware("mine")
    assert hardware.kind == "cpu" and load_calibration(hardware).provenance == "calibrated: mine"
    # Each kernel's rows come back through the project's own format.
    back = calibrate(source=str(tmp_path / "out" / "kernels.csv"), hardware="mine", name="again")
    assert {r["operator"] for r in back.rows()} == {r["operator"] for r in result.rows()}


@pytest.mark.parametrize(("arguments", "said"), [
    ({"device": "h100"}, "only 'local'"), ({"backend": "jax"}, "unknown backend"),
    ({"name": "h100_sxm"}, "take another"), ({"name": "a/b"}, "only letters"),
    ({"source": "none.csv"}, "--hardware"),
    ({"source": "none.csv", "hardware": "h100_sxm"}, "no such file"),
])
def test_what_cannot_be_calibrated_is_one_clear_line(
    home: Path, arguments: dict[str, str], said: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        calibrate(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_killed_command_leaves_a_journal_that_the_next_one_finishes(home: Path) -> None:
    """A real process, killed: the next run takes its measurements over."""
    command = [sys.executable, "-m", "costsim", "calibrate", "--backend", "numpy",
               "--threads", "1"]
    running = subprocess.Popen(command, env={**os.environ, "COSTSIM_HOME": str(home)},
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = home / "journals" / "local-numpy-cpu-quick.jsonl"
    until = time.monotonic() + 60.0
    while time.monotonic() < until and not (
            journal.is_file() and journal.read_bytes().count(b"\n") > 5):
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    kept = journal.read_bytes()
    machine = replace(this_machine(), threads=1)
    about = {"machine": machine.as_dict(), "backend": "numpy", "device": "cpu"}
    found = Journal.open(journal, about)
    assert len(found.done) >= 5 and journal.read_bytes() == kept
