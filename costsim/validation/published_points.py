"""Published serving figures, with where each stands and what is assumed to fill its gaps.

The project's own table is ``published_documents.toml`` (tables of TensorRT-LLM's documentation in
the form they have there, and facts of each document) and ``published_points.csv`` (single points).
Every document was opened; a figure that was not read at its source is marked unverified.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from costsim.engine.layout import Layout
from costsim.engine.precision import Precision
from costsim.errors import InputError
from costsim.loading import read_toml

DOCUMENTS = Path(__file__).with_name("published_documents.toml")
POINTS = Path(__file__).with_name("published_points.csv")
REGIMES = ("burst", "static", "online", "saturated", "limits", "prefill", "decode")
_PART = re.compile(r"(TP|PP|DEP|EP|DP)(\d+)")


@dataclass(frozen=True)
class Document:
    """A published document and the facts that hold for all of its figures.

    Args:
        key: short name; title: document with its revision; date: of the document.
        engine: name of the preset; version: of the engine, as far as it is said.
        memory_utilization: share for the engine (of what is free, for TensorRT-LLM).
        most_requests: that the engine runs at once, per attention group.
        cuda_graphs: whether decode steps replay graphs.
        graph_sizes: batches of the captured graphs, to which decode batches are padded.
        assumed: what the document leaves open, and how it was filled.
        verified: whether the document was opened.
    """

    key: str
    title: str
    date: str
    engine: str
    version: str = ""
    memory_utilization: float = 0.9
    most_requests: int = 2048
    cuda_graphs: bool = True
    graph_sizes: tuple[int, ...] = ()
    assumed: str = ""
    verified: bool = True


@dataclass(frozen=True)
class PublishedPoint:
    """One published figure.

    Args:
        id: unique; document, section: where it stands.
        regime: how the engine was loaded, one of `REGIMES`: ``burst`` (``requests`` at once,
            as many of them running as fit), ``static`` (one batch from start to end), ``online``
            (Poisson arrivals at ``rate``), ``saturated`` (no limit of latency, endless queue),
            ``limits`` (the highest Poisson rate within the limits), ``prefill``, ``decode`` (one
            step of ``batch`` requests).
        model, hardware: names; full_attention: sliding windows were not used.
        accelerators: of all replicas; layout: of a replica, None: the best one is searched.
        weights, activation, kv: data types; activation ``""``: what goes with the weights.
        isl, osl: tokens (means).
        batch, requests, rate: as the regime needs them, else None.
        ttft_p99_s, tpot_p99_s: limits.
        quantity: ``output_tokens_per_s``, ``input_tokens_per_s`` (both of all accelerators),
            ``ttft_s`` or ``tpot_s``; value: published.
        assumed: what was filled in for this point besides the document's.
        verified: whether the figure was read at its source.
    """

    id: str
    document: Document
    section: str
    regime: str
    model: str
    hardware: str
    accelerators: int
    layout: Layout | None
    weights: str
    kv: str
    isl: float
    osl: float
    quantity: str
    value: float
    activation: str = ""
    batch: float | None = None
    requests: int | None = None
    rate: float | None = None
    ttft_p99_s: float | None = None
    tpot_p99_s: float | None = None
    full_attention: bool = False
    assumed: str = ""
    verified: bool = True

    @property
    def precision(self) -> Precision:
        """Data types the figure was measured with."""
        if self.weights == "bf16":
            return Precision(kv=self.kv)
        if self.weights == "mxfp4":
            # Only the experts of gpt-oss are in four bits.
            return Precision(experts="mxfp4", activation=self.activation or "bf16", kv=self.kv)
        return Precision.uniform(self.weights, self.activation, self.kv)

    @property
    def throughput(self) -> bool:
        """Whether the figure is a rate of tokens."""
        return self.quantity.endswith("tokens_per_s")


def read_layout(text: str) -> Layout:
    """Return the layout of ``TP2,PP4``, ``DEP4`` (attention data parallel, experts parallel), …

    Raises:
        InputError: it cannot be read.
    """
    parts = {name: int(size) for name, size in _PART.findall(text)}
    if not parts:
        raise InputError(f"layout '{text}': give TP, PP, EP, DP or DEP with a number: TP2,PP4")
    if "DEP" in parts:
        return Layout(dp=parts["DEP"], ep=parts["DEP"], pp=parts.get("PP", 1))
    return Layout(tp=parts.get("TP", 1), pp=parts.get("PP", 1), ep=parts.get("EP", 1),
                  dp=parts.get("DP", 1))


@cache
def documents() -> dict[str, Document]:
    """Return the documents of the project's table by key."""
    return {row["key"]: _document(row) for row in read_toml(DOCUMENTS)["documents"]}


def _document(row: Mapping[str, Any]) -> Document:
    names = ("key", "title", "date", "engine", "version", "memory_utilization", "most_requests",
             "cuda_graphs", "assumed")
    return Document(**{name: row[name] for name in names if name in row},
                    graph_sizes=tuple(row.get("graph_sizes", ())))


@cache
def published_points() -> tuple[PublishedPoint, ...]:
    """Return all points of the project's table."""
    tables = [point for row in read_toml(DOCUMENTS)["documents"] for point in _tables(row)]
    return (*tables, *_points())


def _tables(row: Mapping[str, Any]) -> Iterator[PublishedPoint]:
    document = documents()[row["key"]]
    for table in row.get("tables", ()):
        columns = [_column(text) for text in table["columns"]]
        for lengths, values in table["rows"].items():
            isl, osl = map(float, lengths.split("/"))
            for column, value in zip(columns, values, strict=False):
                if value:
                    yield _cell(document, row, table, column, lengths, isl, osl, value)


def _column(text: str) -> tuple[str, str, Layout, str, str, str]:
    hardware, layout, weights, kv = text.split()
    kind, _, activation = weights.partition(":")
    return hardware, layout, read_layout(layout), kind, activation, kv


def _cell(
    document: Document, row: Mapping[str, Any], table: Mapping[str, Any],
    column: tuple[str, str, Layout, str, str, str], lengths: str, isl: float, osl: float,
    value: float,
) -> PublishedPoint:
    hardware, text, layout, weights, activation, kv = column
    accelerators = int(layout.accelerators)
    total = value * accelerators if table["per"] == "accelerator" else value
    return PublishedPoint(
        id=f"{document.key} {table['model']} {hardware} {text} {lengths}", document=document,
        section=table["section"], regime=row["regime"], model=table["model"], hardware=hardware,
        accelerators=accelerators, layout=layout, weights=weights, activation=activation, kv=kv,
        isl=isl, osl=osl, requests=int(row["requests"][lengths]),
        quantity="output_tokens_per_s", value=float(total), assumed=table.get("assumed", ""))


def _points() -> Iterator[PublishedPoint]:
    known = documents()
    with POINTS.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield PublishedPoint(
                id=f"{row['document']} {row['section']} {row['model']} {row['hardware']} "
                   f"{row['isl']}/{row['osl']} {row['quantity']}",
                document=known[row["document"]], section=row["section"], regime=row["regime"],
                model=row["model"], hardware=row["hardware"],
                accelerators=int(row["accelerators"]),
                layout=read_layout(row["layout"]) if row["layout"] else None,
                weights=row["weights"], kv=row["kv"], isl=float(row["isl"]),
                osl=float(row["osl"]), batch=_number(row["batch"]),
                requests=int(row["requests"]) if row["requests"] else None,
                rate=_number(row["rate"]), ttft_p99_s=_number(row["ttft_p99_s"]),
                tpot_p99_s=_number(row["tpot_p99_s"]), quantity=row["quantity"],
                value=float(row["value"]))


def _number(text: str) -> float | None:
    return float(text) if text else None
