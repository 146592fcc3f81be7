"""The planner: every few seconds the leader plans on what nodes report, and brings into force what matters.

Decides when: a pass follows a pass after the plan interval, or after twice the time that it took, whichever is longer;
sooner after a ring that changed the desired state. What a pass decides is `planning.fleet.decision`, and a decision is
in force once it is written (`decisions`); site plans follow at the next publication. A replica that begins to lead
continues from the last record, which also holds what was measured between sites: a scout is measured for an hour, the
map is learned every half hour, and the next record is at most ten minutes later, so none is lost with its leader. A
pass that fails changes nothing.

A pass plans no more than what changed asks for (`planning.fleet.scope`): everything after a change of the desired
state, after many changes, and every two minutes; what few sites touch, where only they changed; nothing, where nothing
that matters did.

A decision is also recorded where the guidance stays as it is, but what is planned changed (`planning.fleet.subject`),
or the last record is old: explanations rest on records.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter
from typing import Final

import msgspec

from nearcast import __version__
from nearcast.control.decisions import Decisions
from nearcast.control.plane import ControlPlane
from nearcast.control.recorder import PLAN
from nearcast.control.store import timestamp
from nearcast.control.watch import Watched, recalled, snapshot_of, watched
from nearcast.errors import IntegrityError, NotFound
from nearcast.planning.fleet.decision import MAX_REASONS, Decided, decide
from nearcast.planning.fleet.gather import Ruled, gather
from nearcast.planning.fleet.guidance import Guidance
from nearcast.planning.fleet.problem import FleetPlan, Floats, Problem
from nearcast.planning.fleet.record import Pace, PlanRecord, Record, Scope, Unwanted, carried, unpacked
from nearcast.planning.fleet.scope import DEFAULT, Basis, Tolerance, rests, told
from nearcast.planning.fleet.snapshot import SeenRelease, SeenWay, Snapshot
from nearcast.planning.fleet.subject import Subject, changes
from nearcast.planning.fleet.ways import estimated
from nearcast.resources.kinds import Location
from nearcast.resources.state import DesiredState

log = logging.getLogger(__name__)

AS_BEFORE: Final = "as before"
RECORD_EVERY_S: Final = 600.0
"""A record is made this often even where nothing changed, so that explanations rest on fresh observations."""


LEARN_EVERY_S: Final = 1800.0
LEARN_GROWTH: Final = 1.2


@dataclass(frozen=True, slots=True)
class _Last:
    """The pass before: its plan, what that rests on, the sites that it held, and when it was; what was recorded last,
    and when."""

    plan: PlanRecord | None = None
    basis: Basis | None = None
    unwanted: tuple[Unwanted, ...] = ()
    at_s: float = 0.0
    recorded: Subject | None = None
    recorded_s: float = float("-inf")


@dataclass(frozen=True, eq=False)
class _Known:
    """What the desired state and its releases say, in the forms that a pass needs; as long as they are the same."""

    state: DesiredState
    releases: tuple[SeenRelease, ...]
    ruled: Ruled
    subject: Subject


@dataclass(frozen=True, eq=False)
class _Learned:
    """The network map, and what it was learned from."""

    sites: tuple[tuple[str, Location | None], ...]
    ways: tuple[SeenWay, ...]
    estimate_s: Floats
    at_s: float


class Planner:
    """Plans for one fleet. One pass at a time; :meth:`snapshot` may be asked from any thread.

    Args:
        plane: the control plane.
        clock: seconds that never go back.
        tolerance: what is too little to plan for.
    """

    def __init__(
        self, plane: ControlPlane, clock: Callable[[], float] = time.monotonic, tolerance: Tolerance = DEFAULT
    ) -> None:
        self._plane = plane
        self._clock = clock
        self._guard = threading.Lock()
        self._watched: Watched | None = None
        self._last: _Last | None = None
        self._learned: _Learned | None = None
        self._known: _Known | None = None
        self._tolerance = tolerance
        self.took_s = 0.0

    @property
    def pause_s(self) -> float:
        """How long to wait after a pass."""
        return max(self._plane.settings.plan_interval_s, 2.0 * self.took_s)

    def step(self) -> bool:
        """One pass, of the leader. Returns: whether other guidance is in force now."""
        plane = self._plane
        if not plane.leader.leads:
            with self._guard:
                self._last = self._learned = None  # whoever leads meanwhile decides; we continue from the record
            return False
        began_s = perf_counter()
        last = self._resumed()
        state, snapshot, memory = self._taken()
        known = self._known_of(state, snapshot)
        if not known.subject.planned and plane.decisions.in_force.id == 0:
            return False  # nothing to plan, and nothing was
        now_s = self._clock()
        elapsed_s = max(0.0, now_s - last.at_s) if last.plan is not None else 0.0
        unwanted = tuple(Unwanted(item.deployment, item.site, item.for_s + elapsed_s) for item in last.unwanted)
        learned = self._learn(state, memory)
        snapshot = _with_map(snapshot, learned.ways, max(0.0, now_s - learned.at_s))
        gathered = gather(snapshot, learned.estimate_s, known.ruled)
        desired = tuple(changes(last.recorded, known.subject))
        scope = self._scope(gathered.problem, last, desired, now_s)
        pace = Pace(hold_s=plane.settings.placement_hold_s)
        before = plane.decisions.in_force.guidance
        decided = decide(snapshot, last.plan, before, unwanted, pace, scope=scope, gathered=gathered)
        plan = last.plan if scope.planned == "none" and last.plan is not None else decided.record
        recorded, recorded_s = last.recorded, last.recorded_s
        if (reason := (*desired, *decided.reason)) or now_s - recorded_s >= RECORD_EVERY_S:
            said = (*(reason or (AS_BEFORE,))[: MAX_REASONS - 1], *told(scope))
            self._record(_recorded(snapshot, last.plan, before, unwanted, pace, scope, decided, plan, said))
            recorded, recorded_s = known.subject, now_s
        basis = self._rests(gathered.problem, decided.plan, last, scope, now_s)
        with self._guard:
            self._last = _Last(plan, basis, decided.unwanted, now_s, recorded, recorded_s)
        self.took_s = perf_counter() - began_s
        plane.recorder.time(PLAN, self.took_s, (scope.planned,))
        if decided.reason:
            plane.bell.ring()
        return bool(decided.reason)

    def _scope(self, problem: Problem, last: _Last, desired: Sequence[str], now_s: float) -> Scope:
        """How much to plan anew."""
        if desired or last.basis is None or last.plan is None:
            return Scope(why="the desired state changed" if desired else "the first plan of this process")
        before = last.plan.sites, last.plan.models
        if before != (problem.sites, problem.models):
            return Scope(why="other sites or models")
        return last.basis.scope(problem, unpacked(last.plan), now_s, self._tolerance)

    def _rests(self, problem: Problem, plan: FleetPlan, last: _Last, scope: Scope, now_s: float) -> Basis:
        before = carried(last.plan, problem)
        held = (before, last.basis) if before is not None and last.basis is not None else None
        return rests(problem, plan, held, scope, now_s, self._tolerance)

    def snapshot(self) -> Snapshot:
        """The fleet now. The leader's memory of demand; of another replica, what nodes report, and the map of the
        last record."""
        held, (_, snapshot, _) = self._learned, self._taken()
        if held is not None:
            return _with_map(snapshot, held.ways, max(0.0, self._clock() - held.at_s))
        try:
            record = self._plane.decisions.record().snapshot
        except (NotFound, IntegrityError):
            return snapshot
        return _with_map(snapshot, record.learned, record.learned_age_s + self._passed_s(record))

    def _taken(self) -> tuple[DesiredState, Snapshot, Watched]:
        plane = self._plane
        state, nodes, now_s = plane.store.snapshot().state, plane.nodes.views(), self._clock()
        with self._guard:
            memory = watched(self._watched or Watched(now_s), nodes, state, now_s, plane.settings.demand_fall_s)
            self._watched = memory
        at = timestamp(plane.clock())
        return state, snapshot_of(plane.fleet, at, state, plane.index.entries(), nodes, memory), memory

    def _known_of(self, state: DesiredState, snapshot: Snapshot) -> _Known:
        held = self._known
        if held is None or held.state is not state or held.releases != snapshot.releases:
            held = _Known(state, snapshot.releases, Ruled.of(state, snapshot.releases), Subject.of(snapshot))
            self._known = held
        return held

    def _passed_s(self, snapshot: Snapshot) -> float:
        """How long ago, by the wall clock, ``snapshot`` was taken."""
        return max(0.0, (self._plane.clock() - datetime.fromisoformat(snapshot.at)).total_seconds())

    def _learn(self, state: DesiredState, memory: Watched) -> _Learned:
        """The network map: learned anew when sites or many measurements came, or after a while; it takes seconds."""
        sites = tuple((site.name, site.spec.location) for site in state.sites)
        held = self._learned
        if (
            held is None
            or held.sites != sites
            or memory.at_s - held.at_s >= LEARN_EVERY_S
            or len(memory.round_trips) > LEARN_GROWTH * len(held.ways)
        ):
            ways = memory.ways()
            held = _Learned(sites, ways, estimated(state.sites, ways), memory.at_s)
            self._learned = held
        return held

    def _record(self, record: Record) -> None:
        decisions: Decisions = self._plane.decisions
        found = decisions.add(record, self._plane.leader)
        if record.reason[0] != AS_BEFORE:
            log.info("decision %d: %s", found.id, "; ".join(record.reason[:3]))

    def _resumed(self) -> _Last:
        """The pass before: our own, or where another replica or process made it, the one of the last record."""
        with self._guard:
            if self._last is not None:
                return self._last
        now_s = self._clock()
        try:
            record = self._plane.decisions.record()
        except (NotFound, IntegrityError) as error:
            if isinstance(error, IntegrityError):  # of another release, or damaged: planned anew, from what is in force
                log.warning("the last decision cannot be continued: %s", error.message)
            return _Last(at_s=now_s)
        with self._guard:
            held = self._watched or Watched.of(record.snapshot, now_s)
            self._watched = recalled(held, record.snapshot, self._passed_s(record.snapshot), now_s)
        return _Last(record.plan, None, record.unwanted, now_s, Subject.of(record.snapshot), now_s)


def _recorded(
    snapshot: Snapshot,
    before: PlanRecord | None,
    guided: Guidance,
    unwanted: tuple[Unwanted, ...],
    pace: Pace,
    scope: Scope,
    decided: Decided,
    plan: PlanRecord,
    reason: tuple[str, ...],
) -> Record:
    return Record(
        id=0,
        at=snapshot.at,
        reason=reason,
        snapshot=snapshot,
        before=before,
        guided=guided,
        unwanted=unwanted,
        pace=pace,
        scope=scope,
        plan=plan,
        guidance=decided.guidance,
        software=__version__,
    )


def _with_map(snapshot: Snapshot, learned: tuple[SeenWay, ...], age_s: float) -> Snapshot:
    return msgspec.structs.replace(snapshot, learned=learned, learned_age_s=round(age_s, 1))
