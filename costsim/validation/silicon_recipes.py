"""The published recipes behind the public benchmark rows: workers, layouts and drafting.

``silicon_recipes.csv`` lists what the public sweeps ran: read from the configuration history of
github.com/SemiAnalysisAI/InferenceX (``nvidia-master.yaml``, 2025-11 to 2026-05; draft lengths
also from its benchmark scripts and the recipes of github.com/NVIDIA/srt-slurm). A row of the
measured points names its GPUs per prefill and decode worker, lengths, concurrency, image and date;
that leaves one recipe for most rows.

* Early recipes of SGLang on GB200 name one GPU per worker where the expert parallelism, given
  later, says how many there are; the table has those.
* The low-latency ones among them (four GPUs a worker) say data-parallel attention, and that what
  they say does nothing; they are served by tensor parallelism, as the same recipes of srt-slurm are
  and as their times at one request per worker show.
* ``prefill_tp`` and ``decode_tp`` are GPUs of one worker, whatever its parallelism.
* Rows of the database dump carry no drafting: of the rows with one recipe 195 of 197 have none.
* Where a recipe with and one without drafting remain and both runs are in the file, the faster run
  drafts (`told`). What stays open is marked as assumed.
"""

from __future__ import annotations

import csv
import datetime
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

RECIPES = Path(__file__).with_name("silicon_recipes.csv")
_SLACK = datetime.timedelta(days=3)


@dataclass(frozen=True)
class Workers:
    """Workers of one phase.

    Args:
        count: how many; gpus: of each; experts: expert parallelism.
        data_parallel: whether attention is.
        batch: most requests at once, of a worker or of each of its data-parallel ranks; 0 where
            the recipe's name does not say.
    """

    count: int
    gpus: int
    experts: int
    data_parallel: bool
    batch: int = 0


@dataclass(frozen=True)
class Recipe:
    """One published configuration; ``prefill`` is None for an aggregated one."""

    prefill: Workers | None
    decode: Workers
    draft_tokens: int
    image: str
    first: datetime.date
    last: datetime.date

    @property
    def gpus(self) -> int:
        """All GPUs of the deployment."""
        own = self.decode.count * self.decode.gpus
        return own + (self.prefill.count * self.prefill.gpus if self.prefill else 0)

    @property
    def setup(self) -> tuple[Workers | None, Workers, int]:
        """What was run, whatever the image and date."""
        return self.prefill, self.decode, self.draft_tokens


@dataclass(frozen=True)
class Run:
    """What a row says about its deployment.

    Args:
        engine, hardware, model, precision: as the recipes name them.
        isl, osl, concurrency: of the load.
        prefill_gpus, decode_gpus: of one worker; prefill_gpus is 0 for an aggregated row, and both
            are all GPUs of the deployment where no worker has as many.
        experts: expert parallelism of the prefill worker (or of the aggregated deployment).
        data_parallel: whether attention is, None where the row does not say.
        image, date: of the run; may be missing.
        times: measured TTFT and TPOT.
    """

    engine: str
    hardware: str
    model: str
    precision: str
    isl: int
    osl: int
    concurrency: int
    prefill_gpus: int
    decode_gpus: int
    experts: int
    data_parallel: bool | None
    image: str
    date: datetime.date | None
    times: tuple[float, float]


_Key = tuple[str, str, str, str, int, int]


@lru_cache
def load_recipes() -> dict[_Key, list[tuple[frozenset[int], Recipe]]]:
    """Return the recipes by engine, hardware, model, precision, ISL and OSL, with concurrencies."""
    found: dict[_Key, list[tuple[frozenset[int], Recipe]]] = defaultdict(list)
    with RECIPES.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = (row["engine"], row["hardware"], row["model"], row["precision"],
                   int(row["isl"]), int(row["osl"]))
            prefill, decode = _workers(row, "prefill"), _workers(row, "decode")
            assert decode is not None
            recipe = Recipe(prefill, decode, int(row["draft_tokens"]), row["image"],
                            datetime.date.fromisoformat(row["first"]),
                            datetime.date.fromisoformat(row["last"]))
            found[key].append((frozenset(map(int, row["concurrency"].split())), recipe))
    return dict(found)


def _workers(row: dict[str, str], phase: str) -> Workers | None:
    count = int(row[f"{phase}_workers"])
    if not count:
        return None
    return Workers(count, int(row[f"{phase}_tp"]), int(row[f"{phase}_ep"]),
                   row[f"{phase}_dp"] == "1", int(row.get(f"{phase}_batch", 0)))


def candidates(run: Run) -> tuple[list[Recipe], bool]:
    """Return the recipes that a row may stem from, and whether they are of its own load.

    Filters that would leave none (an image that was never published, say) are not applied.
    """
    key = (run.engine, run.hardware, run.model, run.precision, run.isl, run.osl)
    rows = load_recipes().get(key, [])
    fitting = [r for c, r in rows if run.concurrency in c and _shape(r, run)]
    if not fitting:
        # Some recipes give the concurrency of one decode worker.
        fitting = [r for c, r in rows if r.prefill and run.concurrency % r.decode.count == 0
                   and run.concurrency // r.decode.count in c and _shape(r, run)]
    own = bool(fitting)
    if not own and run.prefill_gpus:
        fitting = _neighbours(run)
    for keep in (lambda r: _experts(r) == run.experts, lambda r: _attention(r, run),
                 lambda r: r.image == run.image, lambda r: _in_time(r, run)):
        fitting = _narrowed(fitting, keep)
    return _latest(fitting, run), own


def _neighbours(run: Run) -> list[Recipe]:
    """Return recipes of the same workers at the nearest concurrency, also of another model."""
    own = (run.engine, run.hardware, run.model, run.precision, run.isl, run.osl)
    for fields in ((0, 1, 2, 3, 4, 5), (0, 1, 3, 4, 5)):
        near = [(abs(math.log(c / run.concurrency)), r)
                for key, rows in load_recipes().items()
                if all(key[i] == own[i] for i in fields)
                for cs, r in rows if r.prefill and _shape(r, run) and not r.draft_tokens
                for c in cs]
        if near:
            least = min(d for d, _ in near)
            return [r for d, r in near if d == least]
    return []


def _narrowed(recipes: list[Recipe], keep: Callable[[Recipe], bool]) -> list[Recipe]:
    return [r for r in recipes if keep(r)] or recipes


def _shape(recipe: Recipe, run: Run) -> bool:
    if not run.prefill_gpus:
        return recipe.prefill is None and recipe.decode.gpus == run.decode_gpus
    if recipe.prefill is None:
        return False
    if run.prefill_gpus == run.decode_gpus == 1 < min(recipe.prefill.gpus, recipe.decode.gpus):
        return run.image == recipe.image  # written down as one GPU by the sweeps of that time
    if run.prefill_gpus == run.decode_gpus == recipe.gpus:
        return True
    return recipe.prefill.gpus == run.prefill_gpus and recipe.decode.gpus == run.decode_gpus


def _experts(recipe: Recipe) -> int:
    return (recipe.prefill or recipe.decode).experts


def _attention(recipe: Recipe, run: Run) -> bool:
    return run.data_parallel is None or recipe.decode.data_parallel == run.data_parallel


def _in_time(recipe: Recipe, run: Run) -> bool:
    return run.date is None or recipe.first - _SLACK <= run.date <= recipe.last + _SLACK


def _latest(recipes: list[Recipe], run: Run) -> list[Recipe]:
    """Return the recipes that had just changed when the run was made: changes start runs."""
    if run.date is None or run.prefill_gpus or len({r.setup for r in recipes}) < 2:
        return recipes
    age = [abs((run.date - r.first).days) for r in recipes]
    return [r for r, a in zip(recipes, age, strict=True) if a <= min(age) + _SLACK.days]


@dataclass(frozen=True)
class Told:
    """The recipe of a row, and what had to be assumed to choose it."""

    recipe: Recipe
    assumed: str = ""


def told(runs: Sequence[Run], plain: Iterable[tuple[float, float]] = ()) -> list[Told | None]:
    """Return each row's recipe; None where no recipe is known.

    Args:
        runs: of all rows of the file.
        plain: times of runs that are known not to draft.
    """
    known = set(plain)
    groups: dict[tuple[object, ...], dict[tuple[float, float], list[int]]] = defaultdict(dict)
    options: dict[tuple[object, ...], list[Recipe]] = {}
    exact: dict[tuple[object, ...], bool] = {}
    for i, run in enumerate(runs):
        found, is_own = candidates(run)
        distinct = list({r.setup: r for r in found}.values())
        key: tuple[object, ...] = (
            run.engine, run.hardware, run.model, run.precision, run.isl, run.osl,
            run.concurrency, frozenset(r.setup for r in distinct))
        options[key], exact[key] = distinct, is_own
        groups[key].setdefault(run.times, []).append(i)
    result: list[Told | None] = [None] * len(runs)
    for alike, members in groups.items():
        for times, choice in _assigned(options[alike], list(members), known).items():
            for i in members[times]:
                result[i] = choice if exact[alike] else Told(choice.recipe, "recipe of a neighbour")
    return result


def _assigned(
    recipes: Sequence[Recipe], times: Sequence[tuple[float, float]],
    plain: set[tuple[float, float]],
) -> dict[tuple[float, float], Told]:
    """Return the recipe of each run of one group of rows that look alike."""
    if not recipes:
        return {}
    slow = [r for r in recipes if not r.draft_tokens]
    fast = [r for r in recipes if r.draft_tokens]
    if not slow or not fast:
        return _ranked(recipes, times)
    sure = [t for t in times if t in plain]
    rest = sorted((t for t in times if t not in plain), key=lambda t: t[1])
    drafting = rest[:max(len(rest) - max(len(slow) - len(sure), 0), 0)]
    if not sure and len(rest) > 1 and not drafting:
        drafting = rest[:len(rest) // 2]
    others = [t for t in times if t not in drafting]
    open_end = "" if len(times) > 1 else "drafting not told: none"
    return _ranked(fast, drafting) | _ranked(slow, others, open_end)


def _ranked(
    recipes: Sequence[Recipe], times: Sequence[tuple[float, float]], assumed: str = ""
) -> dict[tuple[float, float], Told]:
    """Return runs matched to recipes: more decode GPUs share the load, so tokens come faster."""
    order = sorted(recipes, key=lambda r: -r.decode.count * r.decode.gpus)
    note = assumed or ("" if len(order) == 1 or len(order) == len(times)
                       else "one of several recipes")
    return {t: Told(order[min(i, len(order) - 1)], note)
            for i, t in enumerate(sorted(times, key=lambda t: t[1]))}
