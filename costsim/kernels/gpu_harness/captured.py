"""Times of calls inside a captured CUDA graph: the device's own time, no launches in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from costsim.kernels.measure.timing import Timing, time_call

# A replay shorter than this would show the host's wait for it (about 10 µs) in the time.
SHORTEST_REPLAY_S = 3e-3
MOST_CALLS = 2000


def capture(torch: Any, call: Callable[[], object], count: int) -> Any:
    """Return a CUDA graph of ``count`` calls.

    Raises:
        RuntimeError: the call cannot be captured (it waits for the device, say).
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            call()
    return graph


def calls_in_graph(single_s: float, rotation: int) -> int:
    """Return how many calls a graph takes: a few milliseconds of them, all weights in turn.

    Args:
        single_s: rough time of one call.
        rotation: copies of the weights that the calls take turns with.
    """
    wanted = int(np.ceil(SHORTEST_REPLAY_S / max(single_s, 1e-7)))
    turns = int(np.ceil(max(wanted, 1) / rotation))
    return max(1, min(MOST_CALLS, turns * rotation))


def device_time(torch: Any, call: Callable[[], object], rotation: int, budget_s: float) -> Timing:
    """Return the time of a call inside a graph of many.

    Args:
        torch: the module.
        call: what to time.
        rotation: copies of the weights that the calls take turns with.
        budget_s: sampling time.

    Raises:
        RuntimeError: the call cannot be captured.
    """
    wait = torch.cuda.synchronize
    single = time_call(call, 0.0, wait).median_s
    count = calls_in_graph(single, rotation)
    graph = capture(torch, call, count)
    timing = time_call(graph.replay, budget_s, wait)
    graph.reset()
    return per_call(timing, count)


def per_call(timing: Timing, count: int) -> Timing:
    """Return the time of one of ``count`` calls that were timed together."""
    return replace(timing, median_s=timing.median_s / count, quiet_s=timing.quiet_s / count)
