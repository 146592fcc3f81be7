"""How busy one model is, and what it costs: plain numbers, written by its lane, read by load report and metrics.

Decides how figures are averaged, and what traffic teaches about a model's cost. Everything is written on the loop, so
nothing is locked. A batch adds to sums; what they mean is worked out once per second (:meth:`Gauges.sample`).

Rule of learning. The profile's curve says what ``n`` rows cost; traffic teaches by which factor real batches are slower
or faster than it (``slowness``), each batch against the curve's figure for its own size: so a row that runs alone in
idle hours is compared with a row alone, never with a row of a full batch. Batches that were full, or that began when
another one had just ended, teach with the full weight of the time that they took; others with a tenth of it, and where
runs are so short that waking up is a good part of them, not at all.
"""

import math
from bisect import bisect_left
from collections import deque
from typing import Final, NamedTuple

from nearcast.engine.profile import Profile

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
"""Share of the newest batch in the moving average of the service time."""
LEARN_S: Final = 2.0
"""Seconds of computing after which two thirds of what was believed of the cost are replaced."""
IDLE_WEIGHT: Final = 0.1
RISE_MAX: Final = 4.0
"""One sample teaches no more than this factor, and a second's worth: a machine that stood still is no slow model."""
REST_GAIN: Final = 0.3
"""Per second without a batch: how far the service time goes back to that of an idle engine."""
ROWS_S: Final = 60.0
"""Time constant of the mean number of rows per request."""


class Recent(NamedTuple):
    """Share of what the worker can do that was used (0 to 1), and requests answered and failed per second."""

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
        profile: what it costs, until traffic tells more.

    Attributes:
        busy_s: worker-seconds that it took.
        inline_s: those of them that stood in the loop.
        service_s: worker-seconds of the batch that a request is in, as it was lately.
        idle_s: worker-seconds of a request that finds the lane at rest.
        slowness: real batches over the curve.
        rows_per_request: as it was lately.
    """

    __slots__ = (
        "_alone", "_alone_s", "_asked", "_curve_s", "_expected_s", "_full_s", "_idle_weight", "_row_s", "_rows_asked",
        "_sampled", "_samples", "_taken_s", "answered", "batches", "busy_s", "cancelled", "compute", "failed", "idle_s",
        "inline_s", "queue", "refused", "rows", "rows_per_request", "service_s", "slowness",
    )  # fmt: skip

    def __init__(self, profile: Profile) -> None:
        self.service_s = self.idle_s = profile.service_s
        self.slowness = 1.0
        self.rows_per_request = 1.0
        self.busy_s = 0.0
        self.inline_s = 0.0
        self.answered = 0
        self.rows = 0
        self.batches = 0
        self.refused = 0
        self.cancelled = 0
        self.failed = 0
        self.queue = Histogram()
        self.compute = Histogram()
        self._curve_s = expected_s(profile)
        self._row_s = profile.item_s
        self._full_s = profile.item_s * profile.max_batch
        self._idle_weight = 1.0 if not profile.curve else 0.0 if profile.inline else IDLE_WEIGHT
        self._taken_s = self._expected_s = 0.0
        self._alone_s, self._alone = 0.0, 0
        self._asked = self._rows_asked = 1.0
        self._sampled = (0, 0, 0)
        self._samples: deque[tuple[float, float, int, int, int]] = deque(maxlen=WINDOW + 1)

    def ran(self, pieces: int, rows: int, seconds: float, charged_s: float, *, saturated: bool) -> None:
        """A batch of ``pieces`` pieces of work, ``rows`` rows together, was computed.

        Args:
            pieces, rows: in the batch.
            seconds: from its beginning to its end.
            charged_s: its part of the worker's time.
            saturated: whether it was full, or began when another had just ended.
        """
        self.busy_s += charged_s
        self.batches += 1
        self.rows += rows
        self.compute.add(seconds, pieces)
        self.service_s += WEIGHT * (charged_s - self.service_s)
        curve_s = self._curve_s
        expected = curve_s[rows] if rows < len(curve_s) else curve_s[-1] * rows / (len(curve_s) - 1)
        if saturated:
            self._taken_s += charged_s
            self._expected_s += expected
        else:
            self._alone_s += charged_s
            self._alone += 1
            weight = self._idle_weight
            if weight:
                self._taken_s += weight * charged_s
                self._expected_s += weight * expected

    @property
    def piece_s(self) -> float:
        """Worker-seconds per row in batches of the size that pays best, as real ones are."""
        return self.slowness * self._row_s

    @property
    def work_s(self) -> float:
        """Worker-seconds of one request when the engine is saturated, without the loop's."""
        return self.piece_s * self.rows_per_request

    @property
    def full_s(self) -> float:
        """Seconds of a batch of the size that pays best, as real ones are; at least what one request takes."""
        return max(self.slowness * self._full_s, self.idle_s)

    def sample(self, now_s: float) -> None:
        """Learn from the batches since the last call, and remember the totals; call once per second."""
        rows, answered, batches = self._sampled
        self._sampled = (self.rows, self.answered, self.batches)
        if self._expected_s > 0.0:
            gain = -math.expm1(-min(self._taken_s, 1.0) / LEARN_S)
            seen = min(self._taken_s / self._expected_s, RISE_MAX * self.slowness)
            self.slowness += gain * (seen - self.slowness)
            self._taken_s = self._expected_s = 0.0
        if self._alone:
            self.idle_s += (1.0 - (1.0 - WEIGHT) ** self._alone) * (self._alone_s / self._alone - self.idle_s)
            self._alone_s, self._alone = 0.0, 0
        if self.batches == batches:
            self.service_s += REST_GAIN * (self.idle_s - self.service_s)
        if self.answered > answered:
            keep = math.exp(-1.0 / ROWS_S)
            self._asked = keep * self._asked + self.answered - answered
            self._rows_asked = keep * self._rows_asked + self.rows - rows
            self.rows_per_request = max(1.0, self._rows_asked / self._asked)
        self._samples.append((now_s, self.busy_s, self.answered, self.failed, self.rows))

    def recent(self, now_s: float, running_s: float = 0.0) -> Recent:
        """The figures of the last :data:`WINDOW` seconds.

        A batch that is half empty has taken the worker, and has used half of what the worker can do: what counts is the
        work done, at the cost that it has in full batches. So a model that batches well is far from saturated while
        the worker never rests, and close to it when batches are full.

        Args:
            now_s: the clock of :meth:`sample`.
            running_s: worker-seconds that the batch that runs now has taken.
        """
        if not self._samples:
            return Recent(0.0, 0.0, 0.0)
        then_s, busy_s, answered, failed, rows = self._samples[0]
        elapsed_s = max(now_s - then_s, 1e-6)
        taken_s = self.busy_s - busy_s
        used = min(1.0, (self.rows - rows) * self.piece_s / taken_s) if taken_s > 0.0 else 1.0
        utilization = min(max((taken_s + running_s) * used / elapsed_s, 0.0), 1.0)
        return Recent(utilization, (self.answered - answered) / elapsed_s, (self.failed - failed) / elapsed_s)


def expected_s(profile: Profile) -> list[float]:
    """Seconds of a batch by its rows, from 0 to the largest that was measured or pays: lines between the points."""
    points = [(point.batch, point.seconds) for point in profile.curve] or [(1, profile.service_s)]
    rows, seconds = points[0]
    found = [seconds] * (rows + 1)
    for batch, point_s in points[1:]:
        step_s = (point_s - seconds) / (batch - rows)
        found += [seconds + step_s * (n - rows) for n in range(rows + 1, batch + 1)]
        rows, seconds = batch, point_s
    return found
