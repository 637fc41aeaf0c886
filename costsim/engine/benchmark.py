"""A closed-loop benchmark: all its clients start at once, and their outputs are of similar length.

B clients send one prompt after another, R each. The first B prompts arrive together; the next B
come as those finish, which is no longer spread than first tokens were plus the spread of output
lengths, and so on. A round whose arrivals span S steps has B/S of them in a step, where a stream
that never began has B/n (n: steps of a request). Spans add like independent even spreads:

    S₁² = s₀² + (w·n)²,   S_{k+1}² = S_k² + (w·n)²

with w the width of the output lengths over their mean and s₀ the span of the first tokens of the
beginning: B/c − 1 steps where each holds c prompts. Where prompts go first and decodes wait,
decodes start together: s₀ = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_MOST_ROUNDS = 20


@dataclass(frozen=True)
class Benchmark:
    """How a closed-loop benchmark sends its prompts.

    Args:
        rounds: prompts per client (R).
        length_spread: width of the even spread of output lengths over their mean (w).
    """

    rounds: Any = 10.0
    length_spread: Any = 0.0


@dataclass(frozen=True)
class Waves:
    """How a benchmark's prompts arrive; the neutral values are those of an endless stream.

    Args:
        first: share of the prompts that arrive at the start, all at once.
        density: arrivals per step after that over those of an endless stream.
        scatter: prompts that chance makes a prompt wait for, at most.
    """

    first: Any = 0.0
    density: Any = 1.0
    scatter: Any = np.inf


def waves_of(run: Benchmark, clients: Any, steps: Any, start: Any, step: Any = 1.0) -> Waves:
    """Return how the prompts of a benchmark arrive.

    Args:
        run: the benchmark.
        clients: requests in flight (B).
        steps: decode steps of a request (n), or their time.
        start: span of the first tokens of the first round (s₀), in the same unit.
        step: the least span.
    """
    steps = np.asarray(steps, float)
    rounds = np.asarray(run.rounds, float)
    span = np.asarray(start, float)
    density, counted = 0.0, 0.0
    for k in range(1, _MOST_ROUNDS):
        span = np.hypot(span, run.length_spread * steps)
        weight = np.clip(rounds - k, 0.0, 1.0)
        density = density + weight * np.maximum(steps / np.maximum(span, step), 1.0)
        counted = counted + weight
    scatter = np.where(np.asarray(run.length_spread) > 0, 0.5 * np.sqrt(clients), 0.0)
    return Waves(1.0 / np.maximum(rounds, 1.0),
                 np.where(counted > 0, density / np.maximum(counted, 1e-30), 1.0), scatter)
