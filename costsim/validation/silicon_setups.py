"""The deployment behind each row of the measured serving points: layouts, pools, drafting."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from costsim.engine.layout import Layout
from costsim.loading import read_toml
from costsim.validation.silicon_recipes import Recipe, Run, Told, Workers, told

MODELS = Path(__file__).with_name("silicon_models.toml")
_CONCURRENCY = re.compile(r"silicon_concurrency=(\d+)")
_DATE = re.compile(r"measured=(\d{4}-\d\d-\d\d)")
# The dump, its monthly files, and two collections of the same runs (equal times to the last digit).
_PUBLIC = re.compile(r"db-dump/|source_file=(\d{4}-|[a-z0-9.-]+-gap-analysis\.csv)")
_IMAGE = re.compile(r"([\w.-]+:[\w.-]+)$")
Row = Mapping[str, str]


@dataclass(frozen=True)
class Pool:
    """Workers of one phase of a disaggregated deployment.

    Args:
        layout: of one worker; workers: how many, None where it is not recorded.
        slots: most requests that a worker runs at once, None where it is not known.
    """

    layout: Layout
    workers: int | None
    slots: int | None = None

    @property
    def accelerators(self) -> int | None:
        """All accelerators of the pool, None where the number of workers is not recorded."""
        return None if self.workers is None else self.workers * int(self.layout.accelerators)


@dataclass(frozen=True)
class Setup:
    """What a row's deployment is known to be beside its columns.

    Args:
        prefill, decode: pools of a disaggregated deployment, None for an aggregated one.
        draft_tokens: drafted per verify step; assumed: what was filled in.
    """

    prefill: Pool | None = None
    decode: Pool | None = None
    draft_tokens: int = 0
    assumed: str = ""


@lru_cache
def model_table() -> dict[str, dict[str, str]]:
    """Return what is known of the models of the rows, by their name there."""
    table: dict[str, dict[str, str]] = read_toml(MODELS)["models"]
    return table


@lru_cache
def kept_parts(model: str, weights: str) -> dict[str, str]:
    """Return the parts that a checkpoint keeps in another type: field of `Precision` -> type."""
    found: dict[str, str] = read_toml(MODELS)["kept"].get(model, {}).get(weights, {})
    return found


def whole(text: str | None) -> int | None:
    """Return a column as a positive whole number, None where it holds none."""
    if not text or text.lower() == "nan":
        return None
    value = int(float(text))
    return value if value > 0 else None


def is_public(row: Row) -> bool:
    """Return whether a row stems from the public benchmark sweeps."""
    return _PUBLIC.match(row["silicon_data_source"]) is not None


def date_of(row: Row) -> datetime.date | None:
    """Return the date of a row's run, None where it is not told."""
    found = _DATE.search(row["silicon_data_source"])
    return datetime.date.fromisoformat(found.group(1)) if found else None


def concurrency_of(row: Row) -> int:
    """Return the requests in flight over the whole deployment, 0 where they are not recorded."""
    seen = _CONCURRENCY.search(row["silicon_data_source"])
    if seen:
        return int(seen.group(1))
    return (whole(row["batch_size"]) or 0) * (whole(row["attention_dp_size"]) or 1)


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


def row_layout(row: Row) -> tuple[Layout, bool] | None:
    """Return the layout of an aggregated row by its own columns (`repaired_layout`)."""
    tp, dp, moe_tp, moe_ep = (whole(row[f"{n}_size"]) or 1
                              for n in ("tp", "attention_dp", "moe_tp", "moe_ep"))
    return repaired_layout(tp, dp, moe_tp, moe_ep, is_public(row))


def setups_of(rows: Sequence[Row]) -> list[Setup]:
    """Return the setup of every row, from its columns, its twin in the dump, or the recipes.

    A run stands in the file under several ids; the dump's row has its workers, and none of the
    dump's runs drafts.
    """
    twins = {_times(r): r for r in rows if r["prefill_num_workers"]}
    plain = {_times(r) for r in rows if r["silicon_data_source"].startswith("db-dump/")}
    index = [i for i, r in enumerate(rows) if is_public(r) and concurrency_of(r)]
    recipes = dict(zip(index, told([run_of(rows[i]) for i in index], plain), strict=True))
    return [_setup(row, twins.get(_times(row)), recipes.get(i), _times(row) in plain)
            for i, row in enumerate(rows)]


def _times(row: Row) -> tuple[float, float]:
    return float(row["silicon_ttft_ms"]), float(row["silicon_tpot_ms"])


def run_of(row: Row) -> Run:
    """Return what a row says of its deployment, as the recipes are looked up by."""
    image = _IMAGE.search(row["silicon_data_source"].strip())
    prefill, decode, experts, parallel = _shape(row)
    return Run(
        engine=row["backend"], hardware=row["system"].removesuffix("_sxm"),
        model=model_table().get(row["model_path"], {}).get("recipe", ""),
        precision=row["precision"], isl=int(float(row["isl"])), osl=int(float(row["osl"])),
        concurrency=concurrency_of(row), prefill_gpus=prefill, decode_gpus=decode,
        experts=experts, data_parallel=parallel, image=image.group(1) if image else "",
        date=date_of(row), times=_times(row),
    )


def _shape(row: Row) -> tuple[int, int, int, bool | None]:
    """Return GPUs of a prefill and a decode worker, experts' spread, data-parallel attention."""
    if row["mode"] == "agg":
        found = row_layout(row)
        if found is None:
            size = whole(row["tp_size"]) or 1
            return size, size, 1, None
        layout = found[0]
        return 0, int(layout.accelerators), int(layout.ep), bool(layout.dp > 1)
    sizes = [(whole(row[f"{p}_tp_size"]) or 1) * (whole(row[f"{p}_attention_dp_size"]) or 1)
             for p in ("prefill", "decode")]
    return sizes[0], sizes[1], whole(row["prefill_moe_ep_size"]) or 1, None


def _setup(row: Row, twin: Row | None, recipe: Told | None, plain: bool) -> Setup:
    if row["mode"] == "agg" and row_layout(row) is not None:
        drafts = recipe.recipe.draft_tokens if recipe and not plain else 0
        return Setup(draft_tokens=drafts, assumed=recipe.assumed if recipe and drafts else "")
    if twin is not None:
        prefill, decode = _pool(twin, "prefill"), _pool(twin, "decode")
        known = _of_recipe(recipe.recipe) if recipe and not recipe.assumed else None
        # The dump's expert columns are those of another convention: the recipe's count.
        if known and _sizes(known) == _sizes((prefill, decode)):
            return Setup(*known)
        return Setup(prefill, decode)
    if recipe is not None and recipe.recipe.prefill is not None:
        return Setup(*_of_recipe(recipe.recipe), recipe.recipe.draft_tokens, recipe.assumed)
    if row["mode"] == "agg":
        return Setup()
    return Setup(_pool(row, "prefill"), _pool(row, "decode"), assumed="workers: one of a kind")


def _of_recipe(recipe: Recipe) -> tuple[Pool | None, Pool]:
    prefill = _workers_pool(recipe.prefill) if recipe.prefill else None
    return prefill, _workers_pool(recipe.decode)


def _workers_pool(workers: Workers) -> Pool:
    gpus, experts = workers.gpus, workers.experts
    layout = (Layout(tp=1, dp=gpus, ep=experts) if workers.data_parallel
              else Layout(tp=gpus, ep=experts))
    slots = workers.batch * (gpus if workers.data_parallel else 1)
    return Pool(layout, workers.count, slots or None)


def _sizes(pools: Sequence[Pool | None]) -> list[tuple[int, int | None] | None]:
    """Return GPUs and number of the workers of each pool."""
    return [(int(p.layout.accelerators), p.workers) if p else None for p in pools]


def _pool(row: Row, phase: str) -> Pool | None:
    tp, dp = whole(row[f"{phase}_tp_size"]), whole(row[f"{phase}_attention_dp_size"]) or 1
    if tp is None:
        return None
    moe_ep = whole(row[f"{phase}_moe_ep_size"]) or 1
    ep = moe_ep if tp * dp % moe_ep == 0 else 1
    return Pool(Layout(tp=tp, dp=dp, ep=ep), whole(row[f"{phase}_num_workers"]))
