"""Why a decision is what it is: for one deployment, every place with its part in the plan, or the reason why not.

Pure, on a decision record alone: it says what the planner saw then, not what is now. The terms are those of the problem
that `gather` makes of the record's snapshot, so they are the numbers that were weighed.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from nearcast.errors import NotFound
from nearcast.planning.fleet.congestion import served_s
from nearcast.planning.fleet.explanation import PlanExplanation, PlannedPlace, PlannedWay, Role
from nearcast.planning.fleet.gather import Gathered, gather
from nearcast.planning.fleet.problem import FleetPlan, Floats, Problem
from nearcast.planning.fleet.record import Record, carried
from nearcast.planning.grounds import Placed, placed, wanted
from nearcast.resources.problems import did_you_mean

MAX_LISTED: Final = 30
MAX_WAYS: Final = 16
_HOLDING: Final = frozenset({"pinned", "chosen", "held"})


def explain_plan(record: Record, name: str, site: str | None = None) -> PlanExplanation:
    """Explain what ``record`` decided for the deployment or model ``name``, and where requests of ``site`` go.

    Raises:
        NotFound: the record knows no such deployment, model or site.
    """
    gathered = gather(record.snapshot)
    plan = carried(record.plan, gathered.problem)
    if plan is None:
        raise NotFound("the record holds no plan")
    column = _column(gathered, name)
    problem, deployment = gathered.problem, gathered.deployments[column]
    if site is not None and site not in problem.sites:
        raise NotFound(f"there is no Site/{site} in decision {record.id}", hint=did_you_mean(site, problem.sites))
    where = placed(deployment, gathered.grounds, record.guidance.placements)
    places, unlisted = _places(record, gathered, plan, where, column)
    return PlanExplanation(
        decision=record.id,
        at=record.at,
        reason=record.reason,
        planned=record.scope.planned,
        planned_sites=record.scope.changed,
        planned_why=record.scope.why,
        deployment=deployment.name,
        model=deployment.spec.model,
        version=deployment.spec.version,
        objective=deployment.spec.objective,
        target_ms=_ms(deployment.spec.target_s),
        is_auto=deployment.spec.placement.auto is not None,
        demand_per_s=_rate(problem.demand_per_s[:, column].sum()),
        unserved_per_s=_rate(plan.unserved_per_s[:, column].sum()),
        closed_per_s=_rate(_closed_per_s(gathered, plan, column)),
        placement=wanted(deployment.spec.placement),
        routing_gap=round(plan.routing_gap, 6),
        placement_gap=round(plan.placement_gap, 6),
        places=places,
        unlisted=unlisted,
        site=site or "",
        ways=_ways(gathered, plan, column, problem.sites.index(site)) if site is not None else (),
    )


def _closed_per_s(gathered: Gathered, plan: FleetPlan, column: int) -> float:
    """Requests without room that no place may answer: rules close all of them, or none lives."""
    unserved = plan.unserved_per_s[:, column]
    closed = [n for n in np.flatnonzero(unserved) if not gathered.problem.open_from(int(n), column).any()]
    return float(unserved[closed].sum())


def _column(gathered: Gathered, name: str) -> int:
    for column, item in enumerate(gathered.deployments):
        if item.name == name:
            return column
    for column, item in enumerate(gathered.deployments):
        if item.spec.model == name:
            return column
    waiting = [item.name for item in gathered.state.deployments if name in {item.name, item.spec.model}]
    if waiting:
        raise NotFound(f"Deployment/{waiting[0]} was not planned: its version is not released")
    known = sorted({item.name for item in gathered.deployments} | {item.spec.model for item in gathered.deployments})
    raise NotFound(
        f"the decision knows no deployment or model {name!r}",
        hint=did_you_mean(name, known) or "The planner looks at deployments whose version is released.",
    )


def _places(
    record: Record, gathered: Gathered, plan: FleetPlan, where: Placed, column: int
) -> tuple[tuple[PlannedPlace, ...], int]:
    problem = gathered.problem
    serves = np.zeros(len(problem.sites))
    mine = plan.model == column
    served = plan.share[mine] * problem.demand_per_s[plan.origin[mine], column]
    np.add.at(serves, plan.place[mine], served)
    held = {item.site: item.for_s for item in record.unwanted if item.deployment == gathered.deployments[column].name}
    holding = frozenset(where.sites)
    found = []
    for n, name in enumerate(problem.sites):
        role = _role(gathered, plan, where, holding, column, n)
        found.append(
            PlannedPlace(
                site=name,
                role=role,
                demand_per_s=_rate(problem.demand_per_s[n, column]),
                serves_per_s=_rate(serves[n]),
                work_ms=_work_ms(gathered, column, n) if role in _HOLDING else None,
                utilization=round(float(plan.utilization[n]), 4) if role in _HOLDING else None,
                wait_ms=_ms(plan.wait_s[n]) if role in _HOLDING else None,
                why=_why(gathered, plan, where, held, column, n, role),
            )
        )
    order = {"pinned": 0, "chosen": 0, "held": 1, "open": 2, "unable": 3, "refused": 4, "outside": 5}
    found.sort(key=lambda place: (order[place.role], -place.serves_per_s, -place.demand_per_s, place.site))
    return tuple(found[:MAX_LISTED]), max(0, len(found) - MAX_LISTED)


def _work_ms(gathered: Gathered, column: int, n: int) -> float | None:
    work_s = gathered.problem.work_s[n, column]
    return _ms(work_s) if np.isfinite(work_s) else None


def _role(gathered: Gathered, plan: FleetPlan, where: Placed, holding: frozenset[str], column: int, n: int) -> Role:
    problem = gathered.problem
    name = problem.sites[n]
    if name in where.refused or name in where.barred:
        return "refused"
    if name not in where.open:
        return "outside"
    if problem.pinned[n, column]:
        return "pinned"
    if name in holding:
        return "chosen" if plan.placed[n, column] else "held"
    able = problem.workers[n] > 0.0 and np.isfinite(problem.service_s[n, column])
    return "open" if able and problem.footprint_bytes[column] <= problem.memory_bytes[n] else "unable"


def _why(
    gathered: Gathered,
    plan: FleetPlan,
    where: Placed,
    held: Mapping[str, float],
    column: int,
    n: int,
    role: Role,
) -> str:
    problem = gathered.problem
    name = problem.sites[n]
    match role:
        case "refused":
            return where.barred.get(name) or ", ".join(f"policy/{policy}" for policy in where.refused[name])
        case "pinned":
            return "its placement names it" if problem.workers[n] > 0.0 else "named, but none of its nodes may be asked"
        case "chosen" if problem.models[column] in gathered.faulty:
            return "no site that was asked to could load this version; it is tried here again"
        case "chosen":
            return "holds it already" if problem.warm[n, column] else f"takes {problem.move_s[n, column]:.1f} s to load"
        case "held":
            if problem.workers[n] <= 0.0:
                return f"none of its nodes is connected and serves for {held.get(name, 0.0):.0f} s; kept for a while"
            return f"not needed for {held.get(name, 0.0):.0f} s; kept for a while, since demand may return"
        case "unable":
            return _inability(gathered, column, n)
        case "outside":
            return "the placement leaves it out" + ("; serves until others do" if problem.warm[n, column] else "")
        case "open":
            return _not_needed(gathered, plan, column, n)


def _inability(gathered: Gathered, column: int, n: int) -> str:
    problem = gathered.problem
    if problem.workers[n] <= 0.0:
        return "none of its nodes is connected and serves"
    if not np.isfinite(problem.service_s[n, column]):
        return "it failed to load this version a while ago"
    need, has = problem.footprint_bytes[column] / 2**20, problem.memory_bytes[n] / 2**20
    return f"the model needs {need:.0f} MiB, the node with the least has {has:.0f}"


def _not_needed(gathered: Gathered, plan: FleetPlan, column: int, n: int) -> str:
    """What its requests get now, and what they would get at home."""
    problem = gathered.problem
    mine = np.flatnonzero((plan.origin == n) & (plan.model == column))
    if not problem.demand_per_s[n, column]:
        return "no requests enter here"
    if not len(mine):
        return "no place may answer its requests"
    places, shares = plan.place[mine], plan.share[mine]
    time_s = float((shares * _total_s(problem, plan, n, column)[places]).sum())
    home_ms = _ms(problem.service_s[n, column])
    return f"its requests are answered by {problem.sites[places[0]]} in {_ms(time_s):g} ms; here: {home_ms:g} ms idle"


def _ways(gathered: Gathered, plan: FleetPlan, column: int, origin: int) -> tuple[PlannedWay, ...]:
    """The places that hold the model as seen from ``origin``, those with a share first, then the nearest."""
    problem = gathered.problem
    mine = (plan.origin == origin) & (plan.model == column)
    share = np.zeros(len(problem.sites))
    share[plan.place[mine]] = plan.share[mine]
    open_to = problem.open_from(origin, column)
    transfer_s = problem.transfer_s(origin, column)
    total_s = _total_s(problem, plan, origin, column) + problem.extra_s[:, column]
    service_s = served_s(problem, plan.utilization)[:, column]
    holders = np.flatnonzero(plan.placed[:, column])
    order = sorted(holders, key=lambda n: (-share[n], not open_to[n], float(total_s[n]), n))
    return tuple(
        PlannedWay(
            site=problem.sites[n],
            share_percent=round(100.0 * float(share[n]), 2),
            total_ms=_ms(total_s[n]),
            round_trip_ms=_ms(problem.round_trip_s[origin, n]),
            transfer_ms=_ms(transfer_s[n]),
            wait_ms=_ms(plan.wait_s[n]),
            service_ms=_ms(service_s[n]),
            extra_ms=_ms(problem.extra_s[n, column]),
            why=_way(gathered, plan, origin, int(n), float(share[n]), bool(open_to[n])),
        )
        for n in order[:MAX_WAYS]
    )


def _total_s(problem: Problem, plan: FleetPlan, origin: int, column: int) -> Floats:
    """float64[S]: time to answer from each place as busy as the plan makes it."""
    longer_s = served_s(problem, plan.utilization)[:, column] - np.where(
        np.isfinite(problem.service_s[:, column]), problem.service_s[:, column], 0.0
    )
    found: Floats = problem.time_s(origin, column) + longer_s + plan.wait_s
    return found


def _way(gathered: Gathered, plan: FleetPlan, origin: int, n: int, share: float, is_open: bool) -> str:
    problem = gathered.problem
    if share > 0.0:
        return ""
    if is_open:
        return f"{plan.utilization[n]:.0%} busy already" if plan.utilization[n] > 0.8 else "dearer for these requests"
    if problem.workers[n] <= 0.0:
        return "none of its nodes is connected and serves"
    if not np.isfinite(problem.round_trip_s[origin, n]):
        return "it cannot be reached from there"
    return "a policy refuses it to requests from there"


def _ms(seconds: float) -> float:
    """Milliseconds for people; a time without end is told as the largest that JSON can say plainly."""
    return round(min(float(seconds), 1e6) * 1000.0, 3)


def _rate(per_s: float) -> float:
    return round(float(per_s), 4)
