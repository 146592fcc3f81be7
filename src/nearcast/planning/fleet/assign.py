"""Shares over a given placement: where each origin's requests for each model go.

Decides: lists of places, prices of capacity (`prices`), shares at these prices, and what has no room. Shares that would
overfill a place are cut back, and what was cut goes to the cheapest places that have room left; what then is left over
is unserved: it is routed as the rest of its row, or to its cheapest place, and refused there.
Does not decide how fast shares may move from the ones before (`steady`).
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.fleet.bound import priced
from nearcast.planning.fleet.candidates import Near
from nearcast.planning.fleet.congestion import CEILING, Queues
from nearcast.planning.fleet.cost import Costs, Floats32
from nearcast.planning.fleet.market import Heat, Market, answer, heats
from nearcast.planning.fleet.prices import FROM_ROUGH, HEATS, settle
from nearcast.planning.fleet.problem import Floats, Truths
from nearcast.planning.fleet.regions import regional_prices_s
from nearcast.planning.fleet.search import ROUGHLY_UNSEEN, Search

SMALLEST_SHARE: Final = 0.005
"""Shares below this are not worth a route."""
SLACK: Final = 0.002
LOOKS: Final = 2
"""Last steps of softening before which lists are made anew where a place outside of them might be cheaper."""
MORE_LOOKS: Final = 2
"""Times that these steps are repeated while shares cost more than :data:`NEAR_ENOUGH` above their bound."""
NEAR_ENOUGH: Final = 0.003
_POURS: Final = 12
_ELSEWHERE: Final = 3

Ints = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Ground:
    """What all steps of one plan share: costs, queues, neighbours."""

    costs: Costs
    queues: Queues
    near: Near

    @classmethod
    def of(cls, costs: Costs, queues: Queues, origin: Ints) -> "Ground":
        """With the neighbours of each ``origin`` looked up; O(O x S)."""
        return cls(costs, queues, Near.of(costs, origin))


@dataclass(frozen=True, eq=False)
class Routing:
    """Shares of all rows, and what they cost.

    Attributes:
        market: the rows, model by model, each origin by origin.
        share: float32[K, N]: of what is sent at all, a row sums to 1 where it has an open place, else to 0.
        served: float32[N]: part of each row's demand for which there is room.
        price_s: float64[S].
        load: float64[S]: of what is served.
        cost_s, bound_s: the objective, and what no shares over this placement cost less than.
    """

    market: Market
    share: Floats32
    served: Floats32
    price_s: Floats
    load: Floats
    cost_s: float
    bound_s: float


def route(
    ground: Ground,
    placed: Truths,
    start_s: Floats | None = None,
    ladder: tuple[Heat, ...] = FROM_ROUGH,
    looks: int = LOOKS,
) -> Routing:
    """Shares over ``placed`` (bool[S, M]).

    Args:
        start_s: prices to start from.
        ladder: softening from there.
        looks: last steps of ``ladder`` before which lists are made anew; without any, the bound says little.
    """
    # A little below the ceiling, so that what is not quite settled still finds room.
    queues = replace(ground.queues, ceiling=CEILING - SLACK)
    steps = HEATS if start_s is None else ladder
    price_s = regional_prices_s(ground.costs, queues, placed) if start_s is None else start_s
    search = Search(ground.costs, ground.queues, ground.near, placed)
    coarse, fine = steps[: len(steps) - looks], steps[len(steps) - looks :]
    for heat in coarse:
        price_s = settle(search.market, queues, search.look(price_s, ROUGHLY_UNSEEN), (heat,))
    if not looks:
        return _routed(ground, search, price_s)
    tries: list[Routing] = []
    for _ in range(1 + MORE_LOOKS):
        for heat in fine:
            price_s = settle(search.market, queues, search.look(price_s), (heat,))
        search.bound_at(price_s)
        tries.append(_routed(ground, search, price_s))
        if tries[-1].cost_s <= (1.0 + NEAR_ENOUGH) * search.bound_s:
            break
    return replace(min(tries, key=lambda each: each.cost_s), bound_s=search.bound_s)


def _routed(ground: Ground, search: Search, price_s: Floats) -> Routing:
    """Shares at ``price_s`` over the lists of the moment, made to fit."""
    share = answer(search.market, price_s, heats(search.market, HEATS[-1], price_s)).share
    return finish(ground, search.placed, search.market, share, price_s, search.bound_s)


def finish(ground: Ground, placed: Truths, market: Market, share: Floats32, price_s: Floats, bound_s: float) -> Routing:
    """Shares made fit to capacity, and their cost.

    Args:
        placed: bool[S, M]: where there may be room for what finds none within its list.
        share: float32[K, N], wished for; rows may sum to less than 1.
    """
    wished = np.minimum(share.sum(axis=0), np.float32(1.0))
    kept = np.where(np.isfinite(market.cost_s) & (share >= SMALLEST_SHARE * wished), share, np.float32(0.0))
    reduced = market.reduced_s(price_s)
    empty = np.flatnonzero((kept.sum(axis=0) <= 1e-6) & np.isfinite(market.cost_s[0]))
    kept[:, empty] = 0.0
    kept[reduced[:, empty].argmin(axis=0), empty] = 1.0
    total = kept.sum(axis=0)
    kept /= np.where(total > 0.0, total, np.float32(1.0))
    some = np.where(market.demand_per_s > 0.0, wished, np.float32(1.0))
    sent = _pour(market, kept * some, reduced, ground.queues.room)
    market, kept, sent = _elsewhere(ground, placed, market, kept, sent, price_s)
    served = sent.sum(axis=0)
    none = served <= 1e-6
    share = np.where(none, kept, sent / np.where(none, np.float32(1.0), served))
    served = np.where(none, np.float32(0.0), np.minimum(served, np.float32(1.0)))
    load = market.load(share * served)
    return Routing(market, share, served, price_s, load, _cost(ground, market, share, served, load), bound_s)


def without(ground: Ground, routing: Routing, kept: Truths, gone: Truths) -> Routing:
    """``routing`` over ``kept`` only, where replicas that are ``gone`` answered nothing; the prices stay.

    Requests that nobody makes, or that had no room, are routed to the cheapest place that is left.
    """
    market = routing.market
    out = np.isfinite(market.cost_s) & gone[market.place, market.models_of(np.arange(market.demand_per_s.size))]
    rows = np.flatnonzero(out.any(axis=0))
    part, share = market.take(rows), np.take(routing.share, rows, axis=1)
    part.cost_s[out[:, rows]] = np.inf
    share[out[:, rows]] = 0.0
    order = np.argsort(part.cost_s, axis=0, kind="stable")
    for values in (part.place, part.cost_s, part.work_s):
        values[:] = np.take_along_axis(values, order, axis=0)
    share = np.take_along_axis(share, order, axis=0)
    bare = np.flatnonzero(np.isinf(part.cost_s[0]))
    found = priced(ground.costs, market, kept, routing.price_s, rows[bare], len(share))
    order = np.argsort(found[1], axis=0, kind="stable")
    part.place[:, bare], part.cost_s[:, bare], part.work_s[:, bare] = (
        np.take_along_axis(each, order, axis=0) for each in found[:3]
    )
    lost = np.flatnonzero((share.sum(axis=0) <= 1e-6) & np.isfinite(part.cost_s[0]))
    share[:, lost] = 0.0
    share[part.reduced_s(routing.price_s)[:, lost].argmin(axis=0), lost] = 1.0
    whole = routing.share.copy()
    whole[:, rows] = share / np.maximum(share.sum(axis=0), np.float32(1e-6))
    return replace(routing, market=market.put(rows, part), share=whole)


def losses(routing: Routing, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """float64[S, M] twice: what requests of each replica would pay more elsewhere at the prices of the moment, and the
    work that they bring."""
    market = routing.market
    reduced = market.reduced_s(routing.price_s)
    every = np.arange(reduced.shape[1])
    best = reduced.argmin(axis=0)
    first = np.minimum(reduced[best, every], market.unserved_s)
    reduced[best, every] = np.inf
    second = np.minimum(reduced.min(axis=0), market.unserved_s)
    rank, row = np.nonzero((routing.share > 0.0) & (market.demand_per_s > 0.0))
    sent = (routing.share[rank, row] * routing.served[row] * market.demand_per_s[row]).astype(np.float64)
    extra = np.where(rank == best[row], (second - first)[row], np.float32(0.0))
    key = market.place[rank, row] * shape[1] + market.models_of(row)
    missed = np.bincount(key, sent * extra, shape[0] * shape[1]).astype(np.float64)
    work = np.bincount(key, sent * market.work_s[rank, row], shape[0] * shape[1]).astype(np.float64)
    return missed.reshape(shape), work.reshape(shape)


def _elsewhere(
    ground: Ground, placed: Truths, market: Market, kept: Floats32, sent: Floats32, price_s: Floats
) -> tuple[Market, Floats32, Floats32]:
    """What is left over by full lists, sent to the cheapest places outside of them that have room; lists to match.

    Returns:
        The market with other places in some rows; ``kept`` and ``sent`` in its ranks.
    """
    room = ground.queues.room
    for _ in range(_ELSEWHERE):
        free = room - market.load(sent)
        short = np.where(np.isfinite(market.cost_s[0]), np.float32(1.0) - sent.sum(axis=0), np.float32(0.0))
        rows = np.flatnonzero((short > SMALLEST_SHARE) & (market.demand_per_s > 0.0))
        open_to = placed & (free > 1e-3 * room)[:, None]
        if not len(rows) or not open_to.any():
            break
        part, few = market.take(rows), len(sent) // 2
        found = priced(ground.costs, market, open_to, price_s, rows, few)
        known = np.where((sent[:, rows] > 0.0) & np.isfinite(part.cost_s), part.place, -1)
        fresh = np.isfinite(found[1]) & ~(found[0][:, None] == known[None]).any(axis=1)
        order = np.argsort(-sent[:, rows], axis=0, kind="stable")[: len(sent) - few]
        ranked = [np.take_along_axis(each, order, axis=0) for each in (part.cost_s, part.work_s, sent[:, rows])]
        places = np.concatenate([np.take_along_axis(part.place, order, axis=0), np.where(fresh, found[0], 0)])
        cost_s = np.concatenate([ranked[0], np.where(fresh, found[1], np.float32(np.inf))])
        work_s = np.concatenate([ranked[1], np.where(fresh, found[2], np.float32(0.0))])
        share = np.concatenate([ranked[2], np.zeros_like(found[1])])
        part = replace(part, place=places.astype(np.intp), cost_s=cost_s, work_s=work_s)
        market, sent, kept = market.put(rows, part), sent.copy(), kept.copy()
        sent[:, rows] = share
        kept[:, rows] = np.where(share.sum(axis=0) > 0.0, share, np.eye(len(sent), 1, dtype=np.float32))
        sent = _pour(market, sent, market.reduced_s(price_s), room)
    return market, kept, sent


def _pour(market: Market, share: Floats32, reduced: Floats32, room: Floats) -> Floats32:
    """float32[K, N]: shares cut to ``room``, what was cut poured on where there is room; a row may sum to less."""
    load = market.load(share)
    keep = np.where(load > room, room / np.maximum(load, 1e-30), 1.0).astype(np.float32)
    sent = share * keep[market.place]
    short = np.where(np.isfinite(market.cost_s[0]), np.float32(1.0) - sent.sum(axis=0), np.float32(0.0))
    rows = np.flatnonzero((short > 1e-6) & (market.demand_per_s > 0.0))
    idle = np.flatnonzero((short > 0.0) & (market.demand_per_s <= 0.0))
    sent[:, idle] = share[:, idle]
    part = market.take(rows)
    added = np.zeros_like(part.cost_s)
    short = short[rows]
    load = market.load(sent)
    heat_s = np.float32(HEATS[-1].of_cost) * np.minimum(reduced[:, rows].min(axis=0), part.unserved_s)
    for _ in range(_POURS):
        free = room - load
        open_to = np.isfinite(part.cost_s) & (free > 1e-9 * room)[part.place]
        wish = np.where(open_to, reduced[:, rows], np.float32(np.inf))
        low = wish.min(axis=0)
        may = np.isfinite(low)
        if not (may & (short > 1e-6)).any():
            break
        weight = np.exp((np.where(may, low, np.float32(0.0)) - wish) / heat_s)
        weight *= short / np.maximum(weight.sum(axis=0), np.float32(1e-30))
        asked = part.load(weight)
        fit = np.where(asked > free, np.maximum(free, 0.0) / np.maximum(asked, 1e-30), 1.0)
        weight *= fit.astype(np.float32)[part.place]
        added += weight
        short = np.maximum(short - weight.sum(axis=0), np.float32(0.0))
        load = load + part.load(weight)
    sent[:, rows] += added
    return sent


def _cost(ground: Ground, market: Market, share: Floats32, served: Floats32, load: Floats) -> float:
    demand = market.demand_per_s.astype(np.float64)
    each = np.where(share > 0.0, share * np.where(np.isfinite(market.cost_s), market.cost_s, 0.0), 0.0).sum(axis=0)
    ways = float(demand @ (each * served))
    lost = float(demand @ ((1.0 - served) * market.unserved_s))
    return ways + lost + float(ground.queues.waiting_s(load).sum())
