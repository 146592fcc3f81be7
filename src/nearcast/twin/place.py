"""One simulated place: workers, and a first-in-first-out lane of bounded room for each model, served in batches.

Decides when which requests are computed together: a worker that is free takes the lane whose first request has waited
longest, and as many of it as a batch may hold; the largest of them sets the time of the batch. A request that finds a
free worker is computed at once, alone. Decides what is told of service times, too. There are no events: a place is
brought up to a moment whenever somebody looks at it, which is exact, since nothing else can happen to it in between.
"""

from collections import deque
from collections.abc import Sequence
from heapq import heapreplace
from typing import Final, NamedTuple


class Order(NamedTuple):
    """Places that a request tries, first to last, and how long it would wait at each before it asks the next one.

    ``longest_s`` may be shorter than ``places``: the others take whatever their lanes have room for.
    """

    places: tuple[int, ...]
    longest_s: tuple[float, ...] = ()


NOWHERE: Final = Order(())
Route = tuple[tuple[float, ...], tuple[Order, ...]]
"""Rising sums of shares that end with 1, and the order of each."""
Routes = list[list[Route | None]]
"""[origin][model]."""
Waiting = tuple[float, int, int, Order, float]
"""Arrival here, request, its spot in its order, the order, and the way back in seconds."""
Batch = tuple[float, float, list[Waiting]]
"""Begin, end, and who is in it."""


WEIGHT: Final = 0.1
"""Of the newest batch in the average of an engine's service time, and by which part of the way it goes back to that of
an idle engine in a second without a batch; as `engine.gauges` has them."""
REST_GAIN: Final = 0.3


class Place:
    """A place with state. Times must not go back from call to call.

    Args:
        workers: batches at a time; 0 for a place that computes nothing.
        curves: of each model, seconds of a batch of 1, 2, ...
        room: of each model, how many may wait.
    """

    __slots__ = ("_batches", "busy_s", "curves", "down_at_s", "free", "lanes", "queued", "room", "service_s", "workers")

    def __init__(self, workers: int, curves: Sequence[tuple[float, ...]], room: Sequence[int]) -> None:
        self.workers = workers
        self.curves = tuple(curves)
        self.room = tuple(room)
        self.free = [0.0] * workers
        """A heap: when each worker is free."""
        self.lanes: tuple[deque[Waiting], ...] = tuple(deque() for _ in curves)
        self.queued = 0
        self.busy_s = 0.0
        self.down_at_s = float("inf")
        self.service_s = [curve[0] if curve else 0.0 for curve in curves]
        """Of each model, seconds of the batch that a request is in, as it was lately: what a load report tells."""
        self._batches: list[tuple[float, int, float]] = []
        """End, model and seconds of the batches that nothing was learned of yet."""

    def take(
        self,
        model: int,
        waiting: Waiting,
        work: Sequence[float],
        work_s: Sequence[float] = (),
        longest_s: float = float("inf"),
    ) -> Batch | bool:
        """A request arrives; `until` must have been called for this moment.

        Args:
            work_s, longest_s: it is refused where it would wait longer, by `wait_s`; needed only where it is bounded.

        Returns:
            Its batch where it is computed at once, True where it waits, False where the lane is full, or the wait is
            too long.
        """
        at_s = waiting[0]
        free = self.free
        if not free:
            return False
        if not self.queued and free[0] <= at_s:
            taken_s = self.curves[model][0] * work[waiting[1]]
            heapreplace(free, at_s + taken_s)
            self.busy_s += taken_s
            self._batches.append((at_s + taken_s, model, taken_s))
            return (at_s, at_s + taken_s, [waiting])
        lane = self.lanes[model]
        if len(lane) >= self.room[model] or (longest_s != float("inf") and self.wait_s(at_s, work_s) > longest_s):
            return False
        lane.append(waiting)
        self.queued += 1
        return True

    def until(self, at_s: float, work: Sequence[float]) -> list[Batch]:
        """The batches that began up to ``at_s``, in order."""
        begun: list[Batch] = []
        free = self.free
        while self.queued and free[0] <= at_s:
            begin_s = free[0]
            model = min((lane[0][0], index) for index, lane in enumerate(self.lanes) if lane)[1]
            lane, curve = self.lanes[model], self.curves[model]
            size = min(len(lane), len(curve))
            members = [lane.popleft() for _ in range(size)]
            self.queued -= size
            most = work[members[0][1]] if size == 1 else max(work[member[1]] for member in members)
            taken_s = curve[size - 1] * most
            heapreplace(free, begin_s + taken_s)
            self.busy_s += taken_s
            self._batches.append((begin_s + taken_s, model, taken_s))
            begun.append((begin_s, begin_s + taken_s, members))
        return begun

    def fail(self) -> list[Waiting]:
        """Everything that waits here, which nobody will compute; `until` must have been called for this moment."""
        left = [waiting for lane in self.lanes for waiting in lane]
        for lane in self.lanes:
            lane.clear()
        self.queued = 0
        return left

    def recover(self, at_s: float) -> None:
        """All workers are free from ``at_s`` on, and nothing is remembered."""
        self.free = [at_s] * self.workers
        self.service_s = [curve[0] if curve else 0.0 for curve in self.curves]
        self._batches = []

    def wait_s(self, at_s: float, work_s: Sequence[float]) -> float:
        """How long a request that arrives now would wait: the work ahead of it over the workers.

        Args:
            at_s: now.
            work_s: of each model, worker-seconds of one request when the place is busy.
        """
        if self.free[0] <= at_s and not self.queued:
            return 0.0
        ahead_s = sum(len(lane) * work_s[model] for model, lane in enumerate(self.lanes) if lane)
        return max(0.0, self.free[0] - at_s) + ahead_s / self.workers

    def learn(self, at_s: float, elapsed_s: float) -> None:
        """Bring :attr:`service_s` up to ``at_s``, ``elapsed_s`` after the last time: as an engine averages its batches,
        and forgets them where there are none."""
        idle = set(range(len(self.curves)))
        going_on = []
        for batch in self._batches:
            end_s, model, taken_s = batch
            if end_s > at_s:
                going_on.append(batch)
                continue
            self.service_s[model] += WEIGHT * (taken_s - self.service_s[model])
            idle.discard(model)
        self._batches = going_on
        for model in idle:
            if curve := self.curves[model]:
                rest = 1.0 - (1.0 - REST_GAIN) ** elapsed_s
                self.service_s[model] += rest * (curve[0] - self.service_s[model])

    def busy(self, at_s: float) -> int:
        """Workers that compute."""
        return sum(free_s > at_s for free_s in self.free)
