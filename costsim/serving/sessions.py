"""Follow-up requests: closed loops with think time, multi-turn chats, agents that call tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from costsim.serving.traffic import Sessions

if TYPE_CHECKING:
    from costsim.serving.fleet_core import FleetCore

_PER_SESSION = 1 << 24


class Conversations:
    """Makes the next request of a session when the one before has left the fleet.

    Draws belong to the session and turn, not to the order of events, so that the fast and the
    step-by-step mode make the same requests.

    Args:
        sessions: how sessions go on.
        seed: of think times and lengths.
        hash_tokens: tokens of a prefix hash block; a session's own context gets hashes of its own.
    """

    def __init__(self, sessions: Sessions, seed: int, hash_tokens: int) -> None:
        self.sessions, self.seed, self.hash_tokens = sessions, seed, hash_tokens
        self.turn: dict[int, int] = {}
        self.home: dict[int, int] = {}

    def after(self, fleet: FleetCore, request: int, now: float) -> None:
        """A request has left the fleet: plan the one that follows, if any."""
        session = self.home.get(request, request)
        turn = self.turn.get(session, 1)
        if self.sessions.turns and turn >= self.sessions.turns:
            return
        if fleet.requests.status[request] != 3 and self.sessions.turns:
            return
        random = np.random.Generator(np.random.Philox(key=self.seed, counter=[session, turn, 0, 0]))
        when = now + (random.exponential(self.sessions.think_s) if self.sessions.think_s else 0.0)
        if when > self.sessions.until_s:
            return
        self.turn[session] = turn + 1
        self._append(fleet, session, request, when, random)

    def _append(
        self, fleet: FleetCore, session: int, last: int, when: float, random: np.random.Generator
    ) -> None:
        rules, table = self.sessions, fleet.requests
        before = table.prompt[last] + table.output[last] if rules.grows else 0
        prompt = before + (rules.prompt_tokens or (0 if rules.grows else table.prompt[session]))
        output = rules.output_tokens or table.output[session]
        if rules.geometric:
            output = int(random.geometric(1.0 / output))
        kept = ("priority", "tenant", "pool", "timeout")
        columns = {name: [getattr(table, name)[last]] for name in kept}
        columns |= {"arrival": [when], "prompt": [max(1, prompt)], "output": [output]}
        columns["session"] = [session]
        request = len(table)
        hashes = None
        if table.block_hashes is not None and rules.grows:
            hashes = [self._hashes(table.block_hashes[last], session, prompt + output)]
        table.extend(columns, hashes)
        self.home[request] = session
        fleet.arrive_at(request, when)

    def _hashes(self, before: Sequence[int], session: int, tokens: int) -> tuple[int, ...]:
        """Return the hashes of the last request's blocks, and of the session's own after them."""
        known = tuple(before)
        more = range(len(known), tokens // self.hash_tokens)
        return known + tuple(-(session * _PER_SESSION + at) - 1 for at in more)
