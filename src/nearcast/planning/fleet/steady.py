"""Shares that move by limited steps from those before, so that no crowd runs where a plan has just found room.

Decides: of each origin's requests for a model at most `solve.Limits.share_step` go
elsewhere than before. Facts act at once: the share of a place that is no longer open or no longer holds the model, and
requests that would share a place with more than it has room for; and what goes to a place that did not hold the model
before: it was no choice then, and half of a way around the world is no step to a place next door. Until it serves,
agents and gateways pass it by. Differences below :data:`QUIET` change nothing.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.fleet.assign import Ground, Routing, finish
from nearcast.planning.fleet.cost import Floats32
from nearcast.planning.fleet.market import Market
from nearcast.planning.fleet.problem import FleetPlan, Truths

QUIET: Final = 0.01
_ROUNDS: Final = 8

Ints = NDArray[np.intp]


def steadied(ground: Ground, routing: Routing, placed: Truths, previous: FleetPlan, step: float) -> Routing:
    """``routing`` as far as ``step`` allows, from the shares of ``previous``.

    What was and is unserved counts as sent nowhere: it moves freely to wherever there is room.
    """
    row, place, share, cost_s = _still_open(ground, placed, previous)
    market, new = _widened(ground, routing, row, place, cost_s)
    old = np.zeros_like(new)
    rank = (market.place[:, row] == place) & np.isfinite(market.cost_s[:, row])
    found = rank.any(axis=0)
    old[rank.argmax(axis=0)[found], row[found]] = share[found]
    gone = np.float32(1.0) - old.sum(axis=0)
    demand = market.demand_per_s
    lost = np.minimum(previous.unserved_per_s[market.origin].T.reshape(-1).astype(np.float32), demand)
    old *= np.float32(1.0) - np.divide(lost, demand, out=np.zeros_like(demand), where=demand > 0.0)
    new = new * routing.served
    old += gone * new
    moved = np.float32(0.5) * np.abs(new - old).sum(axis=0)
    allowed = np.maximum(np.float32(step), _to_fresh(market, new - old, placed & ~previous.placed))
    part = np.minimum(np.float32(1.0), allowed / np.maximum(moved, np.float32(1e-9)))
    part = np.where(moved < QUIET, np.float32(0.0), part)
    mixed = np.maximum(old + part * (new - old), np.float32(0.0))
    for _ in range(_ROUNDS):
        full = market.load(mixed) > (1.0 + 1e-6) * ground.queues.room
        rows = np.flatnonzero(((mixed > 0.0) & full[market.place] & (part < 1.0)).any(axis=0) & (demand > 0.0))
        if not len(rows):
            break
        part[rows] = 1.0
        mixed[:, rows] = new[:, rows]
    return finish(ground, placed, market, mixed, routing.price_s, routing.bound_s)


def _to_fresh(market: Market, difference: Floats32, fresh: Truths) -> Floats32:
    """float32[N]: what of each row's ``difference`` (float32[K, N]) goes to places that are ``fresh`` (bool[S, M])."""
    model = market.models_of(np.arange(difference.shape[1]))
    gains = np.where(fresh[market.place, model], np.maximum(difference, np.float32(0.0)), np.float32(0.0))
    found: Floats32 = gains.sum(axis=0)
    return found


def _still_open(ground: Ground, placed: Truths, previous: FleetPlan) -> tuple[Ints, Ints, Floats32, Floats32]:
    """Of the routes before those that are open still: row, place, share, and cost now."""
    known = np.full(len(placed), -1, np.intp)
    known[ground.near.origin] = np.arange(len(ground.near.origin))
    cost_s = np.full(len(previous.share), np.inf, np.float32)
    for model in range(placed.shape[1]):
        mine = np.flatnonzero(previous.model == model)
        origin, place = previous.origin[mine].astype(np.intp), previous.place[mine].astype(np.intp)
        cost_s[mine] = np.where(placed[place, model], ground.costs.between(model, origin, place), np.float32(np.inf))
    at = known[previous.origin]
    kept = np.flatnonzero(np.isfinite(cost_s) & (at >= 0))
    row = previous.model[kept].astype(np.intp) * len(ground.near.origin) + at[kept]
    return row, previous.place[kept].astype(np.intp), previous.share[kept].astype(np.float32), cost_s[kept]


def _widened(ground: Ground, routing: Routing, row: Ints, place: Ints, cost_s: Floats32) -> tuple[Market, Floats32]:
    """The market with places of the routes before in its lists, instead of the dearest that have no share; and shares.

    A place that finds no rank free loses its share at once.
    """
    market = routing.market
    ranks = len(market.place)
    hits = (market.place[:, row] == place) & np.isfinite(market.cost_s[:, row])
    missing = np.flatnonzero(~hits.any(axis=0))
    if not len(missing):
        return market, routing.share
    known = np.zeros(market.place.shape, dtype=np.bool_)
    rank, at = np.nonzero(hits)
    known[rank, row[at]] = True
    busy = known | (routing.share > 0.0)
    new = Market(
        market.place.copy(),
        market.cost_s.copy(),
        market.work_s.copy(),
        market.demand_per_s,
        market.unserved_s,
        market.sites,
        market.origin,
    )
    for _ in range(ranks):
        first = missing[np.unique(row[missing], return_index=True)[1]]
        free = ~busy[:, row[first]]
        spot = ranks - 1 - free[::-1].argmax(axis=0)
        fits = free.any(axis=0)
        entry, rank = first[fits], spot[fits]
        model = market.models_of(row[entry])
        new.place[rank, row[entry]] = place[entry]
        new.cost_s[rank, row[entry]] = cost_s[entry]
        new.work_s[rank, row[entry]] = ground.costs.problem.work_s[place[entry], model]
        busy[rank, row[entry]] = True
        missing = np.setdiff1d(missing, first)
        if not len(missing):
            break
    return new, routing.share
