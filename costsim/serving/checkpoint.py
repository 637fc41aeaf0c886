"""Long runs that can be stopped at any moment and go on from where they were saved."""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from costsim.errors import InputError
from costsim.files import write_atomically
from costsim.serving.fleet import Fleet
from costsim.serving.results import SimulationResult
from costsim.serving.run import collect, drive, with_warmup
from costsim.serving.traffic import Traffic

VERSION = 1


class Checkpoint:
    """Saves a fleet and its controllers to a file every few seconds of wall-clock time.

    The file is replaced atomically: a run killed while saving leaves the one before. It is a
    pickle: read only those that you wrote.

    Args:
        path: of the file.
        key: of the scenario; a file of another scenario is refused.
        every_s: wall-clock time between two files.
    """

    def __init__(self, path: Path | str, key: str, every_s: float = 10.0) -> None:
        self.path, self.key, self.every_s = Path(path), key, every_s
        if self.path.is_dir():
            raise InputError(f"{self.path}: a checkpoint is a file, and this is a folder")
        self.last = time.monotonic()

    def __call__(self, fleet: Fleet, controllers: list[Any]) -> None:
        """Save if it is time to."""
        if time.monotonic() - self.last >= self.every_s:
            self.save(fleet, controllers)

    def save(self, fleet: Fleet, controllers: list[Any]) -> None:
        """Save now."""
        state = {"version": VERSION, "key": self.key, "fleet": fleet, "controllers": controllers}
        write_atomically(self.path, pickle.dumps(state, protocol=pickle.HIGHEST_PROTOCOL))
        self.last = time.monotonic()

    def load(self) -> tuple[Fleet, list[Any]] | None:
        """Return what was saved, None where there is no file.

        Raises:
            InputError: the file is broken, or of another scenario or version.
        """
        if not self.path.is_file():
            return None
        try:
            state = pickle.loads(self.path.read_bytes())
        except Exception as error:
            raise InputError(f"{self.path}: no checkpoint that can be read ({error})") from None
        if state.get("version") != VERSION or state.get("key") != self.key:
            raise InputError(f"{self.path}: belongs to another scenario or version; remove it")
        return state["fleet"], state["controllers"]


def scenario_key(*parts: Any) -> str:
    """Return a fingerprint of what a run is made of."""
    return hashlib.sha256(pickle.dumps(parts)).hexdigest()


def run_resumably(
    build: Callable[[], tuple[Fleet, list[Any]]],
    traffic: Traffic,
    checkpoint: Checkpoint,
    *,
    warmup_s: float = 0.0,
    until_s: float = float("inf"),
    time_limit_s: float | None = None,
    sample_s: float = 0.0,
    progress: Callable[[float, int, int], None] | None = None,
    keep: bool = False,
) -> SimulationResult:
    """Run a fleet, going on from its checkpoint if there is one.

    A run that its time limit ended is saved, and goes on when it is called again; a finished run
    removes its checkpoint. The result is the same as that of a run without a stop.

    Args:
        build: makes the fleet and its controllers where there is no checkpoint.
        traffic: as given to `costsim.serving.simulation.build_fleet`.
        checkpoint: the file.
        warmup_s, until_s, time_limit_s, sample_s, progress: as in
            `costsim.serving.simulation.simulate`.
        keep: save a finished run too, so that it is not run again; the caller removes the file.
    """
    found = checkpoint.load()
    if found is None:
        fleet, controllers = build()
        controllers = with_warmup(controllers, traffic, warmup_s)
    else:
        fleet, controllers = found
    samples, complete = drive(
        fleet, controllers, until_s=until_s, time_limit_s=time_limit_s, sample_s=sample_s,
        progress=progress, checkpoint=checkpoint,
    )  # fmt: skip
    if keep or not complete:
        checkpoint.save(fleet, controllers)
    else:
        checkpoint.path.unlink(missing_ok=True)
    return collect(fleet, traffic, samples, warmup_s, complete)
