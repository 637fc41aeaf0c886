"""Step times of a deployment, tabulated from the engine in a few array calls."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from costsim.engine.deployment import Deployment
from costsim.engine.memory import memory_budget
from costsim.engine.speculation import tokens_per_step, verify_width
from costsim.engine.step import step_time
from costsim.errors import DoesNotFitError
from costsim.models.architecture import is_moe
from costsim.serving.expert_ranks import ExpertRanks
from costsim.serving.pool import ReplicaSpec
from costsim.serving.scheduler import Scheduler
from costsim.serving.step_cost import Chunk, DecodeLine

_USUAL_CONTEXT = 1024.0
_ENDLESS_TOKENS = 1e9


class Grid:
    """Values on a rectangular grid, linear between its points and beyond the outermost.

    Args:
        rows, columns: the axes, ascending.
        values: of shape (rows, columns).
    """

    def __init__(self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
        self.rows, self.columns = rows.tolist(), columns.tolist()
        self.values = np.broadcast_to(values, (len(rows), len(columns))).tolist()

    def at(self, row: float, column: float) -> float:
        """Return the value at a point."""
        rows, columns, values = self.rows, self.columns, self.values
        i = min(max(bisect_right(rows, row) - 1, 0), len(rows) - 2)
        j = min(max(bisect_right(columns, column) - 1, 0), len(columns) - 2)
        y = (row - rows[i]) / (rows[i + 1] - rows[i])
        x = (column - columns[j]) / (columns[j + 1] - columns[j])
        low, high = values[i], values[i + 1]
        first = low[j] + x * (low[j + 1] - low[j])
        second = high[j] + x * (high[j + 1] - high[j])
        return float(first + y * (second - first))

    def row(self, row: float) -> list[float]:
        """Return the values along the columns at a place between the rows."""
        i = min(max(bisect_right(self.rows, row) - 1, 0), len(self.rows) - 2)
        y = (row - self.rows[i]) / (self.rows[i + 1] - self.rows[i])
        pairs = zip(self.values[i], self.values[i + 1], strict=True)
        return [low + y * (high - low) for low, high in pairs]


class TabulatedCost:
    """Step times of a deployment, interpolated in tables sampled from `step_time`.

    Short prompts that share a step attend to fewer pairs than one of their length; the table is
    linear in the cached tokens, so that fewer pairs stand for a negative count of those.

    A mixed step takes the prompt's time alone, plus the decodes' alone, less what they share
    (weights read once, one host overhead), which is tabulated over decodes and prompt tokens at a
    usual context. Several chunks stand for one of all their tokens that attends to as many pairs.

    Args:
        deployment: what is sampled.
        max_requests: decoding requests of the table.
        max_tokens: prompt tokens of a step.
        max_context: tokens of one request.
        ranks: data-parallel ranks that do the same at once; counts are of one of them.
    """

    def __init__(
        self, deployment: Deployment, max_requests: int, max_tokens: int, max_context: int,
        ranks: int = 1,
    ) -> None:
        batches = axis(1, max_requests)
        contexts = np.concatenate([[1.0], axis(128, max(256, max_context))])
        tokens = axis(1, max(2, max_tokens))
        prefixes = np.concatenate([[0.0], axis(128, max(256, max_context))])

        def sample(**counts: Any) -> np.ndarray:
            for name in ("prefill_requests", "decode_requests"):
                counts[name] = ranks * np.asarray(counts.get(name, 0))
            return np.asarray(step_time(deployment, **counts).seconds)

        alone = sample(decode_requests=batches[:, None], decode_context=contexts)
        # A simulated step is one token: a verify step that yields several is cut into as many.
        self.decodes = Grid(
            batches, contexts, alone / tokens_per_step(deployment.settings.speculation)
        )
        prompts = sample(
            prefill_requests=1, prefill_tokens=tokens[:, None], prefill_context=prefixes
        )
        self.prompts = Grid(tokens, prefixes, prompts)
        usual = sample(decode_requests=batches, decode_context=_USUAL_CONTEXT)
        both = sample(
            prefill_requests=1, prefill_tokens=tokens, prefill_context=0.0,
            decode_requests=batches[:, None], decode_context=_USUAL_CONTEXT,
        )  # fmt: skip
        shared = np.maximum(0.0, prompts[:, 0][None, :] + usual[:, None] - both)
        self.shared = Grid(batches, tokens, shared)
        self.most_tokens = float(tokens[-1])
        self.lines: dict[int, DecodeLine] = {}

    def decode(self, batch: int) -> DecodeLine:
        """Return the time of decode steps of a batch over its total context."""
        line = self.lines.get(batch)
        if line is None:
            knots = [batch * context for context in self.decodes.columns]
            line = self.lines[batch] = DecodeLine(knots, self.decodes.row(batch))
        return line

    def mixed(self, batch: int, context: float, chunks: Sequence[Chunk]) -> float:
        """Return the time of a step that also reads prompts."""
        new = pairs = 0.0
        for tokens, cached in chunks:
            new += tokens
            pairs += tokens * (cached + 0.5 * tokens)
        # More tokens than the table holds (policies without a budget) run as equal parts.
        parts = max(1, math.ceil(new / self.most_tokens))
        new, pairs = new / parts, pairs / parts
        seconds = parts * self.prompts.at(new, pairs / new - 0.5 * new)
        if batch:
            decodes = self.decode(batch).seconds(context)
            seconds += max(decodes - self.shared.at(batch, new), 0.0)
        return seconds


def axis(least: float, most: float, per_doubling: int = 4) -> np.ndarray:
    """Return whole numbers from ``least`` to ``most``, growing by a constant factor."""
    count = max(2, round(per_doubling * np.log2(max(2.0, most / least))) + 1)
    return np.unique(np.rint(np.geomspace(least, max(most, least + 1), count)))


def scheduler_of(deployment: Deployment, **changes: Any) -> Scheduler:
    """Return the scheduler that a deployment's engine settings describe, of one rank."""
    settings = deployment.settings
    plain = Scheduler(
        policy="vllm" if settings.chunked_prefill else "prefill_first",
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=max(settings.max_num_batched_tokens, settings.max_num_seqs),
        block_tokens=settings.kv_block_tokens,
        request_overhead_s=settings.frontend_s,
        ahead=settings.async_scheduling,
        prefix_cache=settings.prefix_caching,
    )
    return replace(plain, **changes)


def replica_of(
    deployment: Deployment,
    count: int = 1,
    pool: str = "default",
    role: str = "both",
    max_context: int = 0,
    image_s: float = 0.0,
    **scheduler: Any,
) -> ReplicaSpec:
    """Return replicas of a deployment for `costsim.serving.simulation.simulate`.

    Ranks of data-parallel attention schedule their own requests and step together; limits of the
    scheduler are those of one rank, as the engines' flags are.

    Args:
        deployment: model, hardware, layout, engine.
        count: replicas.
        pool, role: as in `ReplicaSpec`.
        max_context: longest request in tokens; 0 for 32,768 or what the cache holds.
        image_s: encoder time of an image.
        scheduler: fields of `Scheduler` that differ from the engine's settings.

    Raises:
        DoesNotFitError: the weights leave no room for a KV cache.
    """
    budget = memory_budget(deployment)
    # A cache of sliding windows alone has no end in tokens: requests bound it.
    room = int(min(float(np.max(budget.kv_capacity_tokens)), _ENDLESS_TOKENS))
    if not bool(np.all(budget.fits)) or room < deployment.settings.kv_block_tokens:
        raise DoesNotFitError(
            f"{deployment.model.name} does not fit on {int(deployment.accelerators)} x "
            f"{deployment.hardware.name}: no room for a KV cache"
        )
    layout, hardware = deployment.layout, deployment.hardware
    rules, ranks, stages = scheduler_of(deployment, **scheduler), int(layout.dp), int(layout.pp)
    # Pipeline stages keep as many batches in flight as there are stages: each is an engine of its
    # own with its share of cache and accelerators, and a step takes one batch through all stages.
    room //= stages * ranks
    longest = max_context or min(room, 32_768)
    cost = TabulatedCost(
        deployment, rules.max_num_seqs, max(rules.token_budget, longest), longest, ranks
    )
    machines = int(deployment.accelerators) // (stages * ranks)
    return ReplicaSpec(
        cost, room, rules, count * stages, pool, role, machines,
        idle_w=machines * float(np.max(hardware.idle_w)),
        busy_w=machines * float(np.max(hardware.tdp_w)),
        kv_bytes_per_token=float(np.max(budget.kv_bytes_per_token)) * machines * stages,
        ranks=ranks, lockstep=lockstep_of(deployment, cost, ranks, rules),
        image_s=image_s,
    )  # fmt: skip


def lockstep_of(
    deployment: Deployment, cost: TabulatedCost, ranks: int, rules: Scheduler
) -> ExpertRanks | None:
    """Return the common step of data-parallel ranks; None where they share no experts."""
    if ranks == 1 or not is_moe(deployment.model):
        return None
    most = ranks * (rules.token_budget + rules.max_num_seqs)
    tokens = axis(1, most)
    step = step_time(deployment, prefill_requests=1, prefill_tokens=tokens)
    seconds = np.broadcast_to(step.by_operator["experts"], tokens.shape)
    speculation = deployment.settings.speculation
    return ExpertRanks(
        cost, ranks, tokens.tolist(), seconds.tolist(),
        float(verify_width(deployment.settings)), float(tokens_per_step(speculation)),
    )  # fmt: skip
