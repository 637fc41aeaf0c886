"""What one pass is asked to do on one accelerator: tokens, ranks and data types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from costsim.hardware.accelerator import Hardware
from costsim.kernels.calibration import Calibration, Latency


@dataclass(frozen=True)
class Tokens:
    """Tokens of one pass in its fullest attention group (one data-parallel rank).

    Args:
        prefill_requests: requests that prefill in this pass.
        prefill_tokens: new tokens of each.
        prefill_context: tokens of each already cached.
        decode_requests: requests that decode.
        decode_context: mean context of each.
        decode_width: tokens each decoding request verifies (1 without speculation).
        context_spread: decode attention time over that of equal contexts.
        all_groups: tokens of all attention groups together.
    """

    prefill_requests: Any = 0.0
    prefill_tokens: Any = 0.0
    prefill_context: Any = 0.0
    decode_requests: Any = 0.0
    decode_context: Any = 0.0
    decode_width: Any = 1.0
    context_spread: Any = 1.0
    all_groups: Any = 0.0

    @cached_property
    def prefill(self) -> Any:
        """New prompt tokens."""
        return np.asarray(self.prefill_requests, float) * self.prefill_tokens

    @cached_property
    def decode(self) -> Any:
        """Tokens of decoding requests."""
        return np.asarray(self.decode_requests, float) * self.decode_width

    @cached_property
    def all(self) -> Any:
        """Tokens that linear layers see."""
        return self.prefill + self.decode

    @cached_property
    def rows_of_head(self) -> Any:
        """Rows of the LM head: the last token of each prompt, every verified token."""
        return np.asarray(self.prefill_requests, float) + self.decode

    @cached_property
    def some(self) -> Any:
        """Whether there are any tokens."""
        return self.all > 0

    @cached_property
    def prompts(self) -> Any:
        """Whether there are prompt tokens."""
        return self.prefill > 0

    @cached_property
    def decodes(self) -> Any:
        """Whether requests decode."""
        return self.decode > 0


def replica_tokens(
    prefill_requests: Any, prefill_tokens: Any, prefill_context: Any, decode_requests: Any,
    decode_context: Any, groups: Any = 1, decode_width: Any = 1.0, context_spread: Any = 1.0,
) -> Tokens:
    """Return the tokens of the fullest of ``groups`` attention groups, requests dealt evenly.

    A group holds whole requests, so with fewer requests than groups the fullest has one.

    Args:
        prefill_requests, prefill_tokens, prefill_context, decode_requests, decode_context: as in
            `Tokens`, of the whole replica.
        groups: attention data-parallel ranks.
        decode_width, context_spread: as in `Tokens`.
    """
    prompts, chunk = np.asarray(prefill_requests, float), np.asarray(prefill_tokens, float)
    prompts = np.where(chunk > 0, prompts, 0.0)
    decodes = np.asarray(decode_requests, float)
    everything = prompts * chunk + decodes * decode_width
    return Tokens(
        prefill_requests=_fullest(prompts, groups), prefill_tokens=chunk,
        prefill_context=np.asarray(prefill_context, float),
        decode_requests=_fullest(decodes, groups),
        decode_context=np.asarray(decode_context, float), decode_width=decode_width,
        context_spread=context_spread, all_groups=everything,
    )


def _fullest(requests: Any, groups: Any) -> Any:
    return np.maximum(requests / np.asarray(groups, float), np.minimum(requests, 1.0))


@dataclass(frozen=True)
class Types:
    """Data types of one part of a model.

    Args:
        weight, activation: of GEMMs.
        kv: of the cache.
        communication: of collectives.
    """

    weight: str = "bf16"
    activation: str = "bf16"
    kv: str = "bf16"
    communication: str = "bf16"


@dataclass(frozen=True)
class Machine:
    """Hardware with its calibration: ``machine("gemm", m=…, …)`` is a kernel to be priced."""

    hardware: Hardware
    calibration: Calibration

    def __call__(self, operator: str, **shape: Any) -> Call:
        return Call(self, operator, shape)


@dataclass(slots=True)
class Call:
    """One kernel on a machine.

    Args:
        machine: where it runs.
        operator, shape: as in `costsim.kernels.calibration.Calibration.latency`.
        launched: False where it is more work for a kernel that is started anyway.
        derived: returns more of the shape from the rest of it.
    """

    machine: Machine
    operator: str
    shape: Mapping[str, Any]
    launched: bool = True
    derived: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None

    def whole_shape(self, shape: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a shape with what is derived from it."""
        return shape if self.derived is None else {**shape, **self.derived(shape)}

    @property
    def latency(self) -> Latency:
        """Its time."""
        return self.latency_of(self.whole_shape(self.shape))

    def latency_of(self, shape: Mapping[str, Any]) -> Latency:
        """Return the time of the same kernel with another, whole shape."""
        found = self.machine.calibration.latency(self.operator, self.machine.hardware, **shape)
        if self.launched:
            return found
        return replace(found, seconds=found.seconds - found.fixed_s, fixed_s=0.0 * found.fixed_s)
