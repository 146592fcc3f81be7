"""How much of a fleet a pass plans anew: everything, what the change of a few sites touches, or nothing.

Decides, on the figures that the plan in force rests on and on those of now: which sites changed so much that the plan
must look at them again, whether these are few, and whether moves that a plan began by limited steps go on. Does not
decide the plan (`solve`, `replan`), nor changes of the desired state: whoever sees one asks for everything.

Drift from the plan that would be made anew is bounded by four rules, whatever comes in whatever order:

* each site is held against the figures that it was **last planned with**, not against those of the last pass, so small
  changes add up until they count;
* a change of a fact counts, however small: a place that died or lost the model, a way that broke, memory that no longer
  suffices, a place that is full now, an origin that finds a place where there was none;
* what the tolerances let pass at single sites must not add up to a different load of the fleet (``drift``);
* everything is planned every ``whole_every_s``. So what no rule sees (a replica that would now be worth its place a
  little more elsewhere) lasts so long at most.

Below ``many`` sites everything is planned as soon as any figure is another: that takes a fraction of a second.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from nearcast.planning.fleet.congestion import CEILING
from nearcast.planning.fleet.problem import FleetPlan, Floats, Indices, Problem, Truths
from nearcast.planning.fleet.record import Scope
from nearcast.planning.fleet.replan import replan_fleet
from nearcast.planning.fleet.solve import plan_fleet

_FIXED: Final = (
    "sites", "models", "eligible", "pinned", "least", "most", "site_class", "may", "rule_set", "target_s", "urgency",
    "bytes_per_s",
)  # fmt: skip
"""What another desired state changes: only a whole plan knows what to do then."""
_TOLD: Final = (
    "demand_per_s",
    "service_s",
    "work_s",
    "full_s",
    "workers",
    "memory_bytes",
    "footprint_bytes",
    "extra_s",
)
SETTLED: Final = 0.01
"""Part of the demand that moved; below it, a plan moves no further."""
NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What is too little to plan for.

    Attributes:
        demand: part of a site's own load, and
        workers: of one worker: what its demand must differ by to count; the larger of the two.
        times: part of a service time, of a price, or of a model's payload or footprint.
        room: part of a site's workers or memory.
        round_trip, round_trip_s: part of a round trip, and seconds; the larger of the two.
        full: part of its workers by which a place may be above its ceiling.
        drift: part of the whole fleet's load.
        few: part of all sites: where more changed, everything is planned.
        many: sites: below it, any change is one of everything.
        steps: plans after one that changed much, until its moves have come to their end.
        whole_every_s: everything is planned at least so often.
    """

    demand: float = 0.2
    workers: float = 0.05
    times: float = 0.2
    room: float = 0.05
    round_trip: float = 0.25
    round_trip_s: float = 0.005
    full: float = 0.02
    drift: float = 0.05
    few: float = 0.1
    many: int = 200
    steps: int = 3
    whole_every_s: float = 120.0


DEFAULT: Final = Tolerance()


@dataclass(frozen=True, eq=False)
class Basis:
    """What a plan rests on.

    Attributes:
        problem: its figures, of each site those that it was last planned with; where sites are many, without round
            trips, of which there are millions.
        route_s: float64[N]: round trip of each route of the plan.
        whole_s: when everything was planned, on the caller's clock.
        left: int32[S]: plans that shall look at a site again, since its moves went on in the last one.
        whole_left: the same of everything.
    """

    problem: Problem
    route_s: Floats
    whole_s: float
    left: Indices
    whole_left: int

    def scope(self, problem: Problem, plan: FleetPlan, now_s: float, tolerance: Tolerance = DEFAULT) -> Scope:
        """How much to plan anew for ``problem``, with ``plan`` in force."""
        if self.whole_left > 0:
            return Scope(why="moves of the last plan go on")
        if now_s - self.whole_s >= tolerance.whole_every_s:
            return Scope(why=f"everything is planned every {tolerance.whole_every_s:.0f} s")
        if any(not np.array_equal(getattr(self.problem, name), getattr(problem, name)) for name in _FIXED):
            return Scope(why="sites, models or rules changed")
        if len(problem.sites) < tolerance.many:
            return Scope(why="figures changed") if _differs(self.problem, problem) else Scope(planned="none")
        if _far(self.problem, problem, tolerance):
            return Scope(why="load, payloads or footprints changed in the whole fleet")
        causes = dict(_causes(self, problem, plan, tolerance))
        changed = np.logical_or.reduce(list(causes.values()))
        count = int(changed.sum())
        if not count:
            return Scope(planned="none")
        why = "; ".join(_spoken(word, problem, sites) for word, sites in causes.items() if sites.any())
        if count > tolerance.few * len(problem.sites):
            return Scope(why=why)
        return Scope(planned="part", changed=tuple(problem.sites[n] for n in np.flatnonzero(changed)), why=why)


def planned(problem: Problem, before: FleetPlan | None, scope: Scope) -> FleetPlan:
    """The plan for ``problem`` after ``before``, in its indices, made as ``scope`` says.

    What a part leaves undone (a far origin that asked a replica which had to go, or may ask one that came) is planned
    with it; where that is not enough, everything is.
    """
    if scope.planned == "none" and before is not None:
        return before
    if scope.planned == "part" and before is not None:
        changed = _named(problem, scope)
        for _ in range(2):
            plan = replan_fleet(problem, before, changed)
            lacking = broken(problem, plan)
            if not lacking.any():
                return plan
            changed |= lacking
    return plan_fleet(problem, before)


def rests(
    problem: Problem,
    plan: FleetPlan,
    before: tuple[FleetPlan, Basis] | None,
    scope: Scope,
    now_s: float,
    tolerance: Tolerance = DEFAULT,
) -> Basis:
    """What ``plan`` rests on, which was made for ``problem`` as ``scope`` says.

    Args:
        problem, plan: of now.
        before: the plan before, in the indices of ``problem``, and what it rested on; None for the first.
        scope: as :meth:`Basis.scope` said.
        now_s: on the caller's clock.
        tolerance: how many further plans moves may take.
    """
    count = len(problem.sites)
    kept = problem if count < tolerance.many else replace(problem, round_trip_s=np.zeros((0, 0)))
    route_s = _route_s(problem, plan)
    if before is None or scope.planned == "whole":
        was = before[1].whole_left if before else 0
        more = (was - 1 if was else tolerance.steps) if _goes_on(problem, before, plan, now_s, tolerance) else 0
        return Basis(kept, route_s, now_s, np.zeros(count, np.int32), more)
    basis = before[1]
    if scope.planned == "none":
        return basis
    changed = _named(problem, scope)
    figures: dict[str, Any] = {
        name: _mixed(changed, getattr(kept, name), getattr(basis.problem, name)) for name in _TOLD
    }
    left: Indices = np.zeros(count, np.int32)
    if _moved(problem, before[0], plan, changed) > SETTLED:
        left[changed] = np.where(basis.left > 0, basis.left - 1, tolerance.steps)[changed]
    return replace(basis, problem=replace(kept, **figures), route_s=route_s, left=left)


def _named(problem: Problem, scope: Scope) -> Truths:
    names = frozenset(scope.changed)
    return np.array([name in names for name in problem.sites], dtype=np.bool_)


def _mixed(changed: Truths, now: Floats, before: Floats) -> Floats:
    """Of changed sites the figures of now; what is no site's own stays as it was when all was planned."""
    if len(now) != len(changed):
        return before
    mixed: Floats = np.where(changed if now.ndim == 1 else changed[:, None], now, before)
    return mixed


# --- what changed -----------------------------------------------------------------------------------------------------


def _differs(before: Problem, problem: Problem) -> bool:
    """Whether any figure is another one."""
    names = (*_TOLD, "round_trip_s", "payload_bytes")
    return any(not np.array_equal(getattr(before, name), getattr(problem, name)) for name in names)


def _far(before: Problem, problem: Problem, tolerance: Tolerance) -> bool:
    """Whether what is of the whole fleet changed: its load, or what requests or models are like."""
    work_s = _usual_work_s(problem)
    load, now = float((before.demand_per_s @ work_s).sum()), float((problem.demand_per_s @ work_s).sum())
    if abs(now - load) > max(tolerance.drift * load, tolerance.workers):
        return True
    pairs = ((before.payload_bytes, problem.payload_bytes), (before.footprint_bytes, problem.footprint_bytes))
    return any(bool(_apart(old, new, tolerance.times).any()) for old, new in pairs)


def _causes(basis: Basis, problem: Problem, plan: FleetPlan, tolerance: Tolerance) -> Iterator[tuple[str, Truths]]:
    """What may have changed, and bool[S]: at which sites it did."""
    before = basis.problem
    work_s = _usual_work_s(problem)
    own = before.demand_per_s @ work_s
    other = np.abs(problem.demand_per_s - before.demand_per_s) @ work_s
    more: Truths = other > np.maximum(tolerance.demand * own, tolerance.workers)
    yield "demand", more
    other_room = _apart(before.workers, problem.workers, tolerance.room)
    other_room |= _apart(before.memory_bytes, problem.memory_bytes, tolerance.room)
    yield "hardware or health", other_room
    apart = _apart(before.service_s, problem.service_s, tolerance.times)
    apart |= _apart(before.work_s, problem.work_s, tolerance.times)
    apart |= _apart(before.full_s, problem.full_s, tolerance.times)
    apart |= _apart(before.extra_s, problem.extra_s, tolerance.times)
    yield "times or prices", np.asarray(apart.any(axis=1), dtype=np.bool_)
    now_s = _route_s(problem, plan)
    far = _apart(basis.route_s, now_s, tolerance.round_trip)
    with np.errstate(invalid="ignore"):
        far &= ~(np.abs(now_s - basis.route_s) <= tolerance.round_trip_s)
    yield "round trips", _at(plan.origin[far], len(own))
    yield "what the plan may not do any more", broken(problem, plan)
    yield "places that are full now", _full(problem, plan, tolerance)
    yield "moves that go on", basis.left > 0


def broken(problem: Problem, plan: FleetPlan) -> Truths:
    """bool[S]: sites where ``plan`` breaks a hard rule of ``problem``, or leaves requests without a place that may
    answer them. Cost: O(routes + sites x models), and more only where requests have no route."""
    able = problem.eligible & np.isfinite(problem.service_s) & (problem.workers > 0.0)[:, None]
    need = (plan.placed * problem.footprint_bytes).sum(axis=1)
    found: Truths = (plan.placed & ~able).any(axis=1) | (need > (1.0 + 1e-9) * problem.memory_bytes)
    origin, model, place = plan.origin, plan.model, plan.place
    may = problem.may[problem.rule_set[model], problem.site_class[origin], problem.site_class[place]]
    closed = ~(may & able[place, model] & plan.placed[place, model] & np.isfinite(_route_s(problem, plan)))
    found |= _at(origin[closed], len(found))
    routed = np.zeros(plan.placed.shape, dtype=np.bool_)
    routed[origin, model] = True
    for column in np.flatnonzero(~routed.all(axis=0)):
        found |= _found_a_place(problem, int(column), ~routed[:, column], plan.placed[:, column] & able[:, column])
    return found


def _found_a_place(problem: Problem, model: int, lost: Truths, holds: Truths) -> Truths:
    """bool[S]: those of ``lost`` that one of the places which hold the model may answer."""
    found = np.zeros(len(lost), dtype=np.bool_)
    origins, places = np.flatnonzero(lost), np.flatnonzero(holds)
    if len(places):
        may = problem.may[problem.rule_set[model]][np.ix_(problem.site_class[origins], problem.site_class[places])]
        found[origins] = (may & np.isfinite(problem.round_trip_s[np.ix_(origins, places)])).any(axis=1)
    return found


def _full(problem: Problem, plan: FleetPlan, tolerance: Tolerance) -> Truths:
    """bool[S]: places to which the plan sends more than they have room for, by the demand of now."""
    served = np.maximum(problem.demand_per_s - plan.unserved_per_s, 0.0)[plan.origin, plan.model]
    work_s = np.where(np.isfinite(problem.work_s), problem.work_s, 0.0)[plan.place, plan.model]
    load = np.bincount(plan.place, served * plan.share * work_s, len(problem.sites))
    full: Truths = load > (CEILING + tolerance.full) * problem.workers
    return full


def _usual_work_s(problem: Problem) -> Floats:
    """float64[M]: the mean over sites."""
    known = np.isfinite(problem.work_s)
    total = np.where(known, problem.work_s, 0.0).sum(axis=0)
    usual: Floats = total / np.maximum(known.sum(axis=0), 1)
    return usual


def _apart(before: Floats, now: Floats, part: float) -> Truths:
    """Where ``now`` differs from ``before`` by more than ``part`` of it; infinity is its own equal."""
    with np.errstate(invalid="ignore"):
        apart: Truths = np.abs(now - before) > part * np.abs(before)
    apart |= np.isfinite(now) != np.isfinite(before)
    return apart


def _route_s(problem: Problem, plan: FleetPlan) -> Floats:
    route_s: Floats = problem.round_trip_s[plan.origin, plan.place]
    return route_s


def _at(sites: Indices, count: int) -> Truths:
    found = np.zeros(count, dtype=np.bool_)
    found[sites] = True
    return found


def _spoken(word: str, problem: Problem, sites: Truths) -> str:
    names = [problem.sites[n] for n in np.flatnonzero(sites)[:NAMED]]
    more = int(sites.sum()) - len(names)
    return f"{word}: {', '.join(names)}" + (f" and {more} more" if more else "")


# --- what still moves -------------------------------------------------------------------------------------------------


def _goes_on(
    problem: Problem, before: tuple[FleetPlan, Basis] | None, plan: FleetPlan, now_s: float, tolerance: Tolerance
) -> bool:
    """Whether to look at everything again soon: after a change, while shares move; not where only time had come."""
    if before is None:
        return True
    old, basis = before
    asked = basis.whole_left > 0 or now_s - basis.whole_s < tolerance.whole_every_s
    everywhere = np.ones(len(problem.sites), dtype=np.bool_)
    return asked and _moved(problem, old, plan, everywhere) > SETTLED


def _moved(problem: Problem, before: FleetPlan, plan: FleetPlan, changed: Truths) -> float:
    """What is sent elsewhere than before, as a part of the demand at ``changed`` sites; 1 where replicas differ."""
    if (before.placed != plan.placed).any():
        return 1.0
    shape = (len(problem.sites), len(problem.models), len(problem.sites))
    keys = [np.ravel_multi_index((each.origin, each.model, each.place), shape) for each in (before, plan)]
    every, at = np.unique(np.concatenate(keys), return_inverse=True)
    moved = np.abs(np.bincount(at, np.concatenate([-before.share, plan.share]), len(every)))
    origin, model, _ = np.unravel_index(every, shape)
    total = float(problem.demand_per_s[changed].sum())
    return float(problem.demand_per_s[origin, model] @ moved) / 2.0 / total if total > 0.0 else 0.0


def told(scope: Scope) -> tuple[str, ...]:
    """What of ``scope`` a reason says: nothing where everything was planned, which is the rule."""
    if scope.planned == "whole":
        return ()
    if scope.planned == "none":
        return ("nothing planned anew",)
    count = len(scope.changed)
    sites = "1 site and whom it touches" if count == 1 else f"{count} sites and whom they touch"
    return (f"planned anew: {sites} ({scope.why})",)
