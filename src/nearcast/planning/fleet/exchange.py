"""Better placements of small fleets, one exchange at a time, each tried out by routing over it.

Decides: whether a site should hold another model instead of one of its own, or one more. Exchanges are ordered by what
prices of capacity say of them, and tried in that order until one saves; then all are weighed again. Prices are right
for small shifts only: where memory and capacity are scarce together, and a fleet so small that one replica is much of
it, nothing but trying tells. The number of trials is bounded, and large fleets get none.
"""

from itertools import combinations
from typing import Final

import numpy as np

from nearcast.planning.fleet.assign import Ground, Routing, losses, route
from nearcast.planning.fleet.cost import columns
from nearcast.planning.fleet.problem import Floats, Truths

Pairs = tuple[tuple[int, int], ...]

SMALL: Final = 512
"""Pairs of site and model up to which a fleet is small."""
TRIALS: Final = 150
AT_ONCE: Final = 16
"""Exchanges that are tried before all is weighed again, or given up."""


def exchanged(
    ground: Ground, placed: Truths, routing: Routing, must: Truths, move_s: Floats, worth: float, trials: int = TRIALS
) -> tuple[Truths, Routing]:
    """A placement that costs no more than ``placed``, moves included, and its routing. For small fleets.

    Args:
        worth: part of the cost that an exchange must save.
        trials: routings that may be tried.
        must: bool[S, M]: replicas that stay.
        move_s: float64[S, M]: price of having a replica there.
    """
    while trials > 0:
        found = None
        for gone, come in _ordered(ground, placed, routing, must, move_s)[: min(AT_ONCE, trials)]:
            trials -= 1
            other = placed.copy()
            paid = 0.0
            for site, model in gone:
                other[site, model] = False
                paid -= float(move_s[site, model])
            for site, model in come:
                other[site, model] = True
                paid += float(move_s[site, model])
            tried = route(ground, other, routing.price_s)
            if tried.cost_s + paid < (1.0 - worth) * routing.cost_s:
                found = other, tried
                break
        if found is None:
            break
        placed, routing = found
    return placed, routing


def _ordered(
    ground: Ground, placed: Truths, routing: Routing, must: Truths, move_s: Floats
) -> list[tuple[Pairs, Pairs]]:
    """(replicas that go, replicas that come), what promises most first: one comes to a site, up to two go there for it;
    or two sites trade."""
    problem = ground.costs.problem
    missed, freed = losses(routing, placed.shape)
    wish, work = _wishes(ground, routing)
    size = problem.footprint_bytes
    left = problem.memory_bytes - placed @ size
    room = np.maximum(ground.queues.room - routing.load, 0.0)
    count = placed.sum(axis=0)
    spare = placed & ~must
    can = ground.costs.able & ~placed
    found: list[tuple[float, Pairs, Pairs]] = []

    def weigh(site: int, outs: tuple[int, ...], into: int) -> float | None:
        if size[into] > left[site] + sum(size[out] for out in outs):
            return None
        space = room[site] + sum(freed[site, out] for out in outs)
        part = min(1.0, space / max(work[site, into], 1e-30))
        return float(part * wish[site, into] - sum(missed[site, out] for out in outs) - move_s[site, into])

    for site, into in ((int(s), int(m)) for s, m in zip(*np.nonzero(can), strict=True)):
        held = [int(m) for m in np.flatnonzero(spare[site])]
        if count[into] < problem.most[into]:
            free = [m for m in held if count[m] > problem.least[m]]
            for outs in ((), *((m,) for m in free), *combinations(free, 2)):
                gain = weigh(site, outs, into)
                if gain is not None:
                    found.append((-gain, tuple((site, m) for m in outs), ((site, into),)))
        for out in held:
            mine = weigh(site, (out,), into)
            if mine is None:
                continue
            for other in np.flatnonzero(spare[:, into] & can[:, out]):
                theirs = weigh(int(other), (into,), out) if other > site else None
                if theirs is not None:
                    pair: Pairs = ((site, out), (int(other), into))
                    found.append((-mine - theirs, pair, ((site, into), (int(other), out))))
    return [(gone, come) for _, gone, come in sorted(found)]


def _wishes(ground: Ground, routing: Routing) -> tuple[Floats, Floats]:
    """float64[S, M] twice: what a replica at each place would save at the prices of the moment, and the work that it
    would draw. Dense: for small fleets."""
    costs, market = ground.costs, routing.market
    problem, origin = costs.problem, market.origin
    paid = np.minimum(market.reduced_s(routing.price_s).min(axis=0), market.unserved_s)
    wish, work = np.zeros(problem.demand_per_s.shape), np.zeros(problem.demand_per_s.shape)
    for model in range(len(problem.models)):
        work_s = np.where(costs.able[:, model], problem.work_s[:, model], 0.0)
        cost = costs.between(model, origin[:, None], columns(np.arange(market.sites)))
        cost += (work_s * routing.price_s).astype(np.float32)
        saved = np.maximum(paid[model * len(origin) : (model + 1) * len(origin), None] - cost, 0.0)
        demand = problem.demand_per_s[origin, model]
        wish[:, model] = demand @ saved
        work[:, model] = (demand @ (saved > 0.0)) * work_s
    return wish, work
