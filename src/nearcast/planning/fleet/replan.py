"""A plan after a change of a few sites, in a fraction of the time: only what the change touches is decided anew.

Decides: which origins are touched (the changed sites, those near them, and all that send requests to a changed place
which is closed to them now, or full), and which places these may use. That part is planned as a problem of its own, by
`solve.plan_fleet`, with the load of everybody else as fixed load; the rest of the plan before stays bit by bit.

The caller says what changed. Figures of other sites that changed as well are not looked at, but for costs and loads,
which are told as they are. Where most of the fleet is touched, all of it is planned.
"""

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.fleet.congestion import CEILING, Queues
from nearcast.planning.fleet.cost import Costs
from nearcast.planning.fleet.problem import FleetPlan, Floats, Problem, Truths
from nearcast.planning.fleet.solve import DEFAULT, Limits, plan_fleet

AROUND: Final = 24
"""Nearest sites of a changed one that are planned anew, and of those the ones whose room they may use."""
FEW: Final = 32
"""Models with at most so many replicas: all of these may be used, wherever they are."""
MOST_OF_IT: Final = 0.5
"""Part of all sites beyond which everything is planned."""

Ints = NDArray[np.intp]


def replan_fleet(problem: Problem, previous: FleetPlan, changed: Truths, *, limits: Limits = DEFAULT) -> FleetPlan:
    """The plan after ``changed`` (bool[S]) sites changed in anything: demand, health, hardware, rules.

    Returns:
        A plan of the whole fleet. Its bounds are for what was planned anew, given the rest: no other shares, or
        replicas, of the touched origins cost less than them.
    """
    origins = _touched(problem, previous, changed)
    if not origins.any():
        return previous
    if origins.mean() > MOST_OF_IT:
        return plan_fleet(problem, previous, limits=limits)
    sites = np.flatnonzero(_within_reach(problem, previous, origins))
    ours = origins[previous.origin]
    load = _load(problem, previous, ~ours)
    part = plan_fleet(
        _part(problem, previous, origins, sites),
        _part_of_plan(previous, sites, ours),
        limits=limits,
        fixed_load=np.minimum(load, CEILING * problem.workers)[sites],
        origins=np.flatnonzero(origins[sites]).astype(np.int32),
    )
    return _merged(problem, previous, part, origins, sites)


def _touched(problem: Problem, previous: FleetPlan, changed: Truths) -> Truths:
    """bool[S]: the changed sites, those around them, and whoever uses one of them that is closed to it now or full."""
    found = changed.copy()
    around = min(AROUND, len(changed) - 1)
    if around > 0 and changed.any():
        found[np.argpartition(problem.round_trip_s[changed], around, axis=1)[:, : around + 1]] = True
    to_changed = changed[previous.place]
    full = _load(problem, previous, to_changed) > CEILING * problem.workers
    uses = np.flatnonzero(to_changed)
    origin, model, place = previous.origin[uses], previous.model[uses], previous.place[uses]
    able = problem.eligible & np.isfinite(problem.service_s)
    open_to = problem.may[problem.rule_set[model], problem.site_class[origin], problem.site_class[place]]
    open_to = open_to & able[place, model] & np.isfinite(problem.round_trip_s[origin, place]) & ~full[place]
    open_to &= problem.workers[place] > 0.0
    found[origin[~open_to]] = True
    return found


def _within_reach(problem: Problem, previous: FleetPlan, origins: Truths) -> Truths:
    """bool[S]: the places that ``origins`` use, those near them, and all replicas of models that have few."""
    found = origins.copy()
    found[previous.place[origins[previous.origin]]] = True
    around = min(AROUND, len(origins) - 1)
    if around > 0 and origins.any():
        found[np.argpartition(problem.round_trip_s[origins], around, axis=1)[:, : around + 1]] = True
    few = previous.placed.sum(axis=0) <= FEW
    return found | previous.placed[:, few].any(axis=1)


def _load(problem: Problem, plan: FleetPlan, routes: Truths) -> Floats:
    """float64[S]: what the demand on some routes of ``plan`` brings, less what was unserved."""
    origin, model, place = plan.origin[routes], plan.model[routes], plan.place[routes]
    demand = _served(problem, plan)[origin, model]
    work_s = np.where(np.isfinite(problem.work_s), problem.work_s, 0.0)[place, model]
    found: Floats = np.bincount(place, demand * plan.share[routes] * work_s, len(plan.placed)).astype(np.float64)
    return found


def _served(problem: Problem, plan: FleetPlan) -> Floats:
    return np.maximum(problem.demand_per_s - plan.unserved_per_s, 0.0)


def _part(problem: Problem, previous: FleetPlan, origins: Truths, sites: Ints) -> Problem:
    """The problem of ``origins`` at ``sites``. Elsewhere than at origins replicas stay as they are; at origins those
    stay that others use."""
    inside = origins[sites]
    before = previous.placed[sites]
    others = np.zeros_like(previous.placed)
    used = ~origins[previous.origin]
    others[previous.place[used], previous.model[used]] = True
    eligible = problem.eligible[sites] & (inside[:, None] | before)
    outside = previous.placed.sum(axis=0) - before.sum(axis=0)
    return replace(
        problem,
        sites=tuple(problem.sites[site] for site in sites),
        demand_per_s=np.where(inside[:, None], problem.demand_per_s[sites], 0.0),
        round_trip_s=problem.round_trip_s[np.ix_(sites, sites)],
        bytes_per_s=problem.bytes_per_s[sites],
        service_s=problem.service_s[sites],
        work_s=problem.work_s[sites],
        full_s=problem.full_s[sites],
        workers=problem.workers[sites],
        memory_bytes=problem.memory_bytes[sites],
        eligible=eligible,
        pinned=(problem.pinned[sites] | others[sites] | (before & ~inside[:, None])) & eligible,
        warm=problem.warm[sites],
        move_s=problem.move_s[sites],
        least=np.maximum(problem.least - outside, 0).astype(np.int32),
        most=np.maximum(problem.most - outside, 0).astype(np.int32),
        site_class=problem.site_class[sites],
        extra_s=problem.extra_s[sites],
    )


def _part_of_plan(previous: FleetPlan, sites: Ints, ours: Truths) -> FleetPlan:
    index = np.full(len(previous.placed), -1, np.int32)
    index[sites] = np.arange(len(sites), dtype=np.int32)
    return replace(
        previous,
        placed=previous.placed[sites],
        origin=index[previous.origin[ours]],
        model=previous.model[ours],
        place=index[previous.place[ours]],
        share=previous.share[ours],
        utilization=previous.utilization[sites],
        wait_s=previous.wait_s[sites],
        price_s=previous.price_s[sites],
        unserved_per_s=previous.unserved_per_s[sites],
    )


def _merged(problem: Problem, previous: FleetPlan, part: FleetPlan, origins: Truths, sites: Ints) -> FleetPlan:
    kept = ~origins[previous.origin]
    placed, price_s = previous.placed.copy(), previous.price_s.copy()
    placed[sites], price_s[sites] = part.placed, part.price_s
    unserved = np.minimum(previous.unserved_per_s, problem.demand_per_s)
    unserved[origins] = part.unserved_per_s[origins[sites]]
    origin = np.concatenate([previous.origin[kept], sites[part.origin].astype(np.int32)])
    model = np.concatenate([previous.model[kept], part.model])
    place = np.concatenate([previous.place[kept], sites[part.place].astype(np.int32)])
    share = np.concatenate([previous.share[kept], part.share])
    order = np.argsort(origin, kind="stable")  # both are sorted, and no origin is in both
    merged = replace(
        previous,
        placed=placed,
        origin=origin[order],
        model=model[order],
        place=place[order],
        share=share[order],
        price_s=price_s,
        unserved_per_s=unserved,
    )
    found = as_it_is(problem, merged)
    return replace(
        found,
        routing_bound_s=found.cost_s - max(0.0, part.cost_s - part.routing_bound_s),
        placement_bound_s=found.cost_s - max(0.0, part.cost_s - part.placement_bound_s),
    )


def as_it_is(problem: Problem, plan: FleetPlan) -> FleetPlan:
    """``plan`` with the load, waits and cost that the figures of ``problem`` make of it. Its bounds stay: they bound
    nothing where it was made for other figures."""
    queues = Queues.of(problem)
    costs = Costs.of(problem, queues.top_price_s)
    served = _served(problem, plan)
    rate = served[plan.origin, plan.model] * plan.share
    load = _load(problem, plan, np.ones(len(plan.share), dtype=np.bool_))
    requests = np.bincount(plan.place, rate, len(plan.placed)).astype(np.float64)
    ways = 0.0
    asked = np.flatnonzero(rate > 0.0)
    by_model = asked[np.argsort(plan.model[asked].astype(np.uint16), kind="stable")]
    ends = np.cumsum(np.bincount(plan.model[asked], minlength=len(problem.models)))
    for model, mine in enumerate(np.split(by_model, ends[:-1])):
        each = costs.between(model, plan.origin[mine].astype(np.intp), plan.place[mine].astype(np.intp))
        ways += float(rate[mine] @ each.astype(np.float64))
    lost = float((plan.unserved_per_s * costs.unserved_s).sum())
    return replace(
        plan,
        utilization=load / np.where(problem.workers > 0.0, problem.workers, 1.0),
        wait_s=queues.wait_s(load, requests),
        cost_s=ways + lost + float(queues.waiting_s(load).sum()),
    )
