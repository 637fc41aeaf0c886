"""Hours alike are planned once: a week of equal weekdays is a problem of some forty hours."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from costsim.planning.fleet import Fleet


def merged(fleet: Fleet) -> tuple[Fleet, np.ndarray]:
    """Return the fleet with hours alike as one, and the place of each hour in it.

    Hours are alike where their demand is. Where starts cost, the hours before and after must be
    alike too: what is kept running depends on where the load comes from and where it goes.
    Without starts this loses nothing: hours then meet only in what is committed, so that equal
    hours have equal best fleets. With them, hours alike have one fleet by this rule.

    Args:
        fleet: with its hours in order; one that says its ``steps`` is left as it is.
    """
    if fleet.steps is not None:
        return fleet, np.arange(fleet.demand.shape[1])
    columns = fleet.demand.T
    hours = len(columns)
    keys = [tuple(row) for row in columns]
    if fleet.cold_start_h > 0:
        keys = [(keys[h - 1], keys[h], keys[(h + 1) % hours]) for h in range(hours)]
    places = {key: at for at, key in enumerate(dict.fromkeys(keys))}
    group = np.array([places[key] for key in keys])
    if len(places) == hours:
        return fleet, group
    weights = np.bincount(group, weights=np.asarray(fleet.weights, float))
    times: Counter[tuple[int, int]] = Counter()
    for before, h, count in fleet.changes():
        if group[before] != group[h]:
            times[int(group[before]), int(group[h])] += count  # type: ignore[assignment]
    first = [int(np.argmax(group == at)) for at in range(len(places))]
    steps = tuple((a, b, float(n)) for (a, b), n in times.items())
    return replace(fleet, demand=fleet.demand[:, first], weights=weights, steps=steps), group

