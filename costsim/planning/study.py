"""A study: many tasks whose results go into one SQLite file as they finish.

An interrupted study resumes and recomputes nothing: a task is known by its function and its
arguments, and one whose result is in the file is not run again.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from costsim import __version__
from costsim.errors import InputError
from costsim.planning.executor import Executor, SerialExecutor

_TABLE = """create table if not exists results (
    key text primary key, task text not null, result text not null, finished real not null)"""


def task_key(function: Callable[[Any], Any], description: Any) -> str:
    """Return what a task is known by: its function, its description and the package's version.

    Args:
        function: importable.
        description: plain data (numbers, words, lists, tables).
    """
    name = f"{function.__module__}:{getattr(function, '__qualname__', repr(function))}"
    text = json.dumps([name, description, __version__], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Study:
    """The results of a study in a SQLite file.

    Args:
        path: of the file; made where it is missing.

    Raises:
        InputError: the file is no study, or cannot be written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(self.path, timeout=30.0, isolation_level=None)
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = normal")
            self._db.execute(_TABLE)
            self._db.execute("select key, task, result, finished from results limit 1")
        except sqlite3.Error as error:
            raise InputError(f"{self.path}: cannot be used as a study: {error}") from None

    def __len__(self) -> int:
        return int(self._db.execute("select count(*) from results").fetchone()[0])

    def get(self, key: str) -> Any:
        """Return the result of a key, or raise KeyError."""
        row = self._db.execute("select result from results where key = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        return json.loads(row[0])

    def put(self, key: str, description: Any, result: Any) -> None:
        """Write one result; it is on disk when this returns."""
        row = (key, json.dumps(description, sort_keys=True), json.dumps(result), time.time())
        self._db.execute("insert or replace into results values (?, ?, ?, ?)", row)

    def __contains__(self, key: str) -> bool:
        found = self._db.execute("select 1 from results where key = ?", (key,)).fetchone()
        return found is not None

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def run_study(
    study: Study | None, function: Callable[[Any], Any], arguments: Sequence[Any],
    executor: Executor | None = None, descriptions: Sequence[Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Any]:
    """Return the results of a function for all arguments, those known taken from the file.

    Args:
        study: where results are kept; None keeps none.
        function: importable, with plain data as its result.
        arguments: one a task.
        executor: None runs them here.
        descriptions: plain data that tells tasks apart; the arguments by default.
        progress: told how many tasks of how many are done.
    """
    told = list(arguments if descriptions is None else descriptions)
    if len(told) != len(arguments):
        raise InputError("study: as many descriptions as arguments are needed")
    keys = [task_key(function, d) for d in told] if study is not None else [""] * len(told)
    found: list[Any] = [None] * len(arguments)
    open_tasks = []
    for at, key in enumerate(keys):
        if study is not None and key in study:
            found[at] = study.get(key)
        else:
            open_tasks.append(at)
    done = len(arguments) - len(open_tasks)
    runner = executor or SerialExecutor()
    for place, result in runner.run(function, [arguments[at] for at in open_tasks]):
        at = open_tasks[place]
        if study is not None:
            study.put(keys[at], told[at], result)
        found[at] = result
        done += 1
        if progress is not None:
            progress(done, len(arguments))
    return found


@contextmanager
def opened(path: Path | str | None) -> Iterator[Study | None]:
    """Open a study for a while; None stays None."""
    if path is None:
        yield None
        return
    study = Study(path)
    try:
        yield study
    finally:
        study.close()
