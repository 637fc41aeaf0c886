"""The measured serving points of the package aiconfigurator-core, read and cleaned.

``systems/silicon_sample.csv`` holds TTFT and TPOT of vLLM, SGLang and TensorRT-LLM at a fixed
concurrency. Its layout columns follow several conventions; what is repaired here, and why:

* Rows of public benchmark sweeps carry ``tp_size`` (or ``attention_dp_size``) as TP·EP: the run
  TP8/EP8 stands there as tp 64, moe_tp 8, moe_ep 8. The same run stands elsewhere in the file as
  tp 8, moe_tp 1, moe_ep 8, with identical times to the last digit, which settles the reading.
* With data-parallel attention, vLLM rows name tp and dp alike (4 and 4 for four GPUs, ep 16).
* Rows called aggregated whose TP is no power of two, or beyond one domain of the machine, are
  disaggregated deployments counted by their GPUs: they have no single layout and are left out.
* Speculative decoding is recorded nowhere. Disaggregated rows often lack their numbers of workers.
"""

from __future__ import annotations

import csv
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from costsim.engine.layout import Layout
from costsim.errors import InputError

_CONCURRENCY = re.compile(r"silicon_concurrency=(\d+)")
SYSTEMS = {
    "a100_sxm": "a100_sxm_80gb", "h100_sxm": "h100_sxm", "h200_sxm": "h200_sxm",
    "b200_sxm": "b200_sxm", "b300_sxm": "b300_sxm", "gb200": "gb200_nvl72",
    "gb300": "gb300_nvl72",
}
WEIGHTS = {"fp8": "fp8", "fp8_block": "fp8_block", "nvfp4": "nvfp4", "int4_wo": "int4",
           "bfloat16": "bf16", "bf16": "bf16"}


@dataclass(frozen=True)
class Pool:
    """Workers of one phase of a disaggregated deployment."""

    layout: Layout
    workers: int | None

    @property
    def accelerators(self) -> int | None:
        """All accelerators of the pool, None where the number of workers is not recorded."""
        return None if self.workers is None else self.workers * int(self.layout.accelerators)


@dataclass(frozen=True)
class ServingPoint:
    """One measured operating point.

    Args:
        id: of the row; engine, version: the software.
        model: as the row names it; hardware: name of the profile.
        weights: data type of linear layers and experts (key of `costsim.dtypes`).
        isl, osl: tokens; concurrency: requests in flight over the whole deployment.
        layout: of an aggregated deployment, None for a disaggregated one.
        prefill, decode: pools of a disaggregated deployment.
        ttft_s, tpot_s: measured.
        repaired: whether the layout columns were re-read by the rules above.
        fit: whether the row may be fitted on (even checksum of its id).
    """

    id: str
    engine: str
    version: str
    model: str
    hardware: str
    weights: str
    isl: int
    osl: int
    concurrency: int
    layout: Layout | None
    prefill: Pool | None
    decode: Pool | None
    ttft_s: float
    tpot_s: float
    repaired: bool
    fit: bool

    @property
    def measured(self) -> tuple[object, ...]:
        """What identifies the physical run: several rows can stem from one."""
        return (self.engine, self.model, self.hardware, self.isl, self.osl, self.ttft_s,
                self.tpot_s)


@dataclass(frozen=True)
class LeftOut:
    """A row that cannot be predicted, and why."""

    id: str
    fit: bool
    reason: str


def is_for_fitting(row_id: str) -> bool:
    """Return whether a row may be fitted on; the others are only reported on."""
    return zlib.crc32(row_id.encode()) % 2 == 0


def read_points(path: Path | str) -> tuple[list[ServingPoint], list[LeftOut]]:
    """Return the rows of the file as points, and those that have to be left out.

    Raises:
        InputError: the file is missing or lacks a column.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; it ships with the package aiconfigurator-core "
                         "(extra 'silicon')")
    points: list[ServingPoint] = []
    left: list[LeftOut] = []
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found = _read(row)
            if isinstance(found, ServingPoint):
                points.append(found)
            else:
                left.append(found)
    return points, left


def _whole(text: str | None) -> int | None:
    if not text or text.lower() == "nan":
        return None
    value = int(float(text))
    return value if value > 0 else None


def _read(row: dict[str, str]) -> ServingPoint | LeftOut:
    row_id, fit = row["id"], is_for_fitting(row["id"])
    if row["system"] not in SYSTEMS:
        return LeftOut(row_id, fit, f"no hardware profile for {row['system']}")
    seen = _CONCURRENCY.search(row["silicon_data_source"])
    batch, dp = _whole(row["batch_size"]), _whole(row["attention_dp_size"]) or 1
    concurrency = int(seen.group(1)) if seen else (batch or 0) * dp
    if concurrency < 1:
        return LeftOut(row_id, fit, "concurrency not recorded")
    weights = WEIGHTS.get(row["gemm_quant_mode"] or row["moe_quant_mode"], "bf16")
    common = {
        "id": row_id, "engine": row["backend"], "version": row["backend_version"],
        "model": row["model_path"], "hardware": SYSTEMS[row["system"]], "weights": weights,
        "isl": int(float(row["isl"])), "osl": int(float(row["osl"])), "concurrency": concurrency,
        "ttft_s": float(row["silicon_ttft_ms"]) / 1e3,
        "tpot_s": float(row["silicon_tpot_ms"]) / 1e3, "fit": fit,
    }
    if row["mode"] == "agg":
        return _aggregated(row, common)
    return _disaggregated(row, common)


def _public_sweep(row: dict[str, str]) -> bool:
    source = row["silicon_data_source"]
    return source.startswith("db-dump/") or re.match(r"source_file=\d{4}-", source) is not None


def repaired_layout(
    tp: int, dp: int, moe_tp: int, moe_ep: int, public_sweep: bool
) -> tuple[Layout, bool] | None:
    """Return the layout a row stands for, and whether it was re-read; None for none.

    Args:
        tp, dp: attention columns as they stand.
        moe_tp, moe_ep: expert columns as they stand.
        public_sweep: whether the row stems from the public benchmark sweeps.
    """
    if public_sweep and moe_tp > 1 and moe_tp == moe_ep and tp * dp == moe_tp * moe_ep:
        size = moe_ep
        return (Layout(tp=1, dp=size, ep=size) if dp > 1 else Layout(tp=size, ep=size)), True
    if public_sweep and tp > 1 and tp == dp and moe_ep == tp * dp:
        return Layout(tp=1, dp=dp, ep=dp), True
    if tp & (tp - 1) or tp > 16:
        return None
    ep = moe_ep if tp * dp % max(moe_ep, 1) == 0 else 1
    return Layout(tp=tp, dp=dp, ep=ep), False


def _aggregated(row: dict[str, str], common: dict[str, object]) -> ServingPoint | LeftOut:
    tp, dp = _whole(row["tp_size"]) or 1, _whole(row["attention_dp_size"]) or 1
    moe_tp, moe_ep = _whole(row["moe_tp_size"]) or 1, _whole(row["moe_ep_size"]) or 1
    found = repaired_layout(tp, dp, moe_tp, moe_ep, _public_sweep(row))
    if found is None:
        return LeftOut(row["id"], is_for_fitting(row["id"]),
                       "a disaggregated deployment listed as aggregated: no single layout")
    layout, repaired = found
    pp = _whole(row["pp_size"]) or 1
    layout = Layout(tp=layout.tp, pp=pp, ep=layout.ep, dp=layout.dp)
    return ServingPoint(**common, layout=layout, prefill=None, decode=None,  # type: ignore[arg-type]
                        repaired=repaired)


def _pool(row: dict[str, str], phase: str) -> Pool | None:
    tp, dp = _whole(row[f"{phase}_tp_size"]), _whole(row[f"{phase}_attention_dp_size"]) or 1
    if tp is None:
        return None
    moe_ep = _whole(row[f"{phase}_moe_ep_size"]) or 1
    workers = _whole(row[f"{phase}_num_workers"])
    if workers is None and moe_ep < tp and tp % moe_ep == 0 and moe_ep > 1:
        # The column holds the GPUs of all decode workers: workers of TP = EP each.
        return Pool(Layout(tp=moe_ep, ep=moe_ep), tp // moe_ep)
    ep = moe_ep if tp * dp % moe_ep == 0 else 1
    return Pool(Layout(tp=tp, dp=dp, ep=ep), workers)


def _disaggregated(row: dict[str, str], common: dict[str, object]) -> ServingPoint | LeftOut:
    prefill, decode = _pool(row, "prefill"), _pool(row, "decode")
    if prefill is None or decode is None:
        return LeftOut(row["id"], is_for_fitting(row["id"]), "pools not recorded")
    return ServingPoint(**common, layout=None, prefill=prefill, decode=decode,  # type: ignore[arg-type]
                        repaired=False)


def distinct(points: list[ServingPoint]) -> Iterator[ServingPoint]:
    """Yield one point per physical run (the file repeats some under several ids)."""
    seen = set()
    for point in points:
        if point.measured not in seen:
            seen.add(point.measured)
            yield point


def sample_path() -> Path:
    """Return the points' file in the installed package aiconfigurator-core.

    Raises:
        InputError: the extra ``silicon`` is not installed.
    """
    from importlib.util import find_spec

    found = find_spec("aiconfigurator_core")
    if found is None or found.origin is None:
        raise InputError("the measured serving points need the extra 'silicon': "
                         "pip install 'costsim[silicon]'")
    return Path(found.origin).parent / "systems" / "silicon_sample.csv"
