"""What a simulation is made of: kinds of replicas in pools, their traffic, what happens to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from costsim.economics.prices import Rent, rent
from costsim.engine.deployment import Deployment
from costsim.errors import InputError
from costsim.serving.operations import load_operations
from costsim.serving.pool import Link, ReplicaSpec
from costsim.serving.traffic import Traffic, load_traffic, merged


@dataclass(frozen=True)
class Part:
    """Replicas of one kind.

    Args:
        deployment: what each of them is.
        count: replicas.
        pool: that they serve in.
        role: ``both``, ``prefill`` or ``decode``.
        price: term of the rent.
        scheduler: fields that differ from the engine's settings.
    """

    deployment: Deployment
    count: int = 1
    pool: str = "default"
    role: str = "both"
    price: str = "on_demand"
    scheduler: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rent(self) -> Rent:
        """Price of one accelerator."""
        return rent(self.deployment.hardware, self.price)

    def spec(self, longest: int, image_s: float) -> ReplicaSpec:
        """Return the replicas for the simulator, for requests of up to ``longest`` tokens."""
        from costsim.serving.engine_cost import replica_of

        return replica_of(
            self.deployment, self.count, self.pool, self.role, longest, image_s, **self.scheduler
        )


@dataclass(frozen=True)
class RunOptions:
    """How a simulation is run; see `costsim.serving.simulation.simulate`.

    ``allow_overload`` simulates a load above the capacity instead of refusing it, ``replications``
    is how many seeds are run, from ``seed`` on, in ``processes`` at once, and a checkpoint is
    written every ``checkpoint_every_s`` of wall-clock time.
    """

    seed: int = 0
    replications: int = 1
    processes: int = 1
    warmup_s: float = 0.0
    until_s: float = float("inf")
    sample_s: float = 0.0
    time_limit_s: float | None = None
    oversize: str = "error"
    mode: str = "fast"
    invariants: bool = False
    allow_overload: bool = False
    checkpoint_every_s: float = 10.0


@dataclass(frozen=True)
class FleetCase:
    """A fleet, its traffic, and how it is run.

    Args:
        parts: kinds of replicas.
        traffic: of each pool: its table, or a Traffic.
        operations: of each pool: ``router``, ``autoscaler``, ``admission``, ``link``.
        events: ``retries``, ``failures`` and ``rolling_restart`` of the whole fleet.
        options: of the run.
        folder: that relative paths of traces start from.
        title: to show.
    """

    parts: tuple[Part, ...]
    traffic: Mapping[str, Mapping[str, Any] | Traffic]
    operations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    events: Mapping[str, Any] = field(default_factory=dict)
    options: RunOptions = field(default_factory=RunOptions)
    folder: Path = Path()
    title: str = ""

    @property
    def pools(self) -> tuple[str, ...]:
        """Names of the pools, in the order of their traffic."""
        return tuple(self.traffic)

    def parts_of(self, pool: str) -> list[Part]:
        """Return the kinds of replicas of a pool."""
        return [part for part in self.parts if part.pool == pool]

    def flows(self, seed: int) -> dict[str, Traffic]:
        """Return the traffic of each pool; one line of error names the pool."""
        found = {}
        for at, (pool, table) in enumerate(self.traffic.items()):
            if isinstance(table, Traffic):
                found[pool] = replace(table, pools=(pool,))
                continue
            try:
                flow = load_traffic(self._with_images(pool, dict(table)), self.folder,
                                    seed + _POOL_SEED * at)  # fmt: skip
            except InputError as mistake:
                several = len(self.traffic) > 1
                raise InputError(f"pool '{pool}': {mistake}" if several else str(mistake)) from None
            found[pool] = replace(flow, pools=(pool,))
        return found

    def _with_images(self, pool: str, table: dict[str, Any]) -> dict[str, Any]:
        """Return a traffic table whose images have their prompt tokens."""
        if not table.get("images") or table.get("image_tokens"):
            return table
        return table | {"image_tokens": round(self._image(pool, table)[0])}

    def _image(self, pool: str, table: Mapping[str, Any]) -> tuple[float, float]:
        """Return prompt tokens and encoder time of one image of a pool's traffic."""
        from costsim.engine.encoder import encode
        from costsim.models.multimodal import Images

        size = Images(int(table.get("image_height", 1024)), int(table.get("image_width", 1024)))
        found = encode(self.parts_of(pool)[0].deployment, size)
        return found.prompt_tokens, float(found.step.seconds)

    def image_s(self, pool: str) -> float:
        """Return the encoder's time of one image of a pool's traffic; 0 where there are none."""
        table = self.traffic[pool]
        if isinstance(table, Traffic) or not table.get("images"):
            return 0.0
        encoders = self.parts_of(pool)[0].deployment.model.encoders
        sees = any(encoder.modality == "image" for encoder in encoders)
        return self._image(pool, table)[1] if sees else 0.0

    def specs(self, flows: Mapping[str, Traffic]) -> list[ReplicaSpec]:
        """Return the replicas for the simulator, each kind for the longest of its requests."""
        found = []
        for part in self.parts:
            flow = flows[part.pool]
            longest = int(np.max(np.asarray(flow.prompt) + np.asarray(flow.output))) + 1
            longest = max(longest, 32_768) if flow.sessions is not None else longest
            found.append(part.spec(longest, self.image_s(part.pool)))
        return found

    def controls(self, seed: int) -> dict[str, Any]:
        """Return the keywords of the simulator for routers, controllers, admission and links."""
        found = load_operations(dict(self.events), seed)
        routers, admission, links = {}, {}, dict[str, Link]()
        for at, pool in enumerate(self.pools):
            mine = load_operations(dict(self.operations.get(pool, {})), seed, pool=at)
            routers[pool] = mine["router"]
            found["controllers"] += mine["controllers"]
            if "admission" in mine:
                admission[pool] = mine["admission"]
            link = mine.get("link") or default_link(self.parts_of(pool))
            if link is not None:
                links[pool] = link
        return found | {"router": routers, "admission": admission, "link": links}


_POOL_SEED = 7_919


def default_link(parts: list[Part]) -> Link | None:
    """Return the link that a decode replica fetches caches over: its accelerators' scale-out."""
    decoders = [part.deployment for part in parts if part.role == "decode"]
    if not decoders:
        return None
    out = decoders[0].hardware.scale_out
    each = float(np.max(out.bandwidth_bytes_per_s)) * float(decoders[0].accelerators)
    return Link(each, float(np.max(out.latency_s)))


def together(flows: Mapping[str, Traffic]) -> Traffic:
    """Return the traffic of all pools as one."""
    return next(iter(flows.values())) if len(flows) == 1 else merged(dict(flows))
