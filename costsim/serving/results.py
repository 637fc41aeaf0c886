"""The result of a run: its record, the figures people ask for, and files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from costsim.errors import InputError
from costsim.files import write_atomically
from costsim.serving.record import COLUMNS, Record, ReplicaUse
from costsim.serving.requests import STATUS_NAMES
from costsim.serving.summary import summary_of

__all__ = ["COLUMNS", "ReplicaUse", "SimulationResult", "write_columns"]


@dataclass(frozen=True)
class SimulationResult(Record):
    """Times of every request and what they add up to; see `Record` for the fields."""

    def summary(self) -> dict[str, Any]:
        """Return all figures of the run as plain numbers (s, tokens, requests/s)."""
        return summary_of(self)

    def write_requests(self, path: Path | str, **more: np.ndarray) -> Path:
        """Write one row per request as CSV, or as Parquet where the name ends so.

        Args:
            path: of the file.
            more: further columns, one value a request.
        """
        columns = {name: self.table[name] for name in COLUMNS}
        columns["tenant"] = np.array([slo.name for slo in self.classes])[columns["tenant"]]
        columns["pool"] = np.array(self.pools)[columns["pool"]]
        columns["status"] = np.array(STATUS_NAMES)[columns["status"]]
        for name in ("ttft_s", "tpot_s", "e2e_s"):
            columns[name] = self.latency(name)
        return write_columns(path, columns | more)

    def write_timelines(self, path: Path | str) -> Path:
        """Write the timelines as CSV, or as Parquet where the name ends so."""
        return write_columns(path, self.timelines)


def write_columns(path: Path | str, columns: dict[str, np.ndarray]) -> Path:
    """Write columns as CSV, or as Parquet where the name ends so; atomically.

    Raises:
        InputError: Parquet, and pyarrow is not installed.
    """
    path = Path(path)
    return write_atomically(path, _parquet(columns) if path.suffix == ".parquet" else _csv(columns))


def _csv(columns: dict[str, np.ndarray]) -> str:
    lines = [",".join(columns)]
    texts = [_texts(values) for values in columns.values()]
    lines += [",".join(row) for row in zip(*texts, strict=True)]
    return "\n".join(lines) + "\n"


def _texts(values: np.ndarray) -> Sequence[str]:
    if values.dtype.kind == "f":
        return ["" if value != value else repr(value) for value in values.tolist()]
    return [str(value) for value in values.tolist()]


def _parquet(columns: dict[str, np.ndarray]) -> bytes:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError("Parquet needs pyarrow (pip install costsim[silicon]); use .csv") from None
    held = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), held)
    return held.getvalue()
