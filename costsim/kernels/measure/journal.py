"""A journal of finished measurements, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Journal:
    """Finished measurements, one JSON line each; the first line says what they are of.

    Args:
        path: the file, None for memory only.
        about: what must agree for the measurements to be taken over: machine, versions, backend.
    """

    path: Path | None
    about: dict[str, Any]
    done: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path | None, about: dict[str, Any]) -> Journal:
        """Return the journal of a file, with what it holds if that was measured alike."""
        journal = cls(path, about)
        if path is not None and path.is_file():
            journal._read()
        if path is not None and not journal.done:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"about": about}, sort_keys=True) + "\n", encoding="utf-8")
        return journal

    def _read(self) -> None:
        assert self.path is not None
        text = self.path.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            # A kill in the middle of a line: the next one must not be glued to what it left.
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n")
        lines = text.splitlines()
        rows = [row for row in map(_parsed, lines) if row is not None]
        if rows and rows[0].get("about") == json.loads(json.dumps(self.about)):
            self.done = {row["key"]: row for row in rows[1:] if "key" in row}

    def add(self, key: str, **values: Any) -> None:
        """Keep a finished measurement."""
        row = {"key": key, **values}
        self.done[key] = row
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def remove(self) -> None:
        """Delete the file: the run is complete."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _parsed(line: str) -> dict[str, Any] | None:
    """Return a line's object; None for a last line that an interrupt cut short."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
