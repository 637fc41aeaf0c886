"""Follow-up requests: closed loops with think time, multi-turn chats, agents that call tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from costsim.serving.requests import FINISHED, REJECTED
from costsim.serving.traffic import Sessions, Traffic

if TYPE_CHECKING:
    from costsim.serving.fleet_core import FleetCore

_PER_SESSION = 1 << 24
REFUSED_WAIT_S = 1.0
"""Least time until a user whose request was refused comes again: without one, users who do not
think would be refused without end at one moment."""


class Conversations:
    """Makes the next request of a session when the one before has left the fleet.

    Draws belong to the session and turn, not to the order of events, so that the fast and the
    step-by-step mode make the same requests.

    Args:
        sessions: how sessions go on, by the number of their pool.
        seed: of think times and lengths.
        hash_tokens: tokens of a prefix hash block; a session's own context gets hashes of its own.
    """

    def __init__(self, sessions: Mapping[int, Sessions], seed: int, hash_tokens: int) -> None:
        self.sessions, self.seed, self.hash_tokens = sessions, seed, hash_tokens
        self.turn: dict[int, int] = {}
        self.home: dict[int, int] = {}

    def after(self, fleet: FleetCore, request: int, now: float) -> None:
        """A request has left the fleet: plan the one that follows, if any."""
        rules = self.sessions.get(fleet.requests.pool[request])
        session = self.home.get(request, request)
        turn = self.turn.get(session, 1)
        if rules is None or (rules.turns and turn >= rules.turns):
            return
        status = fleet.requests.status[request]
        if status != FINISHED and rules.turns:
            return
        random = np.random.Generator(np.random.Philox(key=self.seed, counter=[session, turn, 0, 0]))
        wait = random.exponential(rules.think_s) if rules.think_s else 0.0
        when = now + (max(wait, REFUSED_WAIT_S) if status == REJECTED else wait)
        if when > rules.until_s:
            return
        self.turn[session] = turn + 1
        self._append(fleet, rules, session, request, when, random)

    def _append(
        self, fleet: FleetCore, rules: Sessions, session: int, last: int, when: float,
        random: np.random.Generator,
    ) -> None:
        table = fleet.requests
        # A user whose last request was refused or lost starts anew.
        grows = rules.grows and table.status[last] == FINISHED
        if grows:
            prompt = table.prompt[last] + table.output[last] + rules.prompt_tokens
        elif rules.grows:
            prompt = table.prompt[session]
        else:
            prompt = rules.prompt_tokens or table.prompt[session]
        output = rules.output_tokens or table.output[session]
        if rules.geometric:
            output = int(random.geometric(1.0 / output))
        kept = ("priority", "tenant", "pool", "timeout")
        columns = {name: [getattr(table, name)[last]] for name in kept}
        columns |= {"arrival": [when], "prompt": [max(1, prompt)], "output": [output]}
        columns["session"] = [table.session[session]]
        request = len(table)
        hashes = None
        if table.block_hashes is not None and rules.grows:
            known = table.block_hashes[last if grows else session]
            hashes = [self._hashes(known, session, prompt + output)]
        table.extend(columns, hashes)
        self.home[request] = session
        fleet.arrive_at(request, when)

    def _hashes(self, before: Sequence[int], session: int, tokens: int) -> tuple[int, ...]:
        """Return the hashes of the last request's blocks, and of the session's own after them."""
        known = tuple(before)
        return known + own_blocks(session, len(known), tokens // self.hash_tokens)


def own_blocks(session: int, first: int, last: int) -> tuple[int, ...]:
    """Return the hashes of the blocks ``first`` to ``last - 1`` that only one session has."""
    return tuple(-(session * _PER_SESSION + at) - 1 for at in range(first, last))


def with_hashes(traffic: Traffic, hash_tokens: int) -> Traffic:
    """Return the same traffic with prefix hashes: equal where the beginnings of prompts are.

    The first ``prefix_tokens`` are those of the request's ``prefix_group``; all further blocks
    are its own, and of its session's later turns.

    Args:
        traffic: without hashes.
        hash_tokens: tokens of a hash block.
    """
    none = np.zeros(len(traffic), np.int64)
    shared = (traffic.columns.get("prefix_tokens", none) // hash_tokens).tolist()
    groups = traffic.columns.get("prefix_group", none).tolist()
    tokens = np.asarray(traffic.prompt) + (np.asarray(traffic.output) if traffic.sessions else 0)
    blocks = (np.minimum(tokens, _PER_SESSION * hash_tokens) // hash_tokens).tolist()
    found = []
    for request, (count, group) in enumerate(zip(blocks, groups, strict=True)):
        first = group * _PER_SESSION
        common = tuple(range(first, first + min(shared[request], count)))
        found.append(common + own_blocks(request, len(common), count))
    return replace(traffic, block_hashes=found, hash_tokens=hash_tokens)
