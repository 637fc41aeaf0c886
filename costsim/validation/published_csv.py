"""A collected table of published operating points, read as `PublishedPoint`.

The columns are those of the table of 817 points that the tests find beside the checkout
(``../shared/data/published/serving.csv``). What a row does not say is filled from
``published_csv.toml``; rows that cannot be predicted are returned with the reason.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from costsim.engine.layout import Layout
from costsim.errors import InputError
from costsim.loading import read_toml
from costsim.validation.published_points import Document, PublishedPoint, documents

NAMES = Path(__file__).with_name("published_csv.toml")
COLUMNS = ("id", "source", "date", "model", "gpu", "n_gpu", "weight_precision", "engine",
           "input_len", "output_len", "throughput_output_tok_s", "scenario", "verified")
_LIMITS = re.compile(r"TTFT (\d+) ms, TPOT (\d+) ms")
_OFFERED = re.compile(r"offered QPS=(\w+)")
# MLPerf v4.1's server scenario had the limits that v5.1 still has for these models.
_SERVER = (2.0, 0.2)
Row = dict[str, str]


def read_published(path: Path | str) -> tuple[list[PublishedPoint], dict[str, int]]:
    """Return the points of a table, and reasons with their numbers of rows left out.

    Raises:
        InputError: the file is missing, lacks a column or holds text for a number.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    points: list[PublishedPoint] = []
    left: dict[str, int] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise InputError(f"{path}: column {missing[0]} is missing")
        for row in reader:
            try:
                points += _points(row)
            except InputError as error:
                left[str(error)] = left.get(str(error), 0) + 1
            except ValueError as error:
                raise InputError(f"{path}, line {reader.line_num}: {error}") from error
    return points, left


@cache
def _names() -> dict[str, Any]:
    return read_toml(NAMES)


def _points(row: Row) -> list[PublishedPoint]:
    found = list(_read(row))
    if not found:
        raise InputError("no figure of a regime that is modelled")
    return found


def _read(row: Row) -> Iterator[PublishedPoint]:
    names = _names()
    about = next((s for s in names["sources"] if s["text"] in row["source"]), None)
    if about is None:
        raise InputError(f"source '{row['source'][:40]}' is unknown")
    for column, table in (("gpu", "hardware"), ("model", "models")):
        if row[column] not in names[table]:
            raise InputError(f"no profile of {row[column]}")
    if row["weight_precision"] not in names["weights"]:
        raise InputError(f"weights in '{row['weight_precision']}'")
    base = _base(row, about)
    regime = about["regime"]
    if regime == "mlperf":
        return iter([_mlperf(row, base)])
    if regime == "online":
        return _online(row, base)
    if regime in ("disaggregated", "decode"):
        return _phases(row, base, regime)
    return _plain(row, base, about)


def _base(row: Row, about: dict[str, Any]) -> PublishedPoint:
    names = _names()
    document = (documents()[about["document"]] if "document" in about
                else _document(row, about))
    document = replace(document, verified=row["verified"] == "yes")
    weights, kv = names["weights"][row["weight_precision"]], row.get("kv_precision", "")
    activation = ""
    if row["model"].startswith("GPT-OSS"):
        hopper = names["hardware"][row["gpu"]] in ("h100_sxm", "h200_sxm")
        weights, kv, activation = "mxfp4", "BF16" if hopper else "FP8", "bf16" if hopper else "fp8"
    elif row["model"].startswith("DeepSeek") and weights == "fp8":
        weights = "fp8_block"
    quantised = weights != "bf16" and document.engine == "trtllm"
    full = names["full_attention"]
    return PublishedPoint(
        id=row["id"], document=document, section=row["scenario"], regime="burst",
        model=names["models"][row["model"]], hardware=names["hardware"][row["gpu"]],
        accelerators=int(row["n_gpu"]), layout=_layout(row), weights=weights,
        activation=activation, kv="fp8" if kv == "FP8" or (not kv and quantised) else "bf16",
        isl=float(row["input_len"] or 1), osl=float(row["output_len"] or 1),
        quantity="output_tokens_per_s", value=1.0, batch=_number(row, "concurrency_or_batch"),
        full_attention=row["model"] in full["models"] and row["engine"] in full["engines"])


def _document(row: Row, about: dict[str, Any]) -> Document:
    engine = about["engine"]
    if row["engine"].startswith("vLLM") or (about["regime"] == "mlperf" and not row["engine"]):
        engine = "vllm"
    return Document(
        key=f"{engine} {about.get('version', '')}".strip() if about["regime"] != "mlperf"
        else f"mlperf {'4.1' if 'v4.1' in row['source'] else '5.1'}",
        title=row["source"], date=row["date"], engine=engine,
        version=about.get("version", row.get("engine_version", "")),
        memory_utilization=float(about.get("memory_utilization", 0.9)),
        assumed="KV cache share, batch limit and, where the row is silent, cache type")


def _layout(row: Row) -> Layout | None:
    tp, pp, ep, dp = (int(row.get(n) or 0) for n in ("tp", "pp", "ep", "dp"))
    accelerators = int(row["n_gpu"])
    if not (tp or dp):
        return None
    pp, dp = max(pp, 1), max(dp, 1)
    return Layout(tp=tp or max(accelerators // (pp * dp), 1), pp=pp, ep=max(ep, 1), dp=dp)


def _number(row: Row, name: str) -> float | None:
    return float(row[name]) if row.get(name) else None


def _plain(row: Row, base: PublishedPoint, about: dict[str, Any]) -> Iterator[PublishedPoint]:
    layout = base.layout or Layout(tp=base.accelerators)
    if about.get("attention_dp") and row.get("moe") == "1":
        layout = Layout(dp=layout.tp, pp=layout.pp)
        base = replace(base, assumed="attention data parallel, experts sliced")
    base = replace(base, regime=about["regime"], layout=layout)
    if base.regime == "burst":
        lengths = f"{base.isl:.0f}/{base.osl:.0f}"
        if lengths not in _names()["requests"]:
            raise InputError(f"number of requests at lengths {lengths} is not known")
        base = replace(base, requests=int(_names()["requests"][lengths]), batch=None)
    quantity = {"throughput_output_tok_s": ("output_tokens_per_s", 1.0),
                "ttft_ms": ("ttft_s", 1e-3), "tpot_ms": ("tpot_s", 1e-3)}
    for column, (name, unit) in quantity.items():
        value = _number(row, column)
        if value and not (base.regime == "burst" and name != "output_tokens_per_s"):
            yield replace(base, quantity=name, value=value * unit)
            if base.regime == "static" and name == "output_tokens_per_s":
                return


def _online(row: Row, base: PublishedPoint) -> Iterator[PublishedPoint]:
    found = _OFFERED.search(row["scenario"])
    rate = found.group(1) if found else "INF"
    base = replace(base, requests=500)
    if rate == "INF":
        yield replace(base, value=float(row["throughput_output_tok_s"]))
        return
    base = replace(base, regime="online", rate=float(rate))
    yield replace(base, quantity="ttft_s", value=float(row["ttft_ms"]) / 1e3)
    yield replace(base, quantity="tpot_s", value=float(row["tpot_ms"]) / 1e3)


def _mlperf(row: Row, base: PublishedPoint) -> PublishedPoint:
    prompts = _names()["prompts"]
    name = next((n for n in prompts if n in row["scenario"]), "")
    if not name:
        raise InputError("MLPerf data set with unknown prompts")
    base = replace(base, isl=float(prompts[name]), value=float(row["throughput_output_tok_s"]),
                   kv="fp8" if base.weights != "bf16" else "bf16", batch=None,
                   assumed=f"prompts of {prompts[name]} tokens in the mean, unverified; layout "
                           "by the search where the row has none")
    if "offline" in row["scenario"].lower():
        return replace(base, regime="saturated")
    found = _LIMITS.search(row["scenario"])
    ttft, tpot = (float(x) / 1e3 for x in found.groups()) if found else _SERVER
    return replace(base, regime="limits", ttft_p99_s=ttft, tpot_p99_s=tpot)


def _sliced(base: PublishedPoint) -> Layout:
    """Return all accelerators slicing every layer (Pope et al.: two-dimensional partitioning)."""
    tp = min(base.accelerators, 16)
    return Layout(tp=tp, cp=base.accelerators // tp)


def _phases(row: Row, base: PublishedPoint, regime: str) -> Iterator[PublishedPoint]:
    """Yield the prefill or decode figures of disaggregated pools and of papers."""
    if base.layout is None and regime == "disaggregated":
        raise InputError("a pool without its layout, or a headline of several pools")
    base = replace(base, layout=base.layout or _sliced(base))
    reads = "prefill" in row["scenario"] and not _number(row, "ttft_ms")
    if reads and row["throughput_total_tok_s"] and row["input_len"]:
        yield replace(base, regime="prefill", quantity="input_tokens_per_s",
                      value=float(row["throughput_total_tok_s"]))
        return
    if row["throughput_output_tok_s"] and regime == "disaggregated":
        yield replace(base, regime="decode", osl=1.0,
                      value=float(row["throughput_output_tok_s"]))
        return
    for column, name, phase in (("ttft_ms", "ttft_s", "prefill"), ("tpot_ms", "tpot_s", "decode")):
        value = _number(row, column)
        if value:
            yield replace(base, regime=phase, quantity=name, value=value / 1e3)
