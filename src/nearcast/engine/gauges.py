"""How busy one model is: plain numbers, written by its lane, read by the load report and the metrics.

Decides how figures are averaged. Everything is written on the loop, so nothing is locked.
"""

from bisect import bisect_left
from collections import deque
from typing import Final, NamedTuple

BUCKETS_S: Final = (
    0.00005,
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    10.0,
)
WINDOW: Final = 5
"""Samples (one per second) over which rates and utilisation are taken."""
WEIGHT: Final = 0.1
"""Share of the newest batch in the moving averages."""


class Recent(NamedTuple):
    """Share of the time that was spent computing (0 to 1), and requests answered and failed per second."""

    utilization: float
    answered_per_s: float
    failed_per_s: float


class Histogram:
    """Counts by duration; ``counts[i]`` belongs to ``BUCKETS_S[i]``, the last one to everything longer."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """Count ``times`` events that took ``seconds``."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += times
        self.total_s += seconds * times


class Gauges:
    """The figures of one model.

    Args:
        service_s: seconds of one request in the model, until traffic tells more.
        item_s: seconds per piece of work in a full batch, until traffic tells more.
    """

    __slots__ = (
        "_samples", "answered", "batches", "busy_s", "cancelled", "compute", "failed", "item_s", "queue", "refused",
        "rows", "service_s",
    )  # fmt: skip

    def __init__(self, service_s: float, item_s: float) -> None:
        self.service_s = service_s
        self.item_s = item_s
        self.busy_s = 0.0
        self.answered = 0
        self.rows = 0
        self.batches = 0
        self.refused = 0
        self.cancelled = 0
        self.failed = 0
        self.queue = Histogram()
        self.compute = Histogram()
        self._samples: deque[tuple[float, float, int, int]] = deque(maxlen=WINDOW + 1)

    def ran(self, pieces: int, rows: int, seconds: float) -> None:
        """A batch of ``pieces`` pieces of work, ``rows`` rows together, was computed in ``seconds``."""
        self.busy_s += seconds
        self.batches += 1
        self.rows += rows
        self.compute.add(seconds, pieces)
        self.service_s += WEIGHT * (seconds - self.service_s)
        self.item_s += WEIGHT * (seconds / pieces - self.item_s)

    def sample(self, now_s: float) -> None:
        """Remember the totals; call once per second."""
        self._samples.append((now_s, self.busy_s, self.answered, self.failed))

    def recent(self, now_s: float, running_s: float = 0.0) -> Recent:
        """The figures of the last :data:`WINDOW` seconds.

        Args:
            now_s: the clock of :meth:`sample`.
            running_s: seconds for which the batch that runs now has been running.
        """
        if not self._samples:
            return Recent(0.0, 0.0, 0.0)
        then_s, busy_s, answered, failed = self._samples[0]
        elapsed_s = max(now_s - then_s, 1e-6)
        utilization = min(max((self.busy_s + running_s - busy_s) / elapsed_s, 0.0), 1.0)
        return Recent(utilization, (self.answered - answered) / elapsed_s, (self.failed - failed) / elapsed_s)
