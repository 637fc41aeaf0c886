"""The command line, called in the tests' own process."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command line in this process, in an empty folder, with its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COSTSIM_HOME", str(tmp_path / "home"))

    def call(*args: str) -> subprocess.CompletedProcess[str]:
        from costsim.cli import main

        with pytest.raises(SystemExit) as stop:
            main(list(args))
        shown = capsys.readouterr()
        return subprocess.CompletedProcess(args, int(stop.value.code or 0), shown.out, shown.err)

    return call
