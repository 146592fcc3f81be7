"""The order in which an origin's requests try places when one is full or broken.

Decides: at most :data:`MAX_ORDER` of the open places that hold the model, the cheapest first, with the wait that the
plan expects there. Only the plan's own placement and the hard rules say what is open.
"""

from typing import Final

import numpy as np

from nearcast.planning.fleet.cost import LATE
from nearcast.planning.fleet.problem import FleetPlan, Problem

MAX_ORDER: Final = 5


def failover(problem: Problem, plan: FleetPlan, site: int, model: int) -> tuple[int, ...]:
    """Places for requests for ``model`` that enter at ``site``, the cheapest first, ties by index; may be empty.

    Cost: O(S).
    """
    held = np.flatnonzero(problem.open_from(site, model) & plan.placed[:, model])
    time_s = problem.time_s(site, model)[held] + plan.wait_s[held]
    late_s = np.maximum(time_s - problem.target_s[model], 0.0)
    cost = problem.weight[model] * time_s + LATE * problem.urgency[model] * late_s + problem.extra_s[held, model]
    order = np.lexsort((held, cost))[:MAX_ORDER]
    return tuple(int(place) for place in held[order])
