"""More replicas for demand that a placement leaves without room.

Sites choose in turn by what a model saves at the prices of capacity (`sweep`), as if a place took all of an origin's
requests or none. Where one place alone cannot take them, two that share look as if each made the other needless. So
whatever routing could not serve is looked at once more: replicas of the plan before stay, and new ones come one after
another where they take most, nearest first, until there is room or nobody is left.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.fleet.assign import Ground
from nearcast.planning.fleet.cost import columns
from nearcast.planning.fleet.problem import Floats, Truths

PLACES: Final = 192
ORIGINS: Final = 1024
MOST_NEW: Final = 64
"""New replicas of one model per plan."""
LEAST_PER_S: Final = 1e-6

Ints = NDArray[np.intp]


def rescued(ground: Ground, placed: Truths, before: Truths, unserved_per_s: Floats, load: Floats) -> Truths:
    """``placed`` with more replicas of the models that ``unserved_per_s`` (float64[S, M]) asks for.

    Args:
        before: bool[S, M] of the plan before.
        load: float64[S] of the places, in worker-seconds per second.
    """
    problem, able = ground.costs.problem, ground.costs.able
    found = placed.copy()
    left = problem.memory_bytes - (found * problem.footprint_bytes).sum(axis=1)
    room = np.maximum(ground.queues.room - load, 0.0)
    short = unserved_per_s.sum(axis=0)
    for model in np.argsort(-short, kind="stable"):
        if short[model] <= LEAST_PER_S:
            break
        size = problem.footprint_bytes[model]
        for old in (True, False):
            free = able[:, model] & ~found[:, model] & (left >= size) & (room > 0.0) & (before[:, model] | (not old))
            count = min(MOST_NEW, int(problem.most[model] - found[:, model].sum()))
            for site in _chosen(ground, int(model), free, unserved_per_s[:, model], room, count):
                found[site, model] = True
                left[site] -= size
    return found


def _chosen(ground: Ground, model: int, free: Truths, demand: Floats, room: Floats, count: int) -> list[int]:
    """Up to ``count`` of the ``free`` places for what is left of ``demand``; both that and ``room`` are used up."""
    places = np.flatnonzero(free)
    origins = np.flatnonzero(demand > LEAST_PER_S)
    origins = np.sort(origins[np.argsort(-demand[origins], kind="stable")[:ORIGINS]])
    if not len(places) or not len(origins):
        return []
    if len(places) > PLACES:
        places = np.sort(places[np.argsort(-(room + demand)[places], kind="stable")[:PLACES]])
    unserved = float(ground.costs.unserved_s[model])
    saved = np.maximum(unserved - ground.costs.between(model, origins[:, None], columns(places)), 0.0)
    work = ground.costs.problem.work_s[places, model]
    found: list[int] = []
    for _ in range(min(count, len(places))):
        lack = demand[origins]
        reach = (lack[:, None] * (saved > 0.0)).sum(axis=0)
        takes = np.minimum(room[places] / work, reach)
        worth = takes * (lack @ saved) / np.maximum(reach, LEAST_PER_S)
        worth[[int(np.searchsorted(places, site)) for site in found]] = 0.0
        pick = int(worth.argmax())
        if worth[pick] <= 0.0:
            break
        found.append(int(places[pick]))
        part = takes[pick] / reach[pick]
        demand[origins] -= np.where(saved[:, pick] > 0.0, lack * part, 0.0)
        room[places[pick]] -= takes[pick] * work[pick]
    return found
