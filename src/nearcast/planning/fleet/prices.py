"""Prices of capacity at which places are neither fuller than planned nor emptier: the dual of the routing program.

Decides: a price per worker-second for each place, so that the load which rows then bring is the load at which the
queue's marginal cost is that price. The dual with softened minima is smooth and concave; it is climbed (`climb`) while
the softening is reduced in steps. Any prices give a valid lower bound (`bound`); these make it tight.

Only rows that touch a place whose price matters take part; the others' load is a background, refreshed every round.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.fleet.climb import Field, climb
from nearcast.planning.fleet.congestion import Queues
from nearcast.planning.fleet.cost import Floats32
from nearcast.planning.fleet.market import Heat, Market, answer, heats
from nearcast.planning.fleet.problem import Floats

HEATS: Final = (
    Heat(0.1, 0.1),
    Heat(0.05, 0.03),
    Heat(0.02, 0.01),
    Heat(0.01, 0.003),
    Heat(0.01, 3e-4),
)
"""Softening as a part of a row's least cost: the last one is what shares are made with."""
QUICK: Final = HEATS[:3]
"""Enough for prices that placement looks at."""
ROUGHLY: Final = HEATS[1:4]
"""Enough to say which replicas answer what."""
FROM_ROUGH: Final = HEATS[1:]
"""From prices of other rows over the same places."""
FROM_NEAR: Final = HEATS[-2:]
"""From prices of almost the same rows: more softening would only lead away from them."""
HEAVY: Final = 0.9
"""Part of the work whose rows take part while the softening is coarse."""
_CLEAR: Final = 0.01
"""A price matters where it makes this part of the cost of the rows that may pay it."""
_USABLE: Final = 0.0025
"""Part of its largest share from which on a row would use a place."""

Ints = NDArray[np.intp]


def settle(market: Market, queues: Queues, start_s: Floats | None = None, ladder: tuple[Heat, ...] = HEATS) -> Floats:
    """float64[S] of prices for all rows of ``market``.

    Args:
        start_s: prices to start from, such as those of the plan before.
        ladder: the softening, step by step; the nearer the start, the fewer.
    """
    rows = np.flatnonzero((market.demand_per_s > 0.0) & np.isfinite(market.cost_s[0]))
    if not len(rows):
        return np.zeros(market.sites)
    active = market.take(rows) if len(rows) < market.demand_per_s.size else market
    step_s = _typical_price(active)
    if start_s is None:
        load = active.load(
            answer(active, np.zeros(market.sites), heats(active, ladder[0], np.zeros(market.sites))).share
        )
        price_s = queues.price_s(np.minimum(load, 0.8 * queues.room))
    else:
        price_s = start_s.copy()
    for heat in ladder:
        reduced = active.reduced_s(price_s)
        low = reduced.min(axis=0)
        share = answer(active, price_s, heats(active, heat, price_s, reduced), reduced).share
        amount = share * (active.work_s * active.demand_per_s)
        load = active.at_places(amount)
        price_s = _drift(queues, price_s, load, step_s)
        rows = _touched(active, queues, price_s, load, share, low)
        if not len(rows):
            continue
        rows = _heavy(active, rows, heat)
        part = active.take(rows)
        part_load = part.at_places(np.take(amount, rows, axis=1))
        field = Field(part, queues, np.clip(load - part_load, 0.0, 0.9 * queues.room), step_s)
        price_s = climb(field, price_s, heat)
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


def _touched(market: Market, queues: Queues, price_s: Floats, load: Floats, share: Floats32, low: Floats32) -> Ints:
    """Rows that might pay a price that matters at one of the places that they would use."""
    busy = (load > 0.6 * queues.room) | (price_s > 0.0)
    value = np.where(busy, np.maximum(price_s, queues.price_s(np.minimum(load, queues.room))), 0.0)
    value[load > 0.85 * queues.room] = np.inf
    usable = share >= np.float32(_USABLE) * share.max(axis=0)
    usable[0] = True
    with np.errstate(invalid="ignore"):
        pays = value.astype(np.float32)[market.place] * market.work_s > np.float32(_CLEAR) * low
    return np.flatnonzero((usable & pays).any(axis=0))


def _heavy(market: Market, rows: Ints, heat: Heat) -> Ints:
    """Of ``rows`` those that bring most of the work, while the softening is coarse."""
    work = market.demand_per_s[rows] * market.work_s[0, rows]
    if heat.of_cost > HEATS[-1].of_cost:
        order = np.argsort(-work, kind="stable")
        enough = int(
            np.searchsorted(np.cumsum(work[order], dtype=np.float64), HEAVY * float(work.sum(dtype=np.float64)))
        )
        rows = np.sort(rows[order[: enough + 1]])
    return rows
