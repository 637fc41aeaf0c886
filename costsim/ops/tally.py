"""Adds up kernel latencies into the time of a pass, by operator and by what limits them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from costsim.kernels.calibration import Latency

# What operators are called that are put together.
KERNELS, NETWORK = "kernels", "collectives"
RESOURCES = ("compute", "memory", "network", "host")
# Fields of `Tally` that are sums of work.
_WORK = ("flop", "memory_bytes", "network_bytes", "calls")
# Errors of two operators of one calibration are taken as half correlated: they share clocks,
# power limits and software, but not their kernels.
ERROR_CORRELATION = 0.5
# Host time depends on the processor and the engine's version; without a fit it is this unsure.
HOST_LOG_ERROR = 0.3


@dataclass
class Tally:
    """Running sums; all values are arrays that broadcast together.

    Args:
        by_operator, by_resource: seconds.
        error: seconds times log error, by operator.
        flop, memory_bytes, network_bytes: work per accelerator.
        calls: kernels started.
        network: names of collectives, a part of ``by_operator``.
        alone: sums of the squared errors of operators that were put together (`brief`).
    """

    by_operator: dict[str, Any] = field(default_factory=dict)
    by_resource: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(RESOURCES, 0.0))
    error: dict[str, Any] = field(default_factory=dict)
    flop: Any = 0.0
    memory_bytes: Any = 0.0
    network_bytes: Any = 0.0
    calls: Any = 0.0
    network: set[str] = field(default_factory=set)
    alone: dict[str, Any] = field(default_factory=dict)

    def add(self, names: Sequence[str], latency: Latency, weights: Any) -> None:
        """Add kernels of one kind.

        The launch goes to the host; the rest to whichever limit alone takes longest.

        Args:
            names: one for each kernel.
            latency: of one call of each; arrays have a first axis for the kernels, or are the
                same for all.
            weights: calls of each, with that axis.
        """
        seconds, fixed = latency.seconds * weights, latency.fixed_s * weights
        errors = seconds * latency.log_error
        for i, name in enumerate(names):
            _add(self.by_operator, name, seconds[i])
            _add(self.error, name, errors[i])
        self._charge("host", fixed)
        busy = seconds - fixed
        if np.any(latency.network_s):
            self.network.update(names)
            self._charge("network", busy)
        else:
            computing = busy * (latency.compute_s > latency.memory_s)
            self._charge("compute", computing)
            self._charge("memory", busy - computing)
        self.calls = self.calls + _summed(weights)
        for name in _WORK[:3]:
            work = getattr(latency, name)
            if not (isinstance(work, float) and work == 0.0):
                _add(vars(self), name, _summed(work * weights))

    def _charge(self, resource: str, seconds: Any) -> None:
        self.by_resource[resource] = self.by_resource[resource] + _summed(seconds)

    def add_host(self, name: str, seconds: Any, log_error: float = HOST_LOG_ERROR) -> None:
        """Add host time that no kernel covers."""
        self.by_operator[name] = self.by_operator.get(name, 0.0) + seconds
        self.by_resource["host"] = self.by_resource["host"] + seconds
        self.error[name] = self.error.get(name, 0.0) + seconds * log_error

    def overlap_network(self, share: Any) -> None:
        """Hide a share of the network's time behind other work, never more than there is of that.

        Args:
            share: of the collectives' time that can run beside kernels (0 to 1).
        """
        network = total({name: self.by_operator[name] for name in self.network})
        rest = np.maximum(self.seconds - network, 0.0)
        hidden = np.minimum(network * share, rest)
        kept = 1.0 - hidden / np.maximum(network, 1e-30)
        for name in self.network:
            self._multiply(name, kept)
        # Launches of collectives stand under host: take the hidden time from both in proportion.
        wire = self.by_resource["network"]
        launches = np.maximum(network - wire, 0.0)
        self.by_resource["network"] = wire * kept
        self.by_resource["host"] = self.by_resource["host"] - launches * (1.0 - kept)

    def hide(self, names: Sequence[str], behind: str, share: Any = 1.0) -> None:
        """Hide operators behind another that runs beside them, never more than it takes.

        Args:
            names: of the operators, as far as there are any.
            behind: the operator they run beside.
            share: of their time that can be hidden.
        """
        found = [name for name in names if name in self.by_operator]
        if not found or behind not in self.by_operator:
            return
        time = total({name: self.by_operator[name] for name in found})
        kept = 1.0 - np.minimum(time * share, self.by_operator[behind]) / np.maximum(time, 1e-30)
        left = 1.0 - time * (1.0 - kept) / np.maximum(self.seconds, 1e-30)
        for name in found:
            self._multiply(name, kept)
        for resource in RESOURCES:
            self.by_resource[resource] = self.by_resource[resource] * left

    def _multiply(self, name: str, factor: Any) -> None:
        self.by_operator[name] = self.by_operator[name] * factor
        self.error[name] = self.error[name] * factor
        if name in self.alone:
            self.alone[name] = self.alone[name] * (factor * factor)

    def scale(self, factor: Any, besides: Sequence[str] = ()) -> None:
        """Multiply all times so far by a factor, which may be an array.

        Args:
            factor: of the times.
            besides: operators that keep theirs; resources share what they keep in proportion.
        """
        before = self.seconds
        for name in self.by_operator:
            if name not in besides:
                self._multiply(name, factor)
        whole = self.seconds / np.maximum(before, 1e-30) if besides else factor
        for name in self.by_resource:
            self.by_resource[name] = self.by_resource[name] * whole

    def absorb(self, other: Tally, change: Callable[[list[Any]], list[Any]] = list) -> None:
        """Add another tally, operator by operator.

        Args:
            other: what to add.
            change: what is done to its arrays first.
        """
        sums = [(mine, name, value) for mine, its in (
            (self.by_operator, other.by_operator), (self.error, other.error),
            (self.alone, other.alone), (self.by_resource, other.by_resource),
            (vars(self), {name: vars(other)[name] for name in _WORK}))
            for name, value in its.items() if not (isinstance(value, float) and value == 0.0)]
        changed = change([value for _, _, value in sums])
        for (mine, name, _), value in zip(sums, changed, strict=True):
            _add(mine, name, value)
        self.network |= other.network

    def brief(self, apart: Collection[str]) -> None:
        """Put operators together whose breakdown nobody asks for.

        Args:
            apart: names of those that stay, since they are treated in another way than the rest.
        """
        rest = [name for name in self.by_operator if name not in apart]
        if not rest:
            return
        together = NETWORK if self.network else KERNELS
        errors = [self.error.pop(name) for name in rest]
        self.by_operator[together] = sum(self.by_operator.pop(name) for name in rest)
        self.error[together] = sum(errors)
        self.alone[together] = sum(error * error for error in errors)
        if self.network:
            self.network = (self.network & set(apart)) | {NETWORK}

    def merge(self, name: str, other: Tally) -> None:
        """Add another tally as one operator of this one."""
        self.by_operator[name] = self.by_operator.get(name, 0.0) + other.seconds
        self.error[name] = self.error.get(name, 0.0) + other.seconds * other.log_error
        for resource in RESOURCES:
            self.by_resource[resource] = self.by_resource[resource] + other.by_resource[resource]
        self.flop = self.flop + other.flop
        self.memory_bytes = self.memory_bytes + other.memory_bytes
        self.network_bytes = self.network_bytes + other.network_bytes
        self.calls = self.calls + other.calls

    @property
    def seconds(self) -> Any:
        """All of it."""
        return total(self.by_operator)

    @property
    def log_error(self) -> Any:
        """Standard deviation of log(actual / predicted) of the sum."""
        together = total(self.error)
        alone = total({k: self.alone[k] if k in self.alone else v * v
                       for k, v in self.error.items()})
        variance = ERROR_CORRELATION * together**2 + (1.0 - ERROR_CORRELATION) * alone
        return np.sqrt(variance) / np.maximum(self.seconds, 1e-30)


def _add(sums: dict[str, Any], name: str, value: Any) -> None:
    sums[name] = sums[name] + value if name in sums else value


def _summed(values: Any) -> Any:
    """Return the sum over the first axis, the kernels'."""
    return values[0] if len(values) == 1 else values.sum(axis=0)


def total(parts: Mapping[str, Any]) -> Any:
    """Return the sum of arrays, small shapes first so that large ones are made once."""
    result: Any = 0.0
    for value in sorted(parts.values(), key=np.size):
        result = result + value
    return result
