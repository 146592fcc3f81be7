"""What the simulated fleet tells of itself, and how late that is known: reports of places, demand, who is within reach.

Decides whose turn it is to report, and which report, rate and failure are known at a moment. Does not decide what comes
of it (`policies`, `ours`). Failures are learned by probing, not by reports: they have an age of their own.
"""

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.twin.moment import TICK_S, Report
from nearcast.twin.outages import Outages
from nearcast.twin.place import Place
from nearcast.twin.scenario import Telemetry as Pace
from nearcast.twin.world import Floats, Truths

DEMAND_MEMORY_S: Final = 10.0


class Telemetry:
    """What was told.

    Args:
        pace: how often places report, and how old that is at others.
        outages: what happens; known after a while.
        demand_per_s: float64[S, M]: what is expected before anything was counted.

    Attributes:
        rate_per_s: float64[S, M]: the moving average of what entered, up to the last count.
    """

    def __init__(self, pace: Pace, outages: Outages, demand_per_s: Floats) -> None:
        self._pace, self._outages = pace, outages
        self._expected = demand_per_s
        self.rate_per_s = demand_per_s.copy()
        count = len(demand_per_s)
        # So many that one of telemetry's age is among them; the demand's come every second.
        history = int(pace.age_s / min(1.0, pace.every_s)) + 4
        self._reports: list[deque[Report]] = [deque(maxlen=history) for _ in range(count)]
        self._rates: deque[tuple[float, Floats]] = deque(maxlen=history)
        self._believed: tuple[float, Truths] = (-1.0, outages.reach(0.0, count))

    def seen(self, observer: int, place: int, now_s: float) -> Report | None:
        """See :class:`~nearcast.twin.moment.Moment`."""
        reports = self._reports[place]
        if observer == place:
            return reports[-1] if reports else None
        before_s = now_s - self._pace.age_s
        return next((report for report in reversed(reports) if report.made_at_s <= before_s), None)

    def believed(self, now_s: float) -> Truths:
        """See :class:`~nearcast.twin.moment.Moment`."""
        at_s = max(0.0, now_s - self._pace.detect_s)
        if self._believed[0] != at_s:
            self._believed = (at_s, self._outages.reach(at_s, len(self._reports)))
        return self._believed[1]

    def demand(self, now_s: float) -> Floats:
        """See :class:`~nearcast.twin.moment.Moment`."""
        before_s = now_s - self._pace.age_s
        found = next((rate for at_s, rate in reversed(self._rates) if at_s <= before_s), None)
        return self._expected if found is None else found

    def is_due(self, tick: int, place: int) -> bool:
        """Whether ``place`` reports at ``tick``: not all do at once."""
        return (tick + place) % max(1, round(self._pace.every_s / TICK_S)) == 0

    def report(self, index: int, place: Place, now_s: float, work_s: list[float]) -> None:
        """``place`` tells how it is; it has been brought up to ``now_s``."""
        told = self._reports[index]
        place.learn(now_s, now_s - told[-1].made_at_s if told else 0.0)
        busy = place.busy(now_s)
        waiting = tuple(len(lane) for lane in place.lanes)
        service_s = tuple(place.service_s)
        told.append(Report(now_s, waiting, place.wait_s(now_s, work_s), service_s, busy, busy / place.workers))

    def count(self, entered: NDArray[np.int64], model: NDArray[np.int32], now_s: float) -> None:
        """What entered in the last second: origins and models of requests."""
        count, models = self.rate_per_s.shape
        fresh = np.bincount(entered * models + model, minlength=count * models).reshape(count, models)
        gain = 1.0 - np.exp(-1.0 / DEMAND_MEMORY_S)
        self.rate_per_s = self.rate_per_s + gain * (fresh - self.rate_per_s)
        self._rates.append((now_s, self.rate_per_s))
