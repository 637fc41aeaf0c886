"""What starting a kernel costs: one by one, and inside a captured graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from costsim.kernels.gpu_harness.backend import GpuBackend
from costsim.kernels.gpu_harness.captured import capture, per_call
from costsim.kernels.measure.timing import Timing, time_call


def launch_rows(backend: GpuBackend, kernels: int, budget_s: float) -> Iterator[dict[str, Any]]:
    """Yield times of the smallest kernel there is: launched, and in a graph.

    Rows: ``eager`` (per kernel, launched one after the other), ``round_trip`` (one kernel and the
    wait for it), and on a GPU ``graph_kernel`` (per kernel of a long graph) and
    ``graph_round_trip`` (a graph of one kernel and the wait for it).

    Args:
        backend: the device.
        kernels: launched in a row.
        budget_s: sampling time of each row.
    """
    torch, wait = backend.torch, backend.synchronise
    x = torch.zeros(32, device=backend.device)

    def one() -> None:
        x.add_(1.0)

    def many() -> None:
        for _ in range(kernels):
            x.add_(1.0)

    yield _row("eager", per_call(time_call(many, budget_s, wait), kernels), kernels)
    yield _row("round_trip", _awaited(one, wait, budget_s), 1)
    if backend.device != "cuda":
        return
    long, short = capture(torch, one, kernels), capture(torch, one, 1)
    yield _row("graph_kernel", per_call(time_call(long.replay, budget_s, wait), kernels), kernels)
    yield _row("graph_round_trip", _awaited(short.replay, wait, budget_s), 1)


def _awaited(call: Any, wait: Any, budget_s: float) -> Timing:
    def run() -> None:
        call()
        wait()

    return time_call(run, budget_s)


def _row(how: str, timing: Timing, kernels: int) -> dict[str, Any]:
    return {"operator": "launch", "how": how, "kernels": kernels, "latency_s": timing.quiet_s,
            "spread": timing.spread}
