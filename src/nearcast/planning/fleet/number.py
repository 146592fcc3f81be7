"""How many replicas a model has: at least and at most so many, and at most so many new ones per plan.

Decides: where replicas go that are there for their number rather than for what they save, and which changes wait for
the next plan. Where memory does not suffice for the least number, there are fewer.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.fleet.assign import Ground
from nearcast.planning.fleet.cost import columns
from nearcast.planning.fleet.problem import Floats, Truths

PLACES: Final = 192
"""Places that are looked at for a model of which few replicas may be: the roomiest, and those with most demand."""
ORIGINS: Final = 1024
"""Origins that are looked at then: those with most demand."""
SCARCE: Final = 64
"""A model that may have no more replicas than this is placed by looking at the whole fleet at once."""

Ints = NDArray[np.intp]


def scarce(ground: Ground, before: Truths) -> Truths:
    """bool[S, M]: a start for models of which there may be few: one replica after another where it saves most."""
    problem, able = ground.costs.problem, ground.costs.able
    found = np.zeros_like(able)
    left = problem.memory_bytes - (before * problem.footprint_bytes).sum(axis=1)
    short = (problem.most < able.sum(axis=0)) & (problem.most <= SCARCE)
    for model in np.flatnonzero(short):
        count = int(problem.most[model] - before[:, model].sum())
        free = able[:, model] & (left >= problem.footprint_bytes[model]) & ~before[:, model]
        chosen = _one_after_another(ground, int(model), free, before[:, model], count)
        found[chosen, model] = True
        left[chosen] -= problem.footprint_bytes[model]
    return found


def at_least(ground: Ground, placed: Truths, before: Truths) -> Truths:
    """``placed`` with as many replicas of each model as there must be: the old ones first, then where they save most.

    Where memory is full, what has more replicas than it must gives way.
    """
    problem, able = ground.costs.problem, ground.costs.able
    found = placed.copy()
    for model in np.flatnonzero(found.sum(axis=0) < np.minimum(problem.least, problem.most)):
        size = problem.footprint_bytes[model]
        missing = int(problem.least[model] - found[:, model].sum())
        for old in (True, False):
            left = problem.memory_bytes - (found * problem.footprint_bytes).sum(axis=1)
            free = able[:, model] & ~found[:, model] & (left >= size) & (before[:, model] if old else True)
            chosen = _one_after_another(ground, int(model), free, found[:, model], missing)
            found[chosen, model] = True
            missing -= len(chosen)
        for site in np.flatnonzero(able[:, model] & ~found[:, model]) if missing > 0 else ():
            gone = _make_room(ground, found, int(site), size)
            if gone is not None:
                found[site, gone] = False
                found[site, model] = True
                missing -= 1
            if missing <= 0:
                break
    return found


def at_most(ground: Ground, placed: Truths, gain: Floats) -> Truths:
    """``placed`` without the least useful replicas of models that have too many; pinned ones stay longest."""
    problem = ground.costs.problem
    found = placed.copy()
    for model in np.flatnonzero(found.sum(axis=0) > problem.most):
        sites = np.flatnonzero(found[:, model])
        order = sites[np.lexsort((sites, gain[sites, model], problem.pinned[sites, model]))]
        found[order[: len(sites) - int(problem.most[model])], model] = False
    return found


def _make_room(ground: Ground, placed: Truths, site: int, size: float) -> Ints | None:
    """Models that can go from ``site`` so that ``size`` bytes fit, the largest first; None where it cannot be."""
    problem = ground.costs.problem
    left = float(problem.memory_bytes[site] - problem.footprint_bytes[placed[site]].sum())
    spare = placed[site] & ~problem.pinned[site] & (placed.sum(axis=0) > problem.least)
    gone: list[int] = []
    for model in sorted(np.flatnonzero(spare), key=lambda m: (-problem.footprint_bytes[m], m)):
        if left >= size:
            break
        gone.append(int(model))
        left += float(problem.footprint_bytes[model])
    return np.array(gone, np.intp) if left >= size else None


def _one_after_another(ground: Ground, model: int, free: Truths, held: Truths, count: int) -> Ints:
    """Up to ``count`` of the ``free`` places (bool[S]), each where it saves most given those before it."""
    demand = ground.costs.problem.demand_per_s[:, model]
    places = np.flatnonzero(free)
    if count <= 0 or not len(places):
        return np.zeros(0, np.intp)
    if len(places) > PLACES:
        roomy = places[np.argsort(-ground.queues.room[places], kind="stable")]
        asked = places[np.argsort(-demand[places], kind="stable")]
        places = np.unique(np.concatenate([roomy[: PLACES // 2], asked[: PLACES // 2]]))
    origins = np.sort(np.argsort(-demand, kind="stable")[:ORIGINS])[:, None]
    unserved = ground.costs.unserved_s[model]
    cost = np.minimum(ground.costs.between(model, origins, columns(places)), unserved)
    holders = np.flatnonzero(held)
    best = np.full(len(origins), unserved)
    if len(holders):
        best = np.minimum(best, ground.costs.between(model, origins, columns(holders)).min(axis=1))
    weight = demand[origins[:, 0]] + 1e-9
    chosen: list[int] = []
    for _ in range(min(count, len(places))):
        gain = weight @ np.maximum(best[:, None] - cost, 0.0)
        gain[chosen] = -1.0
        pick = int(gain.argmax())
        chosen.append(pick)
        best = np.minimum(best, cost[:, pick])
    found: Ints = places[np.array(chosen, np.intp)]
    return found


def limited(ground: Ground, placed: Truths, before: Truths, gain: Floats, most: int) -> Truths:
    """``placed`` with at most ``most`` replicas more than ``before``: those that save most. What they would have
    pushed out stays as far as memory goes. What must be is added in any case."""
    problem = ground.costs.problem
    new = placed & ~before
    site, model = np.nonzero(new & ~problem.pinned)
    if len(site) <= most:
        return placed
    late = np.argsort(-gain[site, model], kind="stable")[most:]
    found = placed.copy()
    found[site[late], model[late]] = False
    left = problem.memory_bytes - (found * problem.footprint_bytes).sum(axis=1)
    count = found.sum(axis=0)
    waiting = np.zeros(len(placed), dtype=np.bool_)
    waiting[site[late]] = True
    gone = before & ~placed & waiting[:, None]
    for s, m in sorted(zip(*np.nonzero(gone), strict=True), key=lambda pair: (-gain[pair], *pair)):
        if left[s] >= problem.footprint_bytes[m] and count[m] < problem.most[m]:
            found[s, m] = True
            left[s] -= problem.footprint_bytes[m]
            count[m] += 1
    return found
