"""Where many independent tasks run: here, in processes of this machine, or on a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from costsim.errors import CostsimError, InputError

ATTEMPTS = 3


class WorkerLostError(CostsimError):
    """A task lost its worker as often as is allowed."""


class Executor(Protocol):
    """Runs one function on many arguments."""

    def run(
        self, function: Callable[[Any], Any], arguments: Sequence[Any]
    ) -> Iterator[tuple[int, Any]]:
        """Yield (place in ``arguments``, result) as tasks finish, in any order.

        A task whose worker is lost runs again, at most `ATTEMPTS` times where nothing else gets
        on; an exception of the function itself is raised.
        """

    def close(self) -> None:
        """Give workers back."""


def mapped(executor: Executor | None, function: Callable[[Any], Any], arguments: Sequence[Any]
           ) -> list[Any]:  # fmt: skip
    """Return the results in the order of the arguments; None runs them here."""
    found: list[Any] = [None] * len(arguments)
    for at, result in (executor or SerialExecutor()).run(function, arguments):
        found[at] = result
    return found


class SerialExecutor:
    """One task after the other, in this process."""

    def run(
        self, function: Callable[[Any], Any], arguments: Sequence[Any]
    ) -> Iterator[tuple[int, Any]]:
        """Yield results in order."""
        for at, argument in enumerate(arguments):
            yield at, function(argument)

    def close(self) -> None:
        """Nothing to give back."""


class ProcessExecutor:
    """Processes of this machine; a killed one is replaced and its tasks run again.

    Args:
        workers: processes; 0 for one a core.
    """

    def __init__(self, workers: int = 0) -> None:
        if workers < 0:
            raise InputError(f"workers = {workers}: must not be negative")
        self.workers = workers or os.cpu_count() or 1
        self._pool: Any = None

    def run(
        self, function: Callable[[Any], Any], arguments: Sequence[Any]
    ) -> Iterator[tuple[int, Any]]:
        """Yield results as they finish."""
        from concurrent.futures import as_completed
        from concurrent.futures.process import BrokenProcessPool

        waiting = list(range(len(arguments)))
        fruitless = 0
        while waiting:
            pool = self._open()
            futures = {pool.submit(function, arguments[at]): at for at in waiting}
            lost = []
            for future in as_completed(futures):
                try:
                    result = future.result()
                except BrokenProcessPool:
                    lost.append(futures[future])
                    continue
                yield futures[future], result
            fruitless = fruitless + 1 if len(lost) == len(waiting) else 0
            waiting = sorted(lost)
            if lost:
                self.close()
            if fruitless >= ATTEMPTS:
                raise WorkerLostError(f"{len(lost)} tasks lose their worker process every time")

    def _open(self) -> Any:
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.workers, mp_context=get_context("spawn"))
        return self._pool

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


class DaskExecutor:
    """A Dask cluster (extra ``distributed``); its scheduler runs tasks of lost workers again.

    Args:
        address: of the scheduler, such as ``tcp://10.0.0.1:8786``; ``local`` starts a cluster of
            processes on this machine.
        workers: of a local cluster; 0 for one a core.
        timeout_s: to wait for the scheduler.
    """

    def __init__(
        self, address: str = "local", workers: int = 0, timeout_s: float = 10.0
    ) -> None:
        try:
            from dask.distributed import Client, LocalCluster
        except ImportError:
            raise InputError("Dask is not installed: pip install costsim[distributed]") from None
        self._cluster: Any = None
        if address == "local":
            self._cluster = LocalCluster(
                n_workers=workers or os.cpu_count() or 1, threads_per_worker=1,
                dashboard_address="127.0.0.1:0", host="127.0.0.1",
            )  # fmt: skip
        try:
            self.client = Client(self._cluster or address, timeout=timeout_s,
                                 set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(f"no Dask scheduler answers at {address}: {error}") from None

    def run(
        self, function: Callable[[Any], Any], arguments: Sequence[Any]
    ) -> Iterator[tuple[int, Any]]:
        """Yield results as they finish."""
        from dask.distributed import as_completed

        futures = {
            self.client.submit(function, argument, pure=False, retries=ATTEMPTS): at
            for at, argument in enumerate(arguments)
        }
        for future in as_completed(futures, loop=self.client.loop):
            yield futures[future], future.result()

    def close(self) -> None:
        """Leave the cluster, and end it where it was started here."""
        self.client.close()
        if self._cluster is not None:
            self._cluster.close()


def make_executor(dask: str = "", workers: int = 1) -> Executor:
    """Return the executor that options ask for.

    Args:
        dask: address of a scheduler or ``local``; ``""`` for none.
        workers: processes where there is no Dask; 1 runs here, 0 is one a core.
    """
    if dask:
        return DaskExecutor(dask, 0 if workers == 1 else workers)
    return SerialExecutor() if workers == 1 else ProcessExecutor(workers)
