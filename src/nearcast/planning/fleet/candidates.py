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

from nearcast.planning.fleet.cost import LATE, Costs, Floats32, columns
from nearcast.planning.fleet.problem import Indices, Truths

NEAR: Final = 128
FAST: Final = 64
DENSE: Final = 256
"""Allowed places up to which all are looked at."""
_ROWS: Final = 512
"""Origins at a time where rows are long: bounds memory."""

Ints = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Near:
    """The nearest places of each origin by round trip, itself first.

    Attributes:
        origin: intp[O]: sites whose requests are planned, rising.
        place: intp[O, W].
        round_trip_s: float32[O, W].
        beyond_s: float32[O]: no other place is nearer than this; inf where there is none.
    """

    origin: Ints
    place: Ints
    round_trip_s: Floats32
    beyond_s: Floats32

    @classmethod
    def of(cls, costs: Costs, origin: Ints, width: int = NEAR) -> "Near":
        """The ``width`` nearest places of each ``origin``, in no particular order. O(O x S)."""
        sites, count = len(costs.able), len(origin)
        if sites <= width:
            place = np.broadcast_to(np.arange(sites), (count, sites))
            return cls(origin, place, costs.round_trip_s(origin[:, None], place), np.full(count, np.inf, np.float32))
        place = np.empty((count, width), np.intp)
        round_trip_s = np.empty((count, width), np.float32)
        beyond_s = np.empty(count, np.float32)
        for start in range(0, count, _ROWS):
            rows = costs.problem.round_trip_s[origin[start : start + _ROWS]].astype(np.float32)
            chosen = np.argpartition(rows, width, axis=1)[:, : width + 1]
            place[start : start + _ROWS] = chosen[:, :width]
            round_trip_s[start : start + _ROWS] = np.take_along_axis(rows, chosen[:, :width], axis=1)
            beyond_s[start : start + _ROWS] = np.take_along_axis(rows, chosen[:, width:], axis=1)[:, 0]
        return cls(origin, place, round_trip_s, beyond_s)

    def nearest(self, count: int) -> Ints:
        """intp[S, count]: the nearest of them, ties by index."""
        order = np.lexsort((self.place, self.round_trip_s), axis=1)[:, :count]
        found: Ints = np.take_along_axis(self.place, order, axis=1)
        return found


@dataclass(frozen=True, eq=False)
class Lists:
    """Places by origin and model, the cheapest first; the first axis is the rank, so that reductions over it stream.

    Attributes:
        place: int32[K, M, O]; 0 where the list is shorter.
        cost_s: float32[K, M, O], rising along the first axis; inf where the list is shorter.
        tail_s: float32[M, O]: no allowed place outside the list costs less; inf where there is none.
    """

    place: Indices
    cost_s: Floats32
    tail_s: Floats32


def cheapest(costs: Costs, near: Near, allowed: Truths, width: int) -> Lists:
    """Lists of the ``width`` cheapest of the ``allowed`` places (bool[S, M]) for every origin and model.

    Cost: O(O x (NEAR + FAST)) per model.
    """
    models, count = allowed.shape[1], len(near.origin)
    place = np.zeros((width, models, count), np.int32)
    cost_s = np.full((width, models, count), np.inf, np.float32)
    tail_s = np.full((models, count), np.inf, np.float32)
    for model in range(models):
        holders = np.flatnonzero(allowed[:, model] & costs.able[:, model])
        if not len(holders):
            continue
        found, price, rest = _of_model(costs, near, model, holders, width)
        place[: len(found), model], cost_s[: len(price), model], tail_s[model] = found, price, rest
    return Lists(place, cost_s, tail_s)


def _of_model(costs: Costs, near: Near, model: int, holders: Ints, width: int) -> tuple[Indices, Floats32, Floats32]:
    count, rows = len(near.origin), near.origin[:, None]
    if len(holders) <= max(DENSE, width):
        return _pick(_from_all(costs, near, model, holders), columns(holders), width)
    speed_s = _least_cost(costs, model, holders)
    order = np.argsort(speed_s, kind="stable")
    fast, slow = holders[order[:FAST]], speed_s[order[FAST]]
    close = near.place
    usable = np.zeros(len(costs.able), dtype=np.bool_)
    usable[holders] = True
    usable[fast] = False
    near_cost = np.where(
        np.take(usable, close), costs.between(model, rows, close, near.round_trip_s), np.float32(np.inf)
    )
    cost = np.concatenate([near_cost, _from_all(costs, near, model, fast)], axis=1)
    all_places = np.concatenate([close, np.broadcast_to(fast, (count, FAST))], axis=1)
    place, price, rest = _pick(cost, all_places, width)
    unseen_s = _unseen(costs, model, near.beyond_s, slow)
    thin = np.flatnonzero(~np.isfinite(price[min(3, width - 1)]))
    for start in range(0, len(thin), _ROWS):
        part = thin[start : start + _ROWS]
        place[:, part], price[:, part], rest[part] = _pick(
            costs.between(model, rows[part], columns(holders)), columns(holders), width
        )
    unseen_s[thin] = np.inf
    return place, price, np.minimum(rest, unseen_s)


def _from_all(costs: Costs, near: Near, model: int, places: Ints) -> Floats32:
    """float32[O, len(places)]: cost from every origin."""
    return costs.between(model, near.origin[:, None], columns(places))


def _pick(cost: Floats32, places: Ints, width: int) -> tuple[Indices, Floats32, Floats32]:
    """The ``width`` least of each row with their places, turned so that ranks come first; and the least of the rest."""
    rows, count = cost.shape
    rest = np.full(rows, np.inf, np.float32)
    if count > width:
        chosen = np.argpartition(cost, width, axis=1)[:, : width + 1]
        rest = np.take_along_axis(cost, chosen[:, width:], axis=1)[:, 0]
        chosen = chosen[:, :width]
    else:
        chosen = np.broadcast_to(np.arange(count), (rows, count))
    price = np.take_along_axis(cost, chosen, axis=1)
    where = np.take_along_axis(np.broadcast_to(places, cost.shape), chosen, axis=1)
    order = np.lexsort((where, price), axis=1)
    price, where = np.take_along_axis(price, order, axis=1), np.take_along_axis(where, order, axis=1)
    where = np.where(np.isfinite(price), where, 0)
    return np.ascontiguousarray(where.T, dtype=np.int32), np.ascontiguousarray(price.T), rest


def _least_cost(costs: Costs, model: int, holders: Ints) -> Floats32:
    """float32[len(holders)]: below this no request costs at a place, from wherever it comes."""
    problem = costs.problem
    service_s = problem.service_s[holders, model]
    late_s = np.maximum(service_s - problem.target_s[model], 0.0)
    waited = problem.weight[model] * service_s + LATE * problem.urgency[model] * late_s
    found: Floats32 = (waited + problem.extra_s[holders, model]).astype(np.float32)
    return found


def _unseen(costs: Costs, model: int, beyond_s: Floats32, slow: np.float32) -> Floats32:
    """float32[O]: the least cost of places that are neither near nor fast."""
    way_s = np.minimum(beyond_s, np.float32(np.finfo(np.float32).max / 1e6))
    found = (np.float32(costs.problem.weight[model]) * way_s + slow) * np.float32(1.0 - 1e-6)
    return np.where(np.isfinite(beyond_s), found, np.float32(np.inf))
