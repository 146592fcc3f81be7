"""Climbing the dual of the routing program: Newton's method, with steps that each place may take for itself.

Decides: prices at which the softened dual is highest, for some rows and a background. Its systems are solved by
conjugate gradients over the few entries that are torn between places, without ever forming a matrix. Places are coupled
to near ones only, so whoever went too far is held back alone (`reach`), not the whole fleet with it.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from nearcast.planning.fleet.congestion import Queues
from nearcast.planning.fleet.cost import Floats32
from nearcast.planning.fleet.market import Answer, Heat, Market, answer, heats
from nearcast.planning.fleet.problem import Floats

NEWTON_STEPS: Final = 40
SETTLED: Final = 0.002
"""Part of the load that may still be out of balance."""
_GRADIENT_STEPS: Final = 25
_SEARCHES: Final = 6
_ALONE: Final = 4
_TORN: Final = 1e-3
"""Shares below this do not couple places."""
_LEAST_RISE_S: Final = 1e-280
"""Of a price: hundreds of workers that are nearly idle make rises so small that nothing can be divided by them."""


@dataclass(frozen=True, eq=False)
class Field:
    """What a climb stands on.

    Attributes:
        market: the rows that take part.
        background: float64[S]: load of the others.
        step_s: a price that matters where none is yet.
    """

    market: Market
    queues: Queues
    background: Floats
    step_s: float


@dataclass(frozen=True, eq=False)
class _Spot:
    """A point of the climb: prices, how rows answer, the height, and by how much load exceeds what prices stand for."""

    price_s: Floats
    found: Answer
    height: float
    load: Floats
    slope: Floats

    @property
    def unrest(self) -> float:
        return float(np.abs(self.slope).sum())


def climb(field: Field, price_s: Floats, heat: Heat) -> Floats:
    """float64[S]: prices near the top, from ``price_s``; at most :data:`NEWTON_STEPS` steps."""
    heat_s = heats(field.market, heat, price_s)
    here = _look(field, price_s, heat_s)
    reach = np.full(len(price_s), np.inf)
    enough = max(SETTLED, 0.3 * heat.of_paid)
    for _ in range(NEWTON_STEPS):
        if here.unrest <= enough * float(here.load.sum()):
            break
        reach = np.minimum(reach, 2.0 * here.price_s + 0.2 * field.step_s)
        way = _newton(field, here, heat_s, reach)
        found = _search(field, here, way, heat_s)
        if found is None:
            reach = 0.02 * reach  # the parabola says nothing at this distance
            continue
        there, way, passed = found
        reach = np.where(passed, 0.3 * np.abs(way) + 1e-12, 4.0 * reach)
        rise, here = there.height - here.height, there
        if abs(rise) <= 1e-8 * abs(here.height):
            break
    return here.price_s


def _look(field: Field, price_s: Floats, heat_s: Floats32) -> _Spot:
    found = answer(field.market, price_s, heat_s)
    load = field.queues.load_at(price_s)
    worth = float((price_s * load - field.queues.waiting_s(load)).sum())
    slope = field.background + field.market.load(found.share) - load
    return _Spot(price_s, found, found.soft_s + float(field.background @ price_s) - worth, load, slope)


def _search(field: Field, here: _Spot, way: Floats, heat_s: Floats32) -> tuple[_Spot, Floats, NDArray[np.bool_]] | None:
    """A higher point along ``way``, shortened where it must be; the way, and the places that went too far."""
    for attempt in range(_SEARCHES):
        ahead = np.maximum(here.price_s + way, 0.1 * here.price_s)
        there = _look(field, ahead, heat_s)
        passed = (here.slope * there.slope < 0.0) & (np.abs(there.slope) > 0.3 * np.abs(here.slope))
        promised = max(0.0, float(here.slope @ (ahead - here.price_s)))
        calmer = there.unrest < 0.9 * here.unrest and there.height >= here.height - 1e-5 * abs(here.height)
        if calmer or there.height >= here.height + 1e-4 * promised:
            return there, way, passed
        way = np.where(passed, 0.2 * way, way) if attempt < _ALONE and passed.any() else 0.4 * way
    return None


def _newton(field: Field, here: _Spot, heat_s: Floats32, reach: Floats) -> Floats:
    """The step to where the local parabola is highest, held back where it would be longer than ``reach``."""
    market, share = field.market, here.found.share
    torn = np.flatnonzero(share.max(axis=0) < 1.0 - _TORN)
    parts = np.take(share, torn, axis=1).T.reshape(-1)
    some = np.flatnonzero(parts > _TORN)
    row, rank = np.divmod(some, len(share))
    at = rank * share.shape[1] + torn[row]
    work = np.take(market.work_s.reshape(-1), at).astype(np.float64)
    place = np.take(market.place.reshape(-1), at)
    weight = parts[some] * work
    count, sites = len(torn), len(reach)
    ends = np.cumsum(np.bincount(row, minlength=count))
    torn_between = csr_array((weight, place, np.r_[0, ends]), (count, sites))
    back = torn_between.T
    stiff = (market.demand_per_s[torn] / heat_s[torn]).astype(np.float64)
    pull = weight * stiff[row]
    diagonal = _give(field.queues, here) + np.abs(here.slope) / reach + 1e-12
    own = np.bincount(place, pull * work, sites) + diagonal
    guard = np.bincount(place, pull * np.maximum(work - weight, 0.0), sites) + diagonal

    def times(way: Floats) -> Floats:
        found: Floats = own * way - back @ (stiff * (torn_between @ way))
        return found

    way, rest = np.zeros(sites), here.slope.copy()
    guided = rest / guard
    ahead, strength = guided.copy(), float(rest @ guided)
    enough = 1e-3 * strength
    for _ in range(_GRADIENT_STEPS):
        pulled = times(ahead)
        size = strength / float(ahead @ pulled)
        way += size * ahead
        rest -= size * pulled
        guided = rest / guard
        now = float(rest @ guided)
        if now <= enough:
            break
        ahead, strength = guided + (now / strength) * ahead, now
    return way


def _give(queues: Queues, here: _Spot) -> Floats:
    """float64[S]: by how much the planned load grows with the price; 0 at the ceiling."""
    step = 1e-4 * queues.room
    rise = queues.price_s(here.load + step) - queues.price_s(here.load)
    inside = (rise > 1e-12 * here.price_s) & (here.load < queues.room)
    rise = np.maximum(rise, _LEAST_RISE_S)
    return np.divide(step, rise, out=np.zeros_like(step), where=inside)
