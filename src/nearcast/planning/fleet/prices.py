"""Prices of capacity at which places are neither fuller than planned nor emptier: the dual of the routing program.

Decides: a price per worker-second for each place, so that the load which rows then bring is the load at which the
queue's marginal cost is that price. The dual with softened minima is smooth and concave; it is climbed by Newton's
method, whose systems are solved by conjugate gradients without ever forming a matrix, while the softening is reduced in
steps. Any prices give a valid lower bound (`bound`); these make it tight.

Only rows that touch a place whose price matters take part; the others' load is a background, refreshed every round.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.fleet.congestion import Queues
from nearcast.planning.fleet.market import Answer, Heat, Market, answer, heats
from nearcast.planning.fleet.problem import Floats

HEATS: Final = (
    Heat(0.1, 0.1),
    Heat(0.05, 0.03),
    Heat(0.02, 0.01),
    Heat(0.01, 0.003),
    Heat(0.01, 3e-4),
    Heat(0.01, 3e-4),
)
"""Softening as a part of a row's least cost: the last one is what shares are made with."""
QUICK: Final = HEATS[:3]
"""Enough for prices that placement looks at."""
NEWTON_STEPS: Final = 40
HEAVY: Final = 0.9
_GRADIENT_STEPS: Final = 25
_SEARCHES: Final = 6
_ALONE: Final = 4
_CLEAR: Final = 0.003
"""A price matters where it makes this part of the cost of the rows that may pay it."""
_SETTLED: Final = 0.002
"""Part of the load that may still be out of balance."""

Ints = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class _Field:
    """What a climb stands on: rows, queues, and the load of the rows that take no part."""

    market: Market
    queues: Queues
    background: Floats
    step_s: float


def settle(market: Market, queues: Queues, start_s: Floats | None = None, ladder: tuple[Heat, ...] = HEATS) -> Floats:
    """float64[S] of prices for all rows of ``market``.

    Args:
        start_s: prices to start from, such as those of the plan before; then less softening is gone through.
    """
    active = market.take(np.flatnonzero((market.demand_per_s > 0.0) & np.isfinite(market.cost_s[0])))
    if not active.demand_per_s.size:
        return np.zeros(market.sites)
    step_s = _typical_price(active)
    if start_s is None:
        load = active.load(
            answer(active, np.zeros(market.sites), heats(active, ladder[0], np.zeros(market.sites))).share
        )
        price_s = queues.price_s(np.minimum(load, 0.8 * queues.room))
    else:
        price_s = start_s.copy()
    for heat in ladder if start_s is None else ladder[1:]:
        load = active.load(answer(active, price_s, heats(active, heat, price_s)).share)
        price_s = _drift(queues, price_s, load, step_s)
        rows = _touched(active, queues, price_s, load, heat)
        if not len(rows):
            continue
        part = _heavy(active, rows, heat, price_s)
        part_load = part.load(answer(part, price_s, heats(part, heat, price_s)).share)
        field = _Field(part, queues, np.clip(load - part_load, 0.0, 0.9 * queues.room), step_s)
        price_s = _climb(field, price_s, heat)
    return price_s


def _typical_price(market: Market) -> float:
    """A worker-second's price that is as much as the work's own cost, on the average."""
    demand = market.demand_per_s.astype(np.float64)
    cost_s = float(demand @ np.minimum(market.cost_s[0], market.unserved_s))
    work_s = float(demand @ market.work_s[0])
    return cost_s / work_s if work_s > 0.0 else 1.0


def _drift(queues: Queues, price_s: Floats, load: Floats, step_s: float) -> Floats:
    """Prices of places that hardly count, half way to what their load makes; the others are left to the climb."""
    own_s = queues.price_s(np.minimum(load, queues.room))
    cheap = np.maximum(own_s, price_s) < _CLEAR * step_s
    return np.where(cheap, 0.5 * (own_s + price_s), price_s)


def _touched(market: Market, queues: Queues, price_s: Floats, load: Floats, heat: Heat) -> Ints:
    """Rows that might pay a price that matters at one of the places that they would use."""
    busy = (load > 0.6 * queues.room) | (price_s > 0.0)
    value = np.where(busy, np.maximum(price_s, queues.price_s(np.minimum(load, queues.room))), 0.0)
    value[load > 0.85 * queues.room] = np.inf
    reduced = market.reduced_s(price_s)
    low = reduced.min(axis=0)
    usable = reduced <= (1.0 + 6.0 * heat.of_cost) * low
    usable[0] = True
    with np.errstate(invalid="ignore"):
        pays = value.astype(np.float32)[market.place] * market.work_s > np.float32(_CLEAR) * low
    return np.flatnonzero((usable & pays).any(axis=0))


def _heavy(market: Market, rows: Ints, heat: Heat, price_s: Floats) -> Market:
    """Of ``rows`` those that bring most of the work, while the softening is coarse; and their likeliest places."""
    work = market.demand_per_s[rows] * market.work_s[0, rows]
    if heat.of_cost > HEATS[-1].of_cost:
        order = np.argsort(-work, kind="stable")
        enough = int(
            np.searchsorted(np.cumsum(work[order], dtype=np.float64), HEAVY * float(work.sum(dtype=np.float64)))
        )
        rows = np.sort(rows[order[: enough + 1]])
    return market.take(rows)


def _climb(field: _Field, price_s: Floats, heat: Heat) -> Floats:
    market, queues = field.market, field.queues
    heat_s = heats(market, heat, price_s)
    found, value = _look(field, price_s, heat_s)
    slope = _slope(field, found, price_s)
    reach = np.full(market.sites, np.inf)
    enough = max(_SETTLED, 0.3 * heat.of_paid)
    for _ in range(NEWTON_STEPS):
        if float(np.abs(slope).sum()) <= enough * float(queues.load_at(price_s).sum()):
            break
        widest = 2.0 * price_s + 0.2 * field.step_s
        way = _newton(field, found, price_s, slope, heat_s, np.minimum(reach, widest))
        for attempt in range(_SEARCHES):
            ahead = np.maximum(price_s + way, 0.1 * price_s)
            there, height = _look(field, ahead, heat_s)
            beyond = _slope(field, there, ahead)
            # Places are coupled to near ones only: who went too far is held back alone, not the whole fleet with it.
            passed = (slope * beyond < 0.0) & (np.abs(beyond) > 0.3 * np.abs(slope))
            if height >= value + 1e-4 * max(0.0, float(slope @ (ahead - price_s))):
                break
            if height >= value - 1e-5 * abs(value) and np.abs(beyond).sum() < 0.9 * np.abs(slope).sum():
                break
            way = np.where(passed, 0.2 * way, way) if attempt < _ALONE and passed.any() else 0.4 * way
        else:
            reach = 0.02 * np.minimum(reach, widest)  # the parabola says nothing at this distance
            continue
        reach = np.where(passed, 0.3 * np.abs(way) + 1e-12, 4.0 * np.minimum(reach, widest))
        rise, price_s, found, value, slope = height - value, ahead, there, height, beyond
        if abs(rise) <= 1e-8 * abs(value):
            break
    return price_s


def _slope(field: _Field, found: Answer, price_s: Floats) -> Floats:
    """float64[S]: by how much the load at each place is above what its price stands for."""
    return field.background + field.market.load(found.share) - field.queues.load_at(price_s)


def _look(field: _Field, price_s: Floats, heat_s: NDArray[np.float32]) -> tuple[Answer, float]:
    """The answer to prices, and the dual's value there."""
    found = answer(field.market, price_s, heat_s)
    worth_s = field.queues.worth_s(price_s)
    return found, found.soft_s + float(field.background @ price_s) - float(worth_s.sum())


def _newton(
    field: _Field, found: Answer, price_s: Floats, slope: Floats, heat_s: NDArray[np.float32], reach: Floats
) -> Floats:
    """The step to where the local parabola is highest, held back where it would be longer than ``reach``."""
    torn = np.flatnonzero(found.share.max(axis=0) < 1.0 - 1e-3)
    market = field.market.take(torn)
    weight = found.share[:, torn] * market.work_s
    stiff = market.demand_per_s / heat_s[torn]
    own = weight * (market.work_s - weight) * stiff
    diagonal = _give(field.queues, price_s) + np.abs(slope) / reach + 1e-12
    guard = np.maximum(market.at_places(own), 0.0) + diagonal

    def times(way: Floats) -> Floats:
        paid = way.astype(np.float32)[market.place] * market.work_s
        mean = (weight / np.maximum(market.work_s, np.float32(1e-30)) * paid).sum(axis=0)
        return market.at_places(weight * (paid - mean) * stiff) + diagonal * way

    way, rest = np.zeros_like(slope), slope.copy()
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


def _give(queues: Queues, price_s: Floats) -> Floats:
    """float64[S]: by how much the planned load grows with the price; 0 beyond the bend."""
    load = queues.load_at(price_s)
    step = 1e-4 * queues.room
    rise = queues.price_s(load + step) - queues.price_s(load)
    return np.divide(step, rise, out=np.zeros_like(step), where=rise > 1e-12 * price_s)
