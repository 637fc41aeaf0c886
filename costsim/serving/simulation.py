"""Simulate a fleet under traffic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from costsim.errors import DoesNotFitError, InputError, unknown_name
from costsim.serving.fleet import Admission, Fleet, Link, ReplicaSpec, check_capacity
from costsim.serving.fleet_core import Follower
from costsim.serving.overhead import with_overhead
from costsim.serving.requests import REJECTED, RequestTable
from costsim.serving.results import SimulationResult
from costsim.serving.run import collect, drive, with_warmup
from costsim.serving.traffic import Traffic

HASH_TOKENS = 64
"""Tokens of a prefix hash block that is made up here, at least; finer ones take more memory."""
Progress = Callable[[float, int, int], None]
"""Called with the simulated time (s), the requests done and the requests known."""


def simulate(
    replicas: ReplicaSpec | Sequence[ReplicaSpec],
    traffic: Traffic,
    *,
    router: str | dict[str, str] = "least_outstanding",
    seed: int = 0,
    mode: str = "fast",
    controllers: Sequence[Any] = (),
    admission: Admission | dict[str, Admission] | None = None,
    link: Link | dict[str, Link] | None = None,
    oversize: str = "error",
    retries: int = 3,
    warmup_s: float = 0.0,
    until_s: float = float("inf"),
    time_limit_s: float | None = None,
    sample_s: float = 0.0,
    invariants: bool = False,
    progress: Progress | None = None,
) -> SimulationResult:
    """Return what happens when traffic meets a fleet.

    Args:
        replicas: kinds of replicas; those of one ``pool`` serve the traffic of that pool's name.
        traffic: the requests.
        router: a name in `costsim.serving.routers.ROUTERS`, for all pools or by pool.
        seed: of routers, failures and follow-ups; the same seed gives the same result.
        mode: ``fast`` leaps from one state change to the next, ``steps`` takes every step.
        controllers: autoscaler, failures, restarts (`costsim.serving.controllers`).
        admission: load shedding and dispatch, for all pools or by pool.
        link: between prefill and decode replicas, for all pools or by pool.
        oversize: what happens to requests larger than a replica's KV cache or the model's
            longest context: ``error`` before the start, or ``reject``.
        retries: times a request lost by a failure is sent again.
        warmup_s: from the first arrival; requests that arrive before its end, and what replicas
            did until then, are left out of the figures.
        until_s: simulated time at which to stop.
        time_limit_s: wall-clock time after which to stop and say so (``complete`` is False).
        sample_s: distance of the samples in the timelines; 0 for none.
        invariants: check conservation of requests, tokens and blocks after every event.
        progress: told how far the run is.

    Raises:
        InputError: no replicas, no cache, a request that can never be served, unknown names.
    """
    specs = [replicas] if isinstance(replicas, ReplicaSpec) else list(replicas)
    if mode not in ("fast", "steps"):
        raise unknown_name("mode", mode, ("fast", "steps"))
    _check_ends(traffic, until_s, time_limit_s)
    fleet = build_fleet(
        specs, traffic, router=router, seed=seed, leaps=mode == "fast", admission=admission,
        link=link, oversize=oversize, retries=retries, invariants=invariants,
    )  # fmt: skip
    samples, complete = drive(
        fleet, with_warmup(controllers, traffic, warmup_s), until_s=until_s,
        time_limit_s=time_limit_s, sample_s=sample_s, progress=progress,
    )  # fmt: skip
    return collect(fleet, traffic, samples, warmup_s, complete)


def build_fleet(
    specs: list[ReplicaSpec],
    traffic: Traffic,
    *,
    router: str | dict[str, str] = "least_outstanding",
    seed: int = 0,
    leaps: bool = True,
    admission: Admission | dict[str, Admission] | None = None,
    link: Link | dict[str, Link] | None = None,
    oversize: str = "error",
    retries: int = 3,
    invariants: bool = False,
) -> Fleet:
    """Return a fleet with its replicas, ready to run; see `simulate`."""
    check_capacity(specs)
    _check_pools(specs, traffic)
    traffic = _with_hashes(specs, traffic)
    follower: Follower | None = None
    if traffic.max_in_flight:
        from costsim.serving.client import LimitedClient

        _table(specs, traffic, oversize)  # Fails where one that is sent later is too large.
        client = LimitedClient(traffic)
        traffic, follower = client.first, client
    table = _table(specs, traffic, oversize)
    if traffic.sessions is not None:
        from costsim.serving.sessions import Conversations

        follower = Conversations(traffic.rules, seed, traffic.hash_tokens)
    fleet = Fleet(table, seed, leaps, traffic.hash_tokens, retries, follower)
    for name in traffic.pools:
        pool = fleet.add_pool(
            name, _of_pool(router, name) or "least_outstanding", _of_pool(admission, name),
            _of_pool(link, name),
        )  # fmt: skip
        pool.longest = longest_request(specs, name)
        pool.overhead_s = max(s.scheduler.request_overhead_s for s in specs if s.pool == name)
        for kind, spec in enumerate(specs):
            if spec.pool == name:
                _check_hashes(spec, traffic)
                cost = with_overhead(spec.cost, spec.scheduler)
                made = replace(spec, cost=cost, kind=kind)
                for _ in range(spec.count):
                    fleet.add_group(pool, made)
    if invariants:
        from costsim.serving.invariants import check

        fleet.audit = check
    fleet.delayed = any(pool.overhead_s for pool in fleet.pools)
    return fleet


def _with_hashes(specs: list[ReplicaSpec], traffic: Traffic) -> Traffic:
    """Return the traffic with prefix hashes where a cache can use them."""
    grows = any(rules.grows for rules in traffic.rules.values())
    caches = [spec.scheduler.block_tokens for spec in specs if spec.scheduler.prefix_cache]
    shared = grows or "prefix_tokens" in traffic.columns
    if traffic.block_hashes is not None or not caches or not shared:
        return traffic
    from costsim.serving.sessions import with_hashes

    unit = math.lcm(*caches)
    return with_hashes(traffic, unit * -(-HASH_TOKENS // unit))


def _of_pool(value: Any, pool: str) -> Any:
    """Return what holds for a pool: its entry in a table by pool, or the one value for all."""
    return value.get(pool) if isinstance(value, dict) else value


def _check_ends(traffic: Traffic, until_s: float, time_limit_s: float | None) -> None:
    """Raise InputError where sessions go on for ever and nothing ends the run."""
    if time_limit_s is not None:
        return
    for rules in traffic.rules.values():
        if not rules.turns and min(until_s, rules.until_s) == float("inf"):
            raise InputError(
                "sessions without a number of turns never end: give turns, duration_s or a time "
                "limit"
            )


def _check_pools(specs: list[ReplicaSpec], traffic: Traffic) -> None:
    offered = {spec.pool for spec in specs}
    for name in traffic.pools:
        if name not in offered:
            raise unknown_name("pool", name, offered)
        roles = {spec.role for spec in specs if spec.pool == name}
        if roles not in ({"both"}, {"prefill", "decode"}):
            raise InputError(
                f"pool '{name}': replicas must all have the role 'both', or some 'prefill' and "
                f"some 'decode'; found {', '.join(sorted(roles))}"
            )
        if not any(s.count > 0 for s in specs if s.pool == name):
            raise InputError(f"pool '{name}': has no replicas, so that its requests never end")


def _check_hashes(spec: ReplicaSpec, traffic: Traffic) -> None:
    cached = spec.scheduler.prefix_cache and traffic.block_hashes is not None
    if cached and traffic.hash_tokens % spec.scheduler.block_tokens:
        raise InputError(
            f"pool '{spec.pool}': block_tokens = {spec.scheduler.block_tokens} must divide the "
            f"{traffic.hash_tokens} tokens of a hash block"
        )


def longest_request(specs: list[ReplicaSpec], pool: str) -> int:
    """Return the tokens, prompt and output, of the longest request that a pool can serve."""
    mine = [spec for spec in specs if spec.pool == pool]
    held = min(spec.blocks * spec.scheduler.block_tokens + 1 for spec in mine)
    limits = [spec.scheduler.max_model_len for spec in mine if spec.scheduler.max_model_len]
    return min([held, *limits])


def _table(specs: list[ReplicaSpec], traffic: Traffic, oversize: str) -> RequestTable:
    if oversize not in ("error", "reject"):
        raise unknown_name("oversize", oversize, ("error", "reject"))
    most = np.array([longest_request(specs, name) for name in traffic.pools])
    pool = traffic.columns.get("pool", np.zeros(len(traffic), np.int64))
    prompt = np.maximum(1, np.asarray(traffic.prompt))
    whole = prompt + np.asarray(traffic.output)
    over = np.flatnonzero(whole > most[pool])
    if len(over) and (oversize == "error" or len(over) == len(traffic)):
        first = int(over[0])
        raise DoesNotFitError(
            f"request {first} has {int(whole[first])} tokens, prompt and output; the longest that "
            f"pool '{traffic.pools[int(pool[first])]}' can hold has {int(most[pool[first]])} "
            f"({len(over)} of {len(traffic)} requests are too long)"
        )
    columns: dict[str, Any] = {
        "arrival": traffic.arrival, "prompt": prompt, "output": traffic.output, **traffic.columns
    }  # fmt: skip
    columns["status"] = np.where(whole > most[pool], REJECTED, 0)
    if traffic.sessions is not None:
        own = np.arange(len(traffic))
        given = traffic.columns.get("session", np.full(len(traffic), -1))
        columns["session"] = np.where(given < 0, own, given)
    table = RequestTable()
    table.extend(columns, traffic.block_hashes)
    return table
