"""The planner: every few seconds the leader plans on what nodes report, and brings into force what matters.

Decides when: a pass follows a pass after the plan interval, or after twice the time that it took, whichever is longer;
sooner after a ring that changed the desired state. What a pass decides is `planning.fleet.decision`, and a decision is
in force once it is written (`decisions`); site plans follow at the next publication. A replica that begins to lead
continues from the last record, which also holds what was measured between sites: a scout is measured for an hour, the
map is learned every half hour, and the next record is at most ten minutes later, so none is lost with its leader. A
pass that fails changes nothing.

A decision is also recorded where the guidance stays as it is, but what is planned changed (`planning.fleet.subject`),
or the last record is old: explanations rest on records.
"""

import logging
import threading
import time
from collections.abc import Callable
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
from nearcast.planning.fleet.problem import Floats
from nearcast.planning.fleet.record import Pace, PlanRecord, Record, Unwanted
from nearcast.planning.fleet.snapshot import SeenWay, Snapshot
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
    """The pass before: its plan, the sites that it held, and when it was; what was recorded last, and when."""

    plan: PlanRecord | None = None
    unwanted: tuple[Unwanted, ...] = ()
    at_s: float = 0.0
    recorded: Subject | None = None
    recorded_s: float = float("-inf")


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
    """

    def __init__(self, plane: ControlPlane, clock: Callable[[], float] = time.monotonic) -> None:
        self._plane = plane
        self._clock = clock
        self._guard = threading.Lock()
        self._watched: Watched | None = None
        self._last: _Last | None = None
        self._learned: _Learned | None = None
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
        subject = Subject.of(snapshot)
        if not subject.planned and plane.decisions.in_force.id == 0:
            return False  # nothing to plan, and nothing was
        now_s = self._clock()
        before = plane.decisions.in_force.guidance
        pace = Pace(hold_s=plane.settings.placement_hold_s)
        elapsed_s = max(0.0, now_s - last.at_s) if last.plan is not None else 0.0
        unwanted = tuple(Unwanted(item.deployment, item.site, item.for_s + elapsed_s) for item in last.unwanted)
        learned = self._learn(state, memory)
        snapshot = _with_map(snapshot, learned.ways, max(0.0, now_s - learned.at_s))
        decided = decide(snapshot, last.plan, before, unwanted, pace, estimate_s=learned.estimate_s)
        changed = bool(decided.reason)
        reason = (*changes(last.recorded, subject), *decided.reason)[:MAX_REASONS]
        recorded, recorded_s = last.recorded, last.recorded_s
        if reason or now_s - recorded_s >= RECORD_EVERY_S:
            self._record(snapshot, last.plan, unwanted, pace, decided, reason or (AS_BEFORE,))
            recorded, recorded_s = subject, now_s
        with self._guard:
            self._last = _Last(decided.record, decided.unwanted, now_s, recorded, recorded_s)
        self.took_s = perf_counter() - began_s
        plane.recorder.time(PLAN, self.took_s)
        if changed:
            plane.bell.ring()
        return changed

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

    def _record(
        self,
        snapshot: Snapshot,
        before: PlanRecord | None,
        unwanted: tuple[Unwanted, ...],
        pace: Pace,
        decided: Decided,
        reason: tuple[str, ...],
    ) -> None:
        decisions: Decisions = self._plane.decisions
        record = Record(
            id=0,
            at=snapshot.at,
            reason=reason,
            snapshot=snapshot,
            before=before,
            guided=decisions.in_force.guidance,
            unwanted=unwanted,
            pace=pace,
            plan=decided.record,
            guidance=decided.guidance,
            software=__version__,
        )
        found = decisions.add(record, self._plane.leader)
        if reason != (AS_BEFORE,):
            log.info("decision %d: %s", found.id, "; ".join(reason[:3]))

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
        return _Last(record.plan, record.unwanted, now_s, Subject.of(record.snapshot), now_s)


def _with_map(snapshot: Snapshot, learned: tuple[SeenWay, ...], age_s: float) -> Snapshot:
    return msgspec.structs.replace(snapshot, learned=learned, learned_age_s=round(age_s, 1))
