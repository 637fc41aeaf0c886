"""What the fleet is asked: requests as columns, and the sessions that make more of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from costsim.errors import InputError
from costsim.serving.trace_fields import Trace


@dataclass(frozen=True)
class SloClass:
    """Targets of a class of requests; a target of infinity is none.

    Args:
        name: of the class (or tenant).
        ttft_s, tpot_s, e2e_s: targets.
        priority: lower goes first where the scheduler's order is by priority.
        share: of the requests that belong to the class.
        timeout_s: after which a request is given up.
    """

    name: str = "all"
    ttft_s: float = float("inf")
    tpot_s: float = float("inf")
    e2e_s: float = float("inf")
    priority: int = 0
    share: float = 1.0
    timeout_s: float = float("inf")


@dataclass(frozen=True)
class Sessions:
    """Follow-up requests: a user who thinks and asks again, or an agent that calls tools.

    Args:
        turns: requests of a session; 0 for without end (a closed loop).
        think_s: mean of the exponential time between an answer and the next request.
        users: sessions that start at time zero; 0 where sessions start by arrivals.
        prompt_tokens: new tokens of a follow-up; with ``grows`` on top of all that came before.
        output_tokens: tokens of a follow-up's answer; 0 for the first request's.
        grows: whether the context of earlier turns is sent again.
        geometric: whether output lengths are drawn (geometric) instead of fixed.
        until_s: no follow-up arrives later.
    """

    turns: int = 0
    think_s: float = 0.0
    users: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    grows: bool = True
    geometric: bool = False
    until_s: float = float("inf")


@dataclass(frozen=True)
class Traffic:
    """Requests that arrive by themselves, in order of arrival.

    Args:
        arrival: s, never falling.
        prompt, output: tokens; a prompt of zero tokens counts as one.
        block_hashes: hashes of the prompt's blocks, for the prefix cache.
        hash_tokens: tokens of one hash block.
        columns: further columns of the request table (``priority``, ``pool``, ``session`` …);
            ``prefix_tokens`` at the beginning of a prompt are the same in all of its
            ``prefix_group`` (a system prompt), where no hashes are given.
        classes: SLO classes; column ``tenant`` numbers them.
        sessions: follow-ups, None for none; by name of the pool where there are several.
        pools: names that column ``pool`` numbers.
        max_in_flight: of a client that sends a request only while fewer are in flight (``--max-
            concurrency`` of a benchmark); 0 for no limit. Requests arrive when they are sent.
    """

    arrival: np.ndarray
    prompt: np.ndarray
    output: np.ndarray
    block_hashes: Sequence[Any] | None = None
    hash_tokens: int = 512
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    classes: tuple[SloClass, ...] = (SloClass(),)
    sessions: Sessions | Mapping[str, Sessions] | None = None
    pools: tuple[str, ...] = ("default",)
    max_in_flight: int = 0

    def __post_init__(self) -> None:
        if not len(self.arrival):
            raise InputError("traffic: there are no requests")
        if not len(self.arrival) == len(self.prompt) == len(self.output):
            raise InputError("traffic: arrival, prompt and output differ in length")
        if not np.all(np.isfinite(self.arrival)) or np.any(np.diff(self.arrival) < 0):
            raise InputError("traffic: arrival times must be finite and never fall")
        if np.any(np.asarray(self.prompt) < 0) or np.any(np.asarray(self.output) < 1):
            raise InputError("traffic: prompts must have >= 0 and outputs >= 1 tokens")
        if self.max_in_flight < 0:
            raise InputError(f"traffic: max_in_flight = {self.max_in_flight}: must not be negative")
        if self.max_in_flight and self.sessions is not None:
            raise InputError("traffic: max_in_flight does not go with sessions")

    def __len__(self) -> int:
        return len(self.arrival)

    @property
    def rules(self) -> dict[int, Sessions]:
        """How sessions go on, by the number of their pool."""
        if self.sessions is None:
            return {}
        if isinstance(self.sessions, Sessions):
            return dict.fromkeys(range(len(self.pools)), self.sessions)
        return {self.pools.index(name): rules for name, rules in self.sessions.items()}

    @property
    def rate(self) -> float:
        """Mean requests per second."""
        span = float(self.arrival[-1] - self.arrival[0])
        return (len(self) - 1) / span if span > 0 else float("inf")

    def at_rate(self, rate: float) -> Traffic:
        """Return the same requests with their times stretched to a mean rate (requests/s)."""
        if not np.isfinite(rate) or rate <= 0:
            raise InputError(f"traffic: rate = {rate}: must be finite and above zero")
        if not np.isfinite(self.rate):
            raise InputError("traffic: all requests arrive at once; their rate cannot be rescaled")
        return replace(self, arrival=self.arrival * (self.rate / rate))

    def repeated(self, count: int) -> Traffic:
        """Return ``count`` requests: these, again and again, one mean gap apart."""
        gap = 1.0 / self.rate if np.isfinite(self.rate) else 0.0
        span = float(self.arrival[-1] - self.arrival[0]) + gap
        at = np.arange(count)
        rounds, row = at // len(self), at % len(self)
        hashes = self.block_hashes
        return replace(
            self,
            arrival=self.arrival[row] + rounds * span,
            prompt=self.prompt[row],
            output=self.output[row],
            block_hashes=None if hashes is None else [hashes[i] for i in row.tolist()],
            columns={name: values[row] for name, values in self.columns.items()},
        )

    def in_classes(self, classes: Sequence[SloClass], seed: int = 0) -> Traffic:
        """Return the same requests dealt out to SLO classes by their shares."""
        shares = np.array([c.share for c in classes], dtype=float)
        if not len(shares) or np.any(shares < 0) or shares.sum() <= 0:
            raise InputError("traffic: shares of classes must not be negative, nor all zero")
        random = np.random.default_rng([seed, 7])
        tenant = random.choice(len(shares), size=len(self), p=shares / shares.sum())
        columns = dict(self.columns)
        columns["tenant"] = tenant
        columns["priority"] = np.array([c.priority for c in classes])[tenant]
        columns["timeout"] = np.array([c.timeout_s for c in classes])[tenant]
        return replace(self, columns=columns, classes=tuple(classes))


def from_trace(trace: Trace) -> Traffic:
    """Return the traffic of a trace."""
    columns = {} if trace.session is None else {"session": trace.session}
    return Traffic(
        trace.arrival, trace.prompt, trace.output, trace.block_hashes, trace.hash_tokens, columns
    )


def generated(
    arrival: np.ndarray, input_tokens: Any, output_tokens: Any, **extra: Any
) -> Traffic:
    """Return traffic with given arrivals and lengths (one number, or one per request)."""
    count = len(arrival)
    prompt = np.broadcast_to(np.asarray(input_tokens, dtype=np.int64), (count,))
    output = np.broadcast_to(np.asarray(output_tokens, dtype=np.int64), (count,))
    return Traffic(np.asarray(arrival, dtype=float), prompt, output, **extra)


def _class_names(parts: dict[str, Traffic]) -> tuple[SloClass, ...]:
    """Return all classes, named after their pools, so that each name is there once."""
    return tuple(
        replace(slo, name=name if len(flow.classes) == 1 else f"{name}: {slo.name}")
        for name, flow in parts.items() for slo in flow.classes
    )  # fmt: skip


def merged(parts: dict[str, Traffic]) -> Traffic:
    """Return one traffic from that of several pools, by the name of each pool."""
    names = tuple(parts)
    flows = list(parts.values())
    sizes = {flow.hash_tokens for flow in flows if flow.block_hashes}
    if len(sizes) > 1:
        raise InputError(f"pools: prefix hashes of blocks of {sorted(sizes)} tokens in one fleet")
    sessions = {
        name: flow.sessions for name, flow in parts.items() if isinstance(flow.sessions, Sessions)
    }
    arrival = np.concatenate([flow.arrival for flow in flows])
    order = np.argsort(arrival, kind="stable")
    pool = np.concatenate([np.full(len(flow), at) for at, flow in enumerate(flows)])
    classes = _class_names(parts)
    starts = np.cumsum([0] + [len(flow.classes) for flow in flows])
    tenant = np.concatenate([
        flow.columns.get("tenant", np.zeros(len(flow), np.int64)) + start
        for flow, start in zip(flows, starts[:-1], strict=True)
    ])  # fmt: skip
    columns = {"pool": pool[order], "tenant": tenant[order]}
    for name in {name for flow in flows for name in flow.columns} - {"pool", "tenant"}:
        default = {"timeout": np.inf, "session": -1}.get(name, 0)
        values = [flow.columns.get(name, np.full(len(flow), default)) for flow in flows]
        columns[name] = np.concatenate(values)[order]
    hashes: list[Any] = [h for flow in flows for h in (flow.block_hashes or [()] * len(flow))]
    return Traffic(
        arrival[order],
        np.concatenate([flow.prompt for flow in flows])[order],
        np.concatenate([flow.output for flow in flows])[order],
        [hashes[i] for i in order] if any(flow.block_hashes for flow in flows) else None,
        sizes.pop() if sizes else flows[0].hash_tokens,
        columns,
        classes,
        sessions or None,
        names,
    )
