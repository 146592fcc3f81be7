"""The event loop of the twin: requests enter, are routed, travel, wait, are computed, refused, lost or answered.

Decides what happens to each request under the routes that a policy sets (`policies`), by the rules of the gateway: the
first place of an order, then the next one where a place is full or dead, before the first byte. Does
not decide routes. Pure: the clock is the run's own, and all dice were thrown before (`workload`).

What it does not model is listed in docs/explanation/digital-twin.md.
"""

from array import array
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

import numpy as np

from nearcast.twin.churn import Churn
from nearcast.twin.moment import TICK_S, Policy, Report
from nearcast.twin.outages import Outages
from nearcast.twin.outcome import CLOSED, LOST, REFUSED, Outcome
from nearcast.twin.place import NOWHERE, Batch, Order, Place, Routes
from nearcast.twin.scenario import ScenarioSpec
from nearcast.twin.telemetry import Telemetry
from nearcast.twin.workload import Workload
from nearcast.twin.world import Floats, Truths, World

CONNECT_S: Final = 1.0
"""Until a gateway gives up a place that does not answer at all (its `connect_timeout`)."""
MISSED_S: Final = 4.5
"""Until a gateway misses an answer that a lost site owes: its keepalive of 3 s, and half of it on the mean."""
EJECT_AFTER: Final = 5
EJECTED_S: Final = 2.0
"""A gateway that met so many failures in a row leaves the place out for so long (its outlier detection)."""
REENTER_S: Final = 3.0
"""Until clients of a site that is lost enter at the nearest other one."""

_ARRIVE, _FULL, _DEAD, _ENTER = range(4)
Event = tuple[float, int, int, int, Order]


class Run:
    """One policy over one workload. Made once, run once.

    Args:
        world, workload, outages: the same for all policies.
        spec: for telemetry.
        policy: decides the routes.
        progress: called with the part that is done, now and then.
    """

    def __init__(
        self,
        world: World,
        workload: Workload,
        outages: Outages,
        spec: ScenarioSpec,
        policy: Policy,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        count, models, requests = len(world.sites), len(world.models), len(workload)
        self.world, self.workload, self.policy = world, workload, policy
        self._outages, self._spec, self._progress = outages, spec, progress
        self._duration_s = spec.duration_s
        workers = [int(number) for number in world.problem.workers]
        rooms = [[model.room * number for model in world.models] for number in workers]
        self.places = [Place(number, world.curves[i], rooms[i]) for i, number in enumerate(workers)]
        self.work = workload.work.tolist()
        self.work_s = [[float(x) if np.isfinite(x) else 0.0 for x in row] for row in world.problem.work_s]
        self.round_trip_s: list[list[float]] = world.round_trip_s.tolist()
        rate = world.problem.bytes_per_s
        self.byte_s: list[list[float]] = (1.0 / np.minimum(rate[:, None], rate[None, :])).tolist()
        self._at: list[float] = workload.at_s.tolist()
        self.jitter: list[float] = workload.jitter.tolist()
        self.request_bytes: list[float] = workload.request_bytes.tolist()
        self.answer_bytes: list[float] = workload.answer_bytes.tolist()
        self._forward: list[float] = workload.forward_bytes.tolist()
        self._model: list[int] = workload.model.tolist()
        self._entered: list[int] = workload.origin.tolist()
        self._in_cloud = [site.facts.tier == "cloud" for site in world.sites]
        self._place = array("i", [REFUSED]) * requests
        self._attempts = array("i", [0]) * requests
        self._time, self._wait, self._service, self._wan = (array("d", [0.0]) * requests for _ in range(4))
        self._events: list[Event] = []
        self._up = [True] * count
        self._reach: list[list[bool]] = outages.reach(0.0, count).tolist()
        self._enter: list[int] = list(range(count))
        self._ejected: dict[tuple[int, int], float] = {}
        self._failures: dict[tuple[int, int], int] = {}
        self._turns = [[0] * models for _ in range(count)]
        self._known = Telemetry(spec.telemetry, outages, world.problem.demand_per_s)
        self._next = 0
        self.now_s, self.tick = 0.0, 0
        self.routes: Routes = [[None] * models for _ in range(count)]
        self._churn = Churn()

    # --- what policies see -------------------------------------------------------------------------------------------

    def seen(self, observer: int, place: int) -> Report | None:
        """See :class:`Moment`."""
        return self._known.seen(observer, place, self.now_s)

    def believed(self) -> Truths:
        """See :class:`Moment`."""
        return self._known.believed(self.now_s)

    def demand(self) -> Floats:
        """See :class:`Moment`."""
        return self._known.demand(self.now_s)

    # --- the run -----------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """All requests, to the last answer."""
        self.policy.begin(self)
        ticks = int(np.ceil(self._duration_s / TICK_S))
        breaks = deque(self._outages.moments_s())
        for index in range(len(self.places)):
            self._note_next_failure(index)
        for tick in range(ticks):
            self.tick, self.now_s = tick, tick * TICK_S
            while breaks and breaks[0] <= self.now_s:
                breaks.popleft()
                self._break()
            self._tell()
            self.policy.step(self)
            if tick % 4 == 0:
                self._churn.look(self.routes, self._known.rate_per_s)
            self._until(min(self._duration_s, self.now_s + TICK_S))
            if self._progress is not None and tick % 8 == 0:
                self._progress(tick / ticks)
        self._drain(breaks)
        return self._outcome()

    def _drain(self, breaks: deque[float]) -> None:
        """What is on its way after the last arrival; failures go on happening."""
        while breaks:
            self.now_s = max(self.now_s, breaks.popleft())
            self._until(self.now_s)
            self._break()
        while True:
            self._until(float("inf"))
            for index, place in enumerate(self.places):
                self._settle(index, place.until(float("inf"), self.work))
            if not self._events:
                return

    def _until(self, end_s: float) -> None:
        """Process everything before ``end_s``: arrivals of requests and events, in the order of time."""
        at, events, entered, enter, picks = self._at, self._events, self._entered, self._enter, self.workload.pick
        event, order_of, leave, request = self._event, self._order, self._leave, self._next
        stop = len(at) if end_s == float("inf") else int(np.searchsorted(self.workload.at_s, end_s))
        drawn: list[float] = picks[request:stop].tolist()
        for first, pick in enumerate(drawn, request):
            now_s = at[first]
            while events and events[0][0] <= now_s:
                event(heappop(events))
            origin = entered[first]
            if enter[origin] != origin:
                self._reenter(first, origin, now_s)
            else:
                order = order_of(first, pick, now_s)
                if order.places:
                    leave(first, 0, order, now_s)
        self._next = max(request, stop)
        while events and events[0][0] <= end_s:
            event(heappop(events))

    def _order(self, request: int, pick: float, now_s: float) -> Order:
        """The order of places for ``request``; empty, and written down, where it has none."""
        origin, model = self._entered[request], self._model[request]
        route = self.routes[origin][model]
        if route is None:
            order = NOWHERE
        elif len(route[1]) == 1:
            order = route[1][0]
        elif self.policy.cyclic:
            turn = self._turns[origin][model]
            self._turns[origin][model] = turn + 1
            order = route[1][turn % len(route[1])]
        else:
            spot = 0
            while route[0][spot] <= pick:
                spot += 1
            order = route[1][spot]
        if not order.places:
            self._place[request] = CLOSED
        return order

    def _reenter(self, request: int, origin: int, now_s: float) -> None:
        """The client of a lost site goes to another one, once that is known; before, it finds no door."""
        other = self._enter[origin]
        if other < 0:
            self._place[request] = LOST
            return
        self._entered[request] = other
        heappush(self._events, (now_s + self.round_trip_s[origin][other], request, _ENTER, 0, NOWHERE))

    def _leave(self, request: int, spot: int, order: Order, now_s: float) -> None:
        """``request`` leaves its origin for the place at ``spot`` of its order."""
        origin, place = self._entered[request], order.places[spot]
        self._attempts[request] += 1
        if place == origin:
            self._arrive(request, spot, order, now_s, 0.0)
            return
        if self._ejected and self._ejected.get((origin, place), 0.0) > now_s:
            self._again(request, spot + 1, order, now_s, LOST)
            return
        self._wan[request] += self.request_bytes[request]
        if not self._reach[origin][place]:
            self._note_failure(origin, place, now_s)
            heappush(self._events, (now_s + CONNECT_S, request, _DEAD, spot + 1, order))
            return
        half_s = 0.5 * self.round_trip_s[origin][place] * self.jitter[request]
        way_s = half_s + self.request_bytes[request] * self.byte_s[origin][place]
        heappush(self._events, (now_s + way_s, request, _ARRIVE, spot, order))

    def _event(self, event: Event) -> None:
        now_s, request, kind, spot, order = event
        if kind == _ENTER:
            order = self._order(request, float(self.workload.pick[request]), now_s)
            if order.places:
                self._leave(request, 0, order, now_s)
            return
        if kind == _ARRIVE:
            origin, place = self._entered[request], order.places[spot]
            if not self._reach[origin][place]:  # it broke while the request was on its way
                heappush(self._events, (now_s + CONNECT_S, request, _DEAD, spot + 1, order))
                return
            half_s = 0.5 * self.round_trip_s[origin][place] * self.jitter[request]
            self._arrive(request, spot, order, now_s, half_s)
            return
        self._again(request, spot, order, now_s, REFUSED if kind == _FULL else LOST)

    def _again(self, request: int, spot: int, order: Order, now_s: float, why: int) -> None:
        """The next place of the order, or the end of the request."""
        if not self._up[self._entered[request]]:
            why, spot = LOST, len(order.places)
        if spot >= len(order.places):
            self._place[request] = why
            self._time[request] = now_s - self._at[request]
            return
        self._leave(request, spot, order, now_s)

    def _arrive(self, request: int, spot: int, order: Order, now_s: float, back_s: float) -> None:
        index = order.places[spot]
        place = self.places[index]
        if not self._up[index]:
            self._again(request, spot + 1, order, now_s, LOST)
            return
        if place.queued:
            self._settle(index, place.until(now_s, self.work))
        longest_s = order.longest_s[spot] if spot < len(order.longest_s) else float("inf")
        waiting = (now_s, request, spot, order, back_s)
        found = place.take(self._model[request], waiting, self.work, self.work_s[index], longest_s)
        if found is False:
            if back_s:
                heappush(self._events, (now_s + back_s, request, _FULL, spot + 1, order))
            else:
                self._again(request, spot + 1, order, now_s, REFUSED)
        elif found is not True:
            self._settle(index, [found])

    def _settle(self, index: int, batches: list[Batch]) -> None:
        """Write down the answers of batches that began at place ``index``."""
        down_at_s, cuts, in_cloud = self.places[index].down_at_s, self._outages.cuts, self._in_cloud[index]
        for begin_s, end_s, members in batches:
            for arrived_s, request, spot, order, back_s in members:
                if end_s > down_at_s:
                    heappush(self._events, (down_at_s + MISSED_S, request, _DEAD, spot + 1, order))
                    continue
                origin = self._entered[request]
                wan = 0.0 if in_cloud else self._forward[request]
                if origin != index:
                    back_s += self.answer_bytes[request] * self.byte_s[origin][index]  # noqa: PLW2901
                    wan += self.answer_bytes[request]
                    if end_s + back_s > self.places[origin].down_at_s:
                        self._place[request] = LOST
                        self._time[request] = self.places[origin].down_at_s - self._at[request]
                        continue
                    if (
                        cuts
                        and (broken_s := self._outages.broken_s(origin, index, arrived_s, end_s + back_s)) is not None
                    ):
                        heappush(self._events, (broken_s + MISSED_S, request, _DEAD, spot + 1, order))
                        continue
                self._place[request] = index
                self._time[request] = end_s + back_s - self._at[request]
                self._wait[request] = begin_s - arrived_s
                self._service[request] = end_s - begin_s
                self._wan[request] += wan

    # --- failures ----------------------------------------------------------------------------------------------------

    def _break(self) -> None:
        """Bring the state of sites and ways up to now."""
        count, now_s = len(self.places), self.now_s
        up = self._outages.up(now_s, count)
        for index, place in enumerate(self.places):
            if self._up[index] and not up[index]:
                self._settle(index, place.until(now_s, self.work))
                for _, request, spot, order, _ in place.fail():
                    heappush(self._events, (now_s + MISSED_S, request, _DEAD, spot + 1, order))
            elif up[index] and not self._up[index]:
                place.recover(now_s)
            self._up[index] = bool(up[index])
            self._note_next_failure(index)
        self._reach = self._outages.reach(now_s, count).tolist()

    def _note_next_failure(self, index: int) -> None:
        starts = [outage.from_s for outage in self._outages.outages if outage.sites[index]]
        # A moment that has passed counts while the site is still down: nothing is answered from there.
        self.places[index].down_at_s = min((s for s in starts if s > self.now_s or not self._up[index]), default=np.inf)

    def _note_failure(self, origin: int, place: int, now_s: float) -> None:
        pair = (origin, place)
        self._failures[pair] = self._failures.get(pair, 0) + 1
        if self._failures[pair] >= EJECT_AFTER:
            self._failures[pair] = 0
            self._ejected[pair] = now_s + EJECTED_S

    def _entrances(self) -> None:
        """Where clients of each site enter: there, or where they go once its loss is known."""
        count = len(self.places)
        long_lost = ~self._outages.up(max(0.0, self.now_s - REENTER_S), count)
        problem = self.world.problem
        for index in range(count):
            if self._up[index]:
                self._enter[index] = index
            elif not long_lost[index]:
                self._enter[index] = -1
            else:
                alike = problem.site_class == problem.site_class[index]
                open_to = [other for other in np.flatnonzero(alike) if self._up[other]]
                self._enter[index] = int(min(open_to, key=lambda o: self.round_trip_s[index][o])) if open_to else -1

    # --- telemetry ---------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Reports whose turn it is, and the demand of the last tick."""
        if self._outages.outages:
            self._entrances()
        for index, place in enumerate(self.places):
            if self._known.is_due(self.tick, index) and self._up[index] and place.workers:
                if place.queued:
                    self._settle(index, place.until(self.now_s, self.work))
                self._known.report(index, place, self.now_s, self.work_s[index])
        if self.tick % 4 == 0 and self.tick:
            first = int(np.searchsorted(self.workload.at_s, self.now_s - 1.0))
            entered = np.array(self._entered[first : self._next], dtype=np.int64)
            self._known.count(entered, self.workload.model[first : self._next], self.now_s)

    def _outcome(self) -> Outcome:
        time, wait, service = np.array(self._time), np.array(self._wait), np.array(self._service)
        return Outcome(
            policy=self.policy.name,
            place=np.array(self._place, dtype=np.int32),
            time_s=time,
            network_s=np.maximum(0.0, time - wait - service),
            wait_s=wait,
            service_s=service,
            wan_bytes=np.array(self._wan),
            attempts=np.array(self._attempts, dtype=np.int32),
            entered=np.array(self._entered, dtype=np.int32),
            busy_s=np.array([place.busy_s for place in self.places]),
            moved_per_s=np.array(self._churn.moved),
            undone_per_s=self._churn.undone(),
        )
