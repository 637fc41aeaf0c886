"""Executors give the same results everywhere; studies resume; a killed worker loses nothing."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from costsim.errors import InputError
from costsim.planning.executor import (
    DaskExecutor,
    Executor,
    ProcessExecutor,
    SerialExecutor,
    WorkerLostError,
    make_executor,
    mapped,
)
from costsim.planning.study import Study, opened, run_study, task_key

REPOSITORY = Path(__file__).resolve().parents[2]


def square(value: float) -> float:
    return value * value


def slow_square(task: dict[str, Any]) -> float:
    """Note each run in a file, and kill the own process where told to, once."""
    with open(task["log"], "a") as file:
        file.write(f"{task['value']}\n")
    victim = Path(task["log"] + ".killed")
    if task.get("kill") and not victim.exists():
        victim.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(task.get("sleep", 0.0))
    return float(task["value"]) ** 2


def faulty(value: float) -> float:
    raise InputError(f"no square of {value}")


def make_tasks(log: Path, count: int, **extra: Any) -> list[dict[str, Any]]:
    return [{"value": v, "log": str(log), **extra} for v in range(count)]


def runs(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split()]


@pytest.mark.parametrize("make", [SerialExecutor, lambda: ProcessExecutor(2)],
                         ids=["serial", "processes"])  # fmt: skip
def test_every_executor_gives_the_same_results(make: Any) -> None:
    executor: Executor = make()
    assert mapped(executor, square, [1.0, 2.0, 3.0]) == [1.0, 4.0, 9.0]
    with pytest.raises(InputError, match=r"no square of 1\.0"):
        mapped(executor, faulty, [1.0])
    executor.close()


def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    tasks = make_tasks(log, 8)
    tasks[3]["kill"] = True
    executor = ProcessExecutor(2)
    with opened(tmp_path / "study.sqlite") as study:
        assert run_study(study, slow_square, tasks, executor) == [float(v * v) for v in range(8)]
        assert study is not None and len(study) == 8
    executor.close()
    assert runs(log).count(3) >= 2  # it ran again


def kill_always(value: float) -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    return value


def test_a_task_that_always_kills_its_worker_is_given_up() -> None:
    executor = ProcessExecutor(1)
    with pytest.raises(WorkerLostError, match="lose their worker process"):
        mapped(executor, kill_always, [1.0])
    executor.close()


def test_a_study_resumes_and_recomputes_nothing(tmp_path: Path) -> None:
    log, file = tmp_path / "log", tmp_path / "study.sqlite"
    tasks = make_tasks(log, 6)
    with opened(file) as study:
        run_study(study, slow_square, tasks[:4])
    seen: list[tuple[int, int]] = []
    with opened(file) as study:
        found = run_study(study, slow_square, tasks, progress=lambda a, b: seen.append((a, b)))
    assert found == [float(v * v) for v in range(6)]
    assert runs(log) == [0, 1, 2, 3, 4, 5]
    assert seen == [(5, 6), (6, 6)]


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_executor as t
from costsim.planning.study import Study, run_study
run_study(Study({file!r}), t.slow_square, t.make_tasks(Path({log!r}), 30, sleep=0.05))
"""


def test_a_study_killed_half_way_resumes(tmp_path: Path) -> None:
    log, file = tmp_path / "log", tmp_path / "study.sqlite"
    script = SCRIPT.format(tests=str(Path(__file__).parent), file=str(file), log=str(log))
    process = subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (log.exists() and len(runs(log)) >= 5):
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = runs(log)
    assert 5 <= len(before) < 30
    # the function's name is the module's as the script imported it
    import importlib

    sys.path.insert(0, str(Path(__file__).parent))
    module = importlib.import_module("test_executor")
    sys.path.pop(0)
    with opened(file) as study:
        found = run_study(study, module.slow_square, make_tasks(log, 30, sleep=0.05))
    assert found == [float(v * v) for v in range(30)]
    again = runs(log)[len(before):]
    assert len(set(before) & set(again)) <= 1  # at most the one that was under way


def test_keys_tell_functions_and_arguments_apart() -> None:
    assert task_key(square, 1.0) != task_key(square, 2.0)
    assert task_key(square, 1.0) != task_key(faulty, 1.0)
    assert task_key(square, {"a": 1, "b": 2}) == task_key(square, {"b": 2, "a": 1})


def test_bad_studies_and_executors(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no database " * 100)
    with pytest.raises(InputError, match="cannot be used as a study"):
        Study(text)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("create table results (a integer)")
    with pytest.raises(InputError, match="cannot be used as a study"):
        Study(other)
    with pytest.raises(InputError, match="must not be negative"):
        make_executor(workers=-1)


@pytest.mark.slow
def test_dask_cluster_survives_a_killed_worker(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="extra 'distributed' not installed")
    log = tmp_path / "log"
    executor = DaskExecutor("local", workers=2)
    try:
        assert sorted(mapped(executor, square, [1.0, 2.0])) == [1.0, 4.0]
        tasks = make_tasks(log, 10, sleep=0.05)
        tasks[4]["kill"] = True
        with opened(tmp_path / "study.sqlite") as study:
            found = run_study(study, slow_square, tasks, executor)
            assert found == [float(v * v) for v in range(10)]
            assert study is not None and len(study) == 10
        assert Path(str(log) + ".killed").exists()
    finally:
        executor.close()


def test_no_scheduler_is_one_line() -> None:
    pytest.importorskip("distributed", reason="extra 'distributed' not installed")
    with pytest.raises(InputError, match="no Dask scheduler answers"):
        DaskExecutor("tcp://127.0.0.1:9", timeout_s=1.0)
