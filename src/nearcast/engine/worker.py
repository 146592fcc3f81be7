"""The engine's one worker, and how models share it: whose time it is, and how long each waits for the others.

A **worker** is everything that this engine computes with: all threads of ONNX Runtime on the processor, or its device.
One batch at a time has all of it. Batches of several models that run at the same moment divide it, so each is charged
its part of that moment (:class:`SharedTime`); a batch that runs alone is charged as long as it takes. So the charges of
all models add up to the time in which anything was computed, whatever ran beside what, and the cost of a model does not
seem to rise because another one is busy. The loop's own time per request (reading, writing) is charged, too
(:class:`LoopTime`): for the smallest models it is the larger part.

Decides what is charged and expected. Counts nothing by itself: :mod:`~nearcast.engine.gauges` does. One part of a batch
that runs on one core only is charged as if it held them all: what two such models could do beside each other is more
than is told here, never less.
Source of the waits: egalitarian processor sharing, Kleinrock, "Time-shared Systems" (1967).
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from time import perf_counter, thread_time
from typing import Final, NamedTuple

WORKERS: Final = 1.0
"""Of one engine: see above."""
LOOP_S: Final = 20e-6
"""Time of the loop per request until traffic tells: 12.5 us were measured at 80,000 requests per second."""
LOOP_BUSY: Final = 0.2
"""Share of a second that the loop must have worked for that second to teach: a loop that rests pays for waking up."""
LOOP_GAIN: Final = 0.3
WINDOW: Final = 5


class SharedTime:
    """A clock of charged time: it runs at the full rate for one batch, at half of it for each of two. Thread-safe.

    Args:
        now: seconds that never go back.
    """

    __slots__ = ("_at_s", "_busy", "_lock", "_now", "_passed_s")

    def __init__(self, now: Callable[[], float] = perf_counter) -> None:
        self._lock = Lock()
        self._now = now
        self._at_s = 0.0
        self._busy = 0
        self._passed_s = 0.0

    def begin(self) -> float:
        """A batch begins. Returns: the reading to subtract from those that follow."""
        with self._lock:
            self._advance()
            self._busy += 1
            return self._passed_s

    def end(self) -> float:
        """A batch has ended."""
        with self._lock:
            self._advance()
            self._busy -= 1
            return self._passed_s

    def read(self) -> float:
        """The reading now."""
        with self._lock:
            self._advance()
            return self._passed_s

    def _advance(self) -> None:
        now_s = self._now()
        if self._busy:
            self._passed_s += (now_s - self._at_s) / self._busy
        self._at_s = now_s


class _Second(NamedTuple):
    at_s: float
    overhead_s: float
    answered: int


class LoopTime:
    """What the loop itself takes: processor time of its thread, less that of batches that stood in it.

    Args:
        cpu: processor time of the calling thread, in seconds. Sampled once per second, by the loop's thread.
    """

    def __init__(self, cpu: Callable[[], float] = thread_time) -> None:
        self._cpu = cpu
        self._cpu_s = cpu()
        self._inline_s = 0.0
        self._overhead_s = 0.0
        self._answered = 0
        self._seconds: deque[_Second] = deque(maxlen=WINDOW + 1)
        self.per_request_s = LOOP_S
        """Per request, in a busy loop."""

    def sample(self, now_s: float, inline_s: float, answered: int) -> None:
        """Look at the thread's clock; call once per second.

        Args:
            now_s: the time.
            inline_s: seconds of batches in the loop since the last call.
            answered: requests answered since the last call.
        """
        cpu_s = self._cpu()
        used_s, self._cpu_s = cpu_s - self._cpu_s, cpu_s
        overhead_s = max(0.0, used_s - inline_s)
        self._overhead_s += overhead_s
        self._answered += answered
        elapsed_s = now_s - self._seconds[-1].at_s if self._seconds else 0.0
        if answered and elapsed_s > 0.0 and used_s >= LOOP_BUSY * elapsed_s:
            self.per_request_s += LOOP_GAIN * (overhead_s / answered - self.per_request_s)
        self._seconds.append(_Second(now_s, self._overhead_s, self._answered))

    def recent(self) -> float:
        """Seconds of the loop per request over the last :data:`WINDOW` seconds; 0 where none was answered."""
        if len(self._seconds) < 2:
            return 0.0
        first, last = self._seconds[0], self._seconds[-1]
        answered = last.answered - first.answered
        return (last.overhead_s - first.overhead_s) / answered if answered else 0.0


def wait(own_s: float, one_s: float, others_s: Iterable[float]) -> float:
    """How long a request that arrives now at one model waits beyond its own service, when all share one worker.

    All models that have work advance at the same speed, so until ``w`` seconds of one model's work are done, each other
    one has got at most ``w`` seconds, and no more than it has.

    Args:
        own_s: worker-seconds of work that the model has, running and waiting.
        one_s: worker-seconds of one request.
        others_s: worker-seconds of work that each other model has; those without work need not be among them.

    Returns:
        Seconds. Cost: O(others).
    """
    until_s = own_s + one_s
    return own_s + sum([min(other_s, until_s) for other_s in others_s])


def waits(ahead_s: Sequence[float], service_s: Sequence[float]) -> list[float]:
    """:func:`wait` at each of several models, in their order, from what each has and takes. Cost: O(models^2)."""
    return [
        wait(own_s, one_s, [other_s for j, other_s in enumerate(ahead_s) if j != index])
        for index, (own_s, one_s) in enumerate(zip(ahead_s, service_s, strict=True))
    ]
