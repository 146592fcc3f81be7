"""The few places that matter to each origin and model, so that nothing is ever as large as origins x places x models.

Decides: for each origin and model the cheapest of the allowed places, before queues, and a cost below which no place
outside the list is. That second figure is what makes bounds over *all* places possible from lists of a few.

Where few places are allowed, all are looked at. Where many are, those near by and the fastest of all are: a place that
is in neither is both farther than the nearest and slower than the fastest.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.fleet.cost import FAR_S, LATE, Costs, Floats32
from nearcast.planning.fleet.least import smallest
from nearcast.planning.fleet.problem import Truths

NEAR: Final = 128
FAST: Final = 64
DENSE: Final = 256
"""Allowed places up to which all are looked at."""
_ROWS: Final = 256
"""Origins at a time: what is worked on stays in the processor's cache."""

Ints = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Near:
    """The nearest places of each origin by round trip, rising, ties by index.

    Attributes:
        origin: intp[O]: sites whose requests are planned, rising.
        place: intp[O, W].
        round_trip_s: float32[O, W].
        link_s: float32[O, W]: seconds per byte on the way.
        beyond_s: float32[O]: no other place is nearer than this; inf where there is none.
    """

    origin: Ints
    place: Ints
    round_trip_s: Floats32
    link_s: Floats32
    beyond_s: Floats32

    @classmethod
    def of(cls, costs: Costs, origin: Ints, width: int = NEAR) -> "Near":
        """The ``width`` nearest places of each ``origin``. O(O x S)."""
        count, every = len(origin), np.arange(len(costs.able))
        width = min(width, len(every))
        place = np.empty((count, width), np.intp)
        round_trip_s, beyond_s = np.empty((count, width), np.float32), np.empty(count, np.float32)
        for start in range(0, count, _ROWS):
            rows = slice(start, start + _ROWS)
            ways = costs.problem.round_trip_s[origin[rows]].astype(np.float32)
            round_trip_s[rows], place[rows], beyond_s[rows] = smallest(ways, every, width)
        return cls(origin, place, round_trip_s, costs.link_s(origin[:, None], place), beyond_s)

    def nearest(self, count: int) -> Ints:
        """intp[O, count]: the nearest of them."""
        return self.place[:, :count]


@dataclass(frozen=True, eq=False)
class Lists:
    """Places by origin and model, the cheapest first; the first axis is the rank, so that reductions over it stream.

    Attributes:
        place: intp[K, M, O]; 0 where the list is shorter.
        cost_s: float32[K, M, O], rising along the first axis; inf where the list is shorter.
        tail_s: float32[M, O]: no allowed place outside the list costs less; inf where there is none.
    """

    place: Ints
    cost_s: Floats32
    tail_s: Floats32


def cheapest(costs: Costs, near: Near, allowed: Truths, width: int) -> Lists:
    """Lists of the ``width`` cheapest of the ``allowed`` places (bool[S, M]) for every origin and model.

    Cost: O(O x (NEAR + FAST)) per model.
    """
    models, count = allowed.shape[1], len(near.origin)
    found = Lists(
        np.zeros((width, models, count), np.intp),
        np.full((width, models, count), np.inf, np.float32),
        np.full((models, count), np.inf, np.float32),
    )
    looks = [_Look.of(costs, near, model, allowed[:, model] & costs.able[:, model]) for model in range(models)]
    every = np.arange(len(costs.able))
    for start in range(0, count, _ROWS):
        rows = np.arange(start, min(start + _ROWS, count))
        # Of all places at once, since the matrix of round trips is larger than any cache; and place by place, since
        # what belongs to one then lies together.
        ways_s = costs.problem.round_trip_s[near.origin[rows]].T.astype(np.float32, order="C")
        block = ways_s, costs.link_s(near.origin[None, rows], every[:, None])
        for model, look in enumerate(looks):
            if len(look.holders):
                _list(costs, near, model, look, rows, block, found)
    return found


@dataclass(frozen=True, eq=False)
class _Look:
    """Which places are looked at for a model.

    Attributes:
        holders: intp[H]: all that are allowed.
        fast: intp[F]: those that are looked at from everywhere.
        service_s: float32[S] of the others, which are looked at from near by; inf elsewhere. None where all are fast.
        unseen_s: float32[O]: what a place costs at least that is neither near nor fast.
    """

    holders: Ints
    fast: Ints
    service_s: Floats32 | None
    unseen_s: Floats32

    @classmethod
    def of(cls, costs: Costs, near: Near, model: int, allowed: Truths) -> "_Look":
        holders = np.flatnonzero(allowed)
        if len(holders) <= DENSE:
            return cls(holders, holders, None, np.full(len(near.origin), np.inf, np.float32))
        speed_s = least_cost_s(costs, model, holders)
        order = np.argsort(speed_s, kind="stable")
        service_s = np.full(len(costs.able), np.inf, np.float32)
        slow = holders[order[FAST:]]
        service_s[slow] = costs.service_s[model, slow]
        unseen_s = _unseen(costs, model, near.beyond_s, speed_s[order[FAST]])
        return cls(holders, np.sort(holders[order[:FAST]]), service_s, unseen_s)


def _list(
    costs: Costs, near: Near, model: int, look: _Look, rows: Ints, block: tuple[Floats32, Floats32], found: Lists
) -> None:
    """The lists of ``rows`` (indices of origins) for one model; ``block`` is float32[S, n] twice, the ways from them to
    all places."""
    origins = near.origin[rows, None]
    cost = costs.between(model, origins.T, look.fast[:, None], _ways(block, look.fast)).T
    if look.service_s is None:
        _keep(found, model, rows, cost, look.fast)
        return
    close = near.place[rows]
    near_cost = costs.between(model, origins, close, (near.round_trip_s[rows], near.link_s[rows]), look.service_s)
    labels = np.concatenate([close, np.broadcast_to(look.fast, cost.shape)], axis=1)
    _keep(found, model, rows, np.concatenate([near_cost, cost], axis=1), labels)
    tail_s = found.tail_s[model]
    tail_s[rows] = np.minimum(tail_s[rows], look.unseen_s[rows])
    thin = np.flatnonzero(~np.isfinite(found.cost_s[min(3, len(found.cost_s) - 1), model, rows]))
    if len(thin):
        few = (block[0][:, thin], block[1][:, thin])
        cost = costs.between(model, origins[thin].T, look.holders[:, None], _ways(few, look.holders)).T
        _keep(found, model, rows[thin], cost, look.holders)


def _ways(block: tuple[Floats32, Floats32], places: Ints) -> tuple[Floats32, Floats32]:
    return np.take(block[0], places, axis=0), np.take(block[1], places, axis=0)


def _keep(found: Lists, model: int, rows: Ints, cost: Floats32, places: Ints) -> None:
    """The least of ``cost`` (float32[n, w]) as the lists of ``rows``."""
    price, where, rest = smallest(cost, places, len(found.place))
    count = price.shape[1]
    found.place[:count, model, rows] = np.where(np.isfinite(price), where, 0).T
    found.cost_s[:count, model, rows] = price.T
    found.tail_s[model, rows] = rest


def least_cost_s(costs: Costs, model: int, holders: Ints) -> Floats32:
    """float32[len(holders)]: below this no request costs at a place, from wherever it comes."""
    problem = costs.problem
    service_s = np.minimum(problem.service_s[holders, model], FAR_S)
    late_s = np.maximum(service_s - problem.target_s[model], 0.0)
    waited = problem.weight[model] * service_s + LATE * problem.urgency[model] * late_s
    found: Floats32 = (waited + problem.extra_s[holders, model]).astype(np.float32)
    return found


def _unseen(costs: Costs, model: int, beyond_s: Floats32, slow: np.float32) -> Floats32:
    """float32[O]: the least cost of places that are neither near nor fast."""
    way_s = np.minimum(beyond_s, np.float32(np.finfo(np.float32).max / 1e6))
    found = (np.float32(costs.problem.weight[model]) * way_s + slow) * np.float32(1.0 - 1e-6)
    return np.where(np.isfinite(beyond_s), found, np.float32(np.inf))
