"""The tables of published training runs, read into rows of one form."""

from __future__ import annotations

import csv
import io
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from costsim.errors import unknown_name
from costsim.loading import read_text, read_toml
from costsim.models.architecture import Attention, FeedForward, Layers, Model
from costsim.models.loader import load_model

DATA = Path(__file__).with_name("data")
_LAYOUT = ("tp", "pp", "cp", "ep", "dp", "micro_batch", "virtual_stages")
# Benchmarks of one paper at several sizes, and all figures of one run, are one family.
_FAMILY = {"Megatron": "Megatron (Korthikanti et al.)"}


@cache
def table() -> dict[str, Any]:
    """Return the table of single runs and the shapes of models that the library lacks."""
    return read_toml(DATA / "runs.toml")


@cache
def run_rows() -> tuple[dict[str, Any], ...]:
    """Return all runs: those of whole trainings and papers, then the benchmarks."""
    rows = [{**run, "family": _family(run["name"])} for run in table()["runs"]]
    text = read_text(DATA / "benchmarks.csv")
    return (*rows, *(_benchmark(row) for row in csv.DictReader(io.StringIO(text))))


def _family(name: str) -> str:
    first = name.split(",")[0]
    return _FAMILY.get(first.split()[0], first)


def _benchmark(row: dict[str, str]) -> dict[str, Any]:
    chunks = int(row["virtual_stages"])
    options: dict[str, Any] = {
        "zero": int(row["zero"]), "recompute": row["recompute"],
        "overlap_model": float(row["overlap_model"]), "count_failures": False,
        "schedule": "interleaved" if chunks > 1 else "1f1b", "multi_token_prediction": False,
    }
    if row["precision"] != "bf16":
        options["precision"] = row["precision"]
    return {
        "name": f"{row['name']} ({row['family']})", "family": row["family"],
        "model": row["model"], "hardware": row["hardware"], "quantity": "tokens_per_s",
        "published": float(row["published"]), "tokens": 1e9,
        "batch_tokens": float(row["batch_tokens"]), "sequence": int(row["sequence"]),
        "layout": {name: int(row[name]) for name in _LAYOUT}, "options": options,
        "source": row["source"],
    }


def is_for_fit(name: str) -> bool:
    """Return whether a run is of the half that constants may be fitted to."""
    return zlib.crc32(name.encode()) % 2 == 0


def find_row(name: str) -> dict[str, Any]:
    """Return one run.

    Raises:
        InputError: there is no such run.
    """
    rows = {row["name"]: row for row in run_rows()}
    if name not in rows:
        raise unknown_name("published training run", name, rows)
    return rows[name]


def model_of(name: str) -> Model:
    """Return a model of the library, or one whose shape stands in the table of runs."""
    shapes = table()["models"]
    return _shape(name, shapes[name]) if name in shapes else load_model(name)


def _shape(name: str, shape: dict[str, Any]) -> Model:
    head = shape.get("head_dim", shape["hidden"] // shape["heads"])
    mixer = Attention("full", shape["heads"], shape.get("kv_heads", shape["heads"]), head, head)
    ffn = FeedForward("dense", shape.get("width", 4 * shape["hidden"]),
                      gated=shape.get("gated", False))
    return Model(name=name, title=shape["title"], hidden_size=shape["hidden"],
                 vocab_size=shape["vocab"], layers=(Layers(shape["layers"], mixer, ffn),),
                 tied_embeddings=shape.get("tied", True), source=shape["source"])
