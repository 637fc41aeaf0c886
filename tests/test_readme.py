"""The README's commands and code do what they say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.+?)```", README, re.S)


COMMANDS = [line for block in _blocks("sh") for line in block.splitlines()
            if line.startswith("costsim ")]


def test_the_two_commands_are_marked() -> None:
    assert re.search(r"<!-- main-job -->\s*```sh\n.+costsim run scenarios/arrakis.toml", README)
    assert re.search(r"<!-- test-command -->\s*```sh\n.+pytest", README)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from costsim.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COSTSIM_HOME", str(tmp_path / "home"))
    with pytest.raises(SystemExit) as stop:
        main(shlex.split(line)[1:])
    assert not stop.value.code


@pytest.mark.parametrize("code", _blocks("python"))
def test_python(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})
