"""A second opinion on a placement: fill the memory that is left, route over all of it, and keep what is used.

A replica more never makes routing dearer, so a placement that is filled up serves whatever memory lets be served; what
it holds in vain is given up again. `placement` weighs single replicas by the prices of capacity, which say little where
many places are full, or where one replica alone is worth nothing and three together are. Costs one more routing.
"""

from typing import Final

import numpy as np

from nearcast.planning.fleet.assign import Ground, Routing
from nearcast.planning.fleet.problem import Floats, Truths

SMALL: Final = 4096
"""Pairs of site and model up to which the second opinion is always asked for; beyond, where demand lacks room."""


def filled(ground: Ground, placed: Truths, unserved_per_s: Floats) -> Truths:
    """bool[S, M]: ``placed``, and at each site what else fits: models with most demand without room first.

    Args:
        placed: within eligibility and memory.
        unserved_per_s: float64[S, M], by origin.
    """
    problem = ground.costs.problem
    found = placed.copy()
    demand = problem.demand_per_s.sum(axis=0)
    left = problem.memory_bytes - placed @ problem.footprint_bytes
    for model in np.lexsort((-demand, -unserved_per_s.sum(axis=0))):
        room = int(problem.most[model]) - int(found[:, model].sum())
        able = ground.costs.able[:, model] & ~found[:, model] & (problem.footprint_bytes[model] <= left)
        if room <= 0 or demand[model] <= 0.0:
            continue
        sites = np.flatnonzero(able)
        chosen = sites[np.argsort(-problem.workers[sites], kind="stable")[:room]]
        found[chosen, model] = True
        left[chosen] -= problem.footprint_bytes[model]
    return found


def used(ground: Ground, placed: Truths, kept: Truths, routing: Routing) -> Truths:
    """bool[S, M]: ``placed`` less what answers nothing and is not ``kept``; never fewer of a model than its least."""
    problem, market = ground.costs.problem, routing.market
    rank, row = np.nonzero((routing.share > 0.0) & (market.demand_per_s > 0.0))
    carries = np.zeros_like(placed)
    carries[market.place[rank, row], market.models_of(row)] = True
    found = placed & (carries | kept)
    for model in np.flatnonzero(found.sum(axis=0) < np.minimum(problem.least, placed.sum(axis=0))):
        found[:, model] = placed[:, model]
    return found
