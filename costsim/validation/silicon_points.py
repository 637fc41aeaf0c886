"""The measured serving points of the package aiconfigurator-core, read and cleaned.

``systems/silicon_sample.csv`` holds TTFT and TPOT of vLLM, SGLang and TensorRT-LLM at a fixed
concurrency. Its layout columns follow several conventions; what is repaired here, and why:

* Rows of public benchmark sweeps carry ``tp_size`` (or ``attention_dp_size``) as TP·EP: the run
  TP8/EP8 stands there as tp 64, moe_tp 8, moe_ep 8. The same run stands elsewhere in the file as
  tp 8, moe_tp 1, moe_ep 8, with identical times to the last digit, which settles the reading.
* With data-parallel attention, vLLM rows name tp and dp alike (4 and 4 for four GPUs, ep 16).
* Rows called aggregated whose TP is no power of two, or beyond one domain of the machine, are
  disaggregated deployments counted by their GPUs: they have no single layout and are left out.
* Speculative decoding is recorded nowhere, and disaggregated rows often lack their numbers of
  workers: both come from the published recipes (`costsim.validation.silicon_recipes`). What they
  leave open is filled in and marked as assumed.
"""

from __future__ import annotations

import csv
import datetime
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from costsim.engine.layout import Layout
from costsim.errors import InputError
from costsim.validation.silicon_setups import (
    Pool,
    Setup,
    concurrency_of,
    date_of,
    is_public,
    row_layout,
    setups_of,
    whole,
)

SYSTEMS = {
    "a100_sxm": "a100_sxm_80gb", "h100_sxm": "h100_sxm", "h200_sxm": "h200_sxm",
    "b200_sxm": "b200_sxm", "b300_sxm": "b300_sxm", "gb200": "gb200_nvl72",
    "gb300": "gb300_nvl72",
}
# Lengths of the public sweeps are uniform from 0.8 to 1 of what they name (RANDOM_RANGE_RATIO 0.8
# in the workflows of github.com/SemiAnalysisAI/InferenceX, sa_bench.py of NVIDIA/srt-slurm).
PUBLIC_LOWEST = 0.8
_PUBLIC_MEAN = 0.5 * (1.0 + PUBLIC_LOWEST)
WEIGHTS = {"fp8": "fp8", "fp8_block": "fp8_block", "nvfp4": "nvfp4", "int4_wo": "int4",
           "bfloat16": "bf16", "bf16": "bf16"}


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
        draft_tokens: drafted per verify step, 0 without speculative decoding.
        assumed: what the row and the recipes leave open and was filled in.
        date: of the run, where it is told.
        public: from the public sweeps, whose lengths are drawn evenly from 80 to 100 % of ``isl``
            and ``osl``.
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
    draft_tokens: int = 0
    assumed: str = ""
    public: bool = False
    date: datetime.date | None = None

    @property
    def mean_isl(self) -> float:
        """Mean prompt tokens of the run."""
        return self.isl * (_PUBLIC_MEAN if self.public else 1.0)

    @property
    def mean_osl(self) -> float:
        """Mean output tokens of the run."""
        return self.osl * (_PUBLIC_MEAN if self.public else 1.0)

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
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    setups = setups_of(rows)
    points: list[ServingPoint] = []
    left: list[LeftOut] = []
    for row, setup in zip(rows, setups, strict=True):
        found = _read(row, setup)
        if isinstance(found, ServingPoint):
            points.append(found)
        else:
            left.append(found)
    return points, left


def _read(row: dict[str, str], setup: Setup) -> ServingPoint | LeftOut:
    row_id, fit = row["id"], is_for_fitting(row["id"])
    if row["system"] not in SYSTEMS:
        return LeftOut(row_id, fit, f"no hardware profile for {row['system']}")
    concurrency = concurrency_of(row)
    if concurrency < 1:
        return LeftOut(row_id, fit, "concurrency not recorded")
    weights = WEIGHTS.get(row["gemm_quant_mode"] or row["moe_quant_mode"], "bf16")
    common = {
        "id": row_id, "engine": row["backend"], "version": row["backend_version"],
        "model": row["model_path"], "hardware": SYSTEMS[row["system"]], "weights": weights,
        "isl": int(float(row["isl"])), "osl": int(float(row["osl"])), "concurrency": concurrency,
        "ttft_s": float(row["silicon_ttft_ms"]) / 1e3,
        "tpot_s": float(row["silicon_tpot_ms"]) / 1e3, "fit": fit,
        "draft_tokens": setup.draft_tokens, "assumed": setup.assumed,
        "public": is_public(row), "date": date_of(row),
    }
    if setup.prefill and setup.decode:
        return ServingPoint(**common, layout=None, prefill=setup.prefill,  # type: ignore[arg-type]
                            decode=setup.decode, repaired=False)
    if row["mode"] == "agg":
        return _aggregated(row, common)
    return LeftOut(row_id, fit, "pools not recorded")


def _aggregated(row: dict[str, str], common: dict[str, object]) -> ServingPoint | LeftOut:
    found = row_layout(row)
    if found is None:
        return LeftOut(row["id"], is_for_fitting(row["id"]),
                       "a disaggregated deployment listed as aggregated: no single layout")
    layout, repaired = found
    pp = whole(row["pp_size"]) or 1
    layout = Layout(tp=layout.tp, pp=pp, ep=layout.ep, dp=layout.dp)
    return ServingPoint(**common, layout=layout, prefill=None, decode=None,  # type: ignore[arg-type]
                        repaired=repaired)


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
