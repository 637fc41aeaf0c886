"""Tables of models: all of them, and one with its parts, cache and arithmetic by context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table

from costsim.reports.tables import mark, plain_table
from costsim.units import format_quantity

# Parts of `weight_bytes` whose data type is a field of another name.
_TYPE_OF = {"router": "bf16", "norms": "bf16", "encoders": "bf16", "shared": "ffn"}


def model_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """Return models with their sizes."""
    rows = [[d["name"], mark(str(d["title"]), str(d["provenance"])),
             format_quantity(d["total_parameters"], "count"),
             format_quantity(d["active_parameters"], "count"),
             format_quantity(d["kv_bytes_per_token"], "bytes"), d.get("max_context") or "–"]
            for d in found]
    columns = ("name", "title", "total", "active", "KV per token", "context")
    return plain_table("Models", columns, rows, left=2)


def model_sheet(d: Mapping[str, Any]) -> Group:
    """Return one model: layers by kind, weights by part, cache and arithmetic by context."""
    layers = [[x["count"], x["mixer"], x["ffn"], format_quantity(x["parameters"], "count"),
               format_quantity(x["active_parameters"], "count")] for x in d["layers"]]
    contexts = [[f"{x['context']:,}", format_quantity(x["kv_bytes"], "bytes"),
                 format_quantity(x["flop_per_token"], "flop")] for x in d["by_context"]]
    return Group(
        model_table([d]),
        plain_table("Layers", ("count", "mixer", "feed-forward", "weights each", "active"), layers,
                    left=3),
        plain_table("Weights of the checkpoint", ("part", "data type", "bytes"),
                    _parts(d), left=2),
        plain_table("By context", ("tokens", "KV cache", "FLOP per token"), contexts, left=0),
        *_lines(d),
    )


def _parts(d: Mapping[str, Any]) -> list[list[str]]:
    types = d["quantisation"]
    rows = []
    for part, size in d["weight_bytes"].items():
        name = _TYPE_OF.get(part, part)
        if size:
            rows.append([part, types.get(name, name), format_quantity(size, "bytes")])
    return rows


def _lines(d: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the tables have no place for."""
    if d["state_bytes_per_request"]:
        state = format_quantity(d["state_bytes_per_request"], "bytes")
        yield f"recurrent state of a request: {state}"
    for e in d["encoders"]:
        yield (f"{e['modality']} encoder: {e['layers']} layers of width {e['hidden_size']}, "
               f"{format_quantity(e['parameters'], 'count')} weights (in the total)")
    if d["mtp_layers"]:
        weights = format_quantity(d["mtp_parameters"], "count")
        yield f"multi-token prediction: {d['mtp_layers']} x {weights} weights (not in the total)"
    for line in d["ignored"]:
        yield f"left out of the description: {line}"
    yield f"source: {d['source'] or '–'}"
