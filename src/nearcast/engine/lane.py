"""The lane of one model version: what arrives waits here, runs in batches, and is answered.

Decides when work runs and where. Work that arrived in the same tick of the loop is batched as far as the profile says
that it pays; no timer ever holds work back. Runs below a millisecond stand in the loop; longer ones go to one worker
thread per model (ONNX Runtime releases the GIL), where the next batch forms while one runs. What does not fit the
bounds is refused, never buffered. A batch that fails is run again piece by piece, so that one poisonous request
fails alone; so is one whose results have not a row per row, and such a model is not batched any more.

Guarantee: whoever submits work gets exactly one of ``finished``, ``failed``, or has cancelled it.
"""

import asyncio
import logging
import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from time import perf_counter
from typing import Final

import msgspec

from nearcast.engine.gauges import WEIGHT, Gauges, Recent
from nearcast.engine.layout import Part, whole
from nearcast.engine.ort_errors import ORT_ERRORS
from nearcast.engine.profile import INLINE_MAX_S, Profile, Runs
from nearcast.engine.refusal import Refusal, engine_failure, queue_full, unloaded
from nearcast.engine.work import Backlog, NotPerRow, Timing, Work, joined, parted
from nearcast.engine.worker import SharedTime, wait
from nearcast.resources import wire
from nearcast.resources.load import ModelLoad

QUEUE_BYTES: Final = 256 * 1024 * 1024
RETRY_MAX_S: Final = 30

log = logging.getLogger("nearcast.engine")

Result = Part | Refusal


class _Ran(msgspec.Struct):
    """A batch that came back: one result per piece of work, its worker-seconds, and whether it had to wait its turn."""

    batch: list[Work]
    results: list[Result]
    timing: Timing
    charged_s: float = 0.0
    behind: bool = False


class Lane:
    """Queue, batches and worker of one model version. All methods belong to the loop's thread.

    Args:
        name: ``model@version``, for messages and the thread's name.
        model: what computes.
        profile: how it is run.
        pad: whether rows of different widths may share a batch.
        queue: most pieces of work that wait.
        loop: the loop.
        shared: charges batches on the worker thread, which run beside those of other lanes.
        crowd: the lanes that share the worker and have work, and some that have none any more; for waits.
    """

    def __init__(
        self,
        name: str,
        model: Runs,
        profile: Profile,
        *,
        pad: bool,
        queue: int,
        loop: asyncio.AbstractEventLoop,
        shared: SharedTime | None = None,
        crowd: "set[Lane] | None" = None,
    ) -> None:
        self.name = name
        self.gauges = Gauges(profile)
        self._shared = shared or SharedTime()
        self._crowd = set() if crowd is None else crowd
        self.inline = self._was_inline = profile.inline
        self._model: Runs | None = model
        self._max_batch = profile.max_batch
        self._queue = queue
        self._loop = loop
        self._now = perf_counter  # uvloop's own clock is cached per tick, in whole milliseconds
        self._arrived = Backlog(pad=pad)
        self._flushing = False
        self._lock = Lock()  # guards the three fields below, which the worker shares
        self._backlog = Backlog(pad=pad)
        self._current: list[Work] = []
        self._began_s = math.inf  # by the shared clock; no batch runs on the thread
        self._working = False
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"run-{name}")
        self._inline_bytes = INLINE_MAX_S * profile.row_bytes / profile.item_s
        """Inputs beyond this size are expected to run longer than the loop may stand."""
        self._inline_s = 0.0
        self._running_inline = False

    # --- coming in -----------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Pieces of work that wait for their turn."""
        return self._arrived.count + self._backlog.count

    def check_room(self, longest_s: float | None = None) -> None:
        """Refuse when the queue is at its bound, or a request would wait too long. Call before the costs of parsing.

        Args:
            longest_s: the longest wait at which another place would not be asked instead; None where there is none.

        Raises:
            Refusal: status 503, marked as full.
        """
        if self._model is None:
            raise unloaded(f"{self.name} is being unloaded")
        arrived, backlog = self._arrived, self._backlog
        waiting = arrived.count + backlog.count
        if waiting >= self._queue or arrived.size_bytes + backlog.size_bytes >= QUEUE_BYTES:
            self.gauges.refused += 1
            wait_s = min(max(1, round(self.ahead_s() + 0.5)), RETRY_MAX_S)
            raise queue_full(f"the queue of {self.name} is full: {waiting} wait, {self._queue} may", wait_s)
        if longest_s is not None:
            # Asking others takes some microseconds, which a run in the loop does not always take itself.
            expected_s = self.ahead_s() if self.inline else self.wait_s()
            if expected_s > longest_s:
                self.gauges.refused += 1
                raise queue_full(
                    f"expected to wait at most {1000 * longest_s:.0f} ms for {self.name}, got {1000 * expected_s:.0f}",
                    1,
                )

    def submit(self, work: Work) -> None:
        """Take ``work``; it runs at the end of this tick or later."""
        if self._model is None:
            work.failed(unloaded(f"{self.name} was unloaded"))
            return
        self._arrived.push(work)
        if not self._flushing:
            self._flushing = True
            self._crowd.add(self)
            self._loop.call_soon(self._flush)
        elif self.inline and not self._running_inline and self._arrived.count >= self._max_batch:
            self._run_arrived()

    def cancel(self, works: Sequence[Work]) -> None:
        """Nobody waits for ``works`` any more: what has not begun never will. Cost: O(what waits), once for all."""
        for work in works:
            work.cancelled = True
        self.gauges.cancelled += len(works)
        self._arrived.drop_cancelled()
        with self._lock:
            self._backlog.drop_cancelled()

    def _flush(self) -> None:
        self._flushing = False
        if self.inline:
            self._run_arrived()
        else:
            self._hand_over(self._arrived.drop_all())

    # --- computing in the loop -----------------------------------------------------------------------------------

    def _run_arrived(self) -> None:
        self._running_inline = True
        behind = False
        try:
            while batch := self._arrived.take(self._max_batch):
                if sum([work.size_bytes for work in batch]) > self._inline_bytes:
                    self._hand_over(batch)
                else:
                    self._run_here(batch, behind=behind)
                behind = True
        finally:
            self._running_inline = False

    def _run_here(self, batch: list[Work], *, behind: bool) -> None:
        ran = None
        try:
            ran = self._compute(batch)
        finally:
            if ran is None:  # a bug: the loop's exception handler tells of it, the callers must not wait for ever
                self._broke(batch)
        seconds = ran.timing.finished_s - ran.timing.started_s
        ran.charged_s, ran.behind = seconds, behind
        self.gauges.inline_s += seconds
        self._inline_s += WEIGHT * (seconds - self._inline_s)
        if self._inline_s > 2 * INLINE_MAX_S:
            self.inline = False  # slower than measured at first: get out of the loop's way
        self._finish(ran)

    # --- computing on the worker ---------------------------------------------------------------------------------

    def _hand_over(self, batch: list[Work]) -> None:
        with self._lock:
            for work in batch:
                self._backlog.push(work)
            start = not self._working and self._backlog.count > 0
            self._working = self._working or start
        if start:
            self._crowd.add(self)
            self._worker.submit(self._work).add_done_callback(self._worker_ended)

    def _work(self) -> None:
        """Run batches until none is left. On the worker thread."""
        behind = False
        while True:
            with self._lock:
                batch = self._current = self._backlog.take(self._max_batch)
                if not batch:
                    self._working = False
                    return
                self._began_s = self._shared.begin()
            try:
                ran = self._compute(batch)
            finally:
                ended_s = self._shared.end()
            ran.charged_s, ran.behind = ended_s - self._began_s, behind
            self._began_s = math.inf
            behind = True
            self._current = []
            self._loop.call_soon_threadsafe(self._worked, ran)

    def _worked(self, ran: _Ran) -> None:
        """A batch came back from the worker. A model that was too slow for the loop may have had a busy neighbour."""
        if self._was_inline and not self.inline:
            self._inline_s += WEIGHT * (ran.timing.finished_s - ran.timing.started_s - self._inline_s)
            self.inline = self._inline_s < INLINE_MAX_S
        self._finish(ran)

    def _worker_ended(self, future: "Future[None]") -> None:
        """The worker found no more work, or broke. On the worker thread."""
        error = None if future.cancelled() else future.exception()
        if error is not None:
            log.error("the worker of %s broke", self.name, exc_info=error)
            self._loop.call_soon_threadsafe(self._restart)

    def _restart(self) -> None:
        with self._lock:
            broken, self._current = self._current, []
            self._working = False
        self._broke(broken)
        self._hand_over([])

    # --- both ----------------------------------------------------------------------------------------------------

    def _compute(self, batch: list[Work]) -> _Ran:
        model = self._model
        started_s = self._now()
        if model is None:
            gone = unloaded(f"{self.name} was unloaded")
            return _Ran(batch, [gone] * len(batch), Timing(started_s, started_s))
        results: list[Result]
        try:
            results = list(parted(batch, model.run(joined(batch))))
        except NotPerRow as error:
            log.warning("%s is not batched any more: %s", self.name, error)
            self._max_batch = 1
            results = [self._alone(model, work) for work in batch]
        except ORT_ERRORS as error:
            results = [self._refused(error)] if len(batch) == 1 else [self._alone(model, work) for work in batch]
        return _Ran(batch, results, Timing(started_s, self._now(), len(batch)))

    def _alone(self, model: Runs, work: Work) -> Result:
        try:
            return whole(model.run(work.feeds))
        except ORT_ERRORS as error:
            return self._refused(error)

    def _refused(self, error: Exception) -> Refusal:
        if isinstance(error, MemoryError):
            return engine_failure(f"{self.name}: out of memory")
        return Refusal(422, wire.CODE_INFERENCE_FAILED, f"{self.name} could not compute this input: {error}")

    def _finish(self, ran: _Ran) -> None:
        timing = ran.timing
        seconds = timing.finished_s - timing.started_s
        gauges = self.gauges
        rows = sum([work.rows for work in ran.batch])
        saturated = ran.behind or 1 < self._max_batch <= rows
        gauges.ran(len(ran.batch), rows, seconds, ran.charged_s, saturated=saturated)
        gauges.queue.add(timing.started_s - ran.batch[0].arrived_s, len(ran.batch))
        self._tell(ran)

    def _tell(self, ran: _Ran) -> None:
        """Answer each piece of work. A bug in answering one goes to the loop's handler, and the others get theirs."""
        told = 0
        try:
            for work, result in zip(ran.batch, ran.results, strict=True):
                told += 1
                if work.cancelled:
                    continue
                if isinstance(result, Refusal):
                    self.gauges.failed += 1
                    work.failed(result)
                else:
                    work.finished(result, ran.timing)
            told += 1
        finally:
            if told <= len(ran.batch):
                self._broke(ran.batch[told - 1 : told])
                self._tell(_Ran(ran.batch[told:], ran.results[told:], ran.timing))

    def _broke(self, batch: list[Work]) -> None:
        for work in batch:
            self.gauges.failed += 1
            if not work.cancelled:
                work.failed(engine_failure(f"{self.name}: the engine failed while computing"))

    # --- telling -------------------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or runs."""
        return self.waiting == 0 and not self._working

    def running_s(self) -> float:
        """Worker-seconds that the worker thread's batch has taken so far; 0 when it rests."""
        return max(0.0, self._shared.read() - self._began_s) if self._working else 0.0

    def ahead_s(self) -> float:
        """Worker-seconds of this model's work that is not done: what waits, and the rest of what runs."""
        rest_s = max(0.0, self.gauges.service_s - self.running_s()) if self._working else 0.0
        return (self._arrived.count + self._backlog.rows) * self.gauges.piece_s + rest_s

    def wait_s(self) -> float:
        """How long a request waits that arrives now, for other models too. Cost: O(models that have work)."""
        others = [lane for lane in self._crowd if lane is not self]
        for lane in others:
            if lane.is_idle:
                self._crowd.discard(lane)
        return wait(self.ahead_s(), self.gauges.service_s, [lane.ahead_s() for lane in others])

    def recent(self) -> Recent:
        """The figures of the last seconds."""
        return self.gauges.recent(self._now(), self.running_s())

    def load(self, wait_s: float, loop_s: float) -> ModelLoad:
        """How busy this model is.

        Args:
            wait_s: how long a request waits that arrives now, for other models too.
            loop_s: seconds of the loop per request.
        """
        recent = self.recent()
        waiting = self.waiting
        return ModelLoad(
            wait_s=wait_s,
            service_s=self.gauges.service_s,
            utilization=min(1.0, recent.utilization + recent.answered_per_s * loop_s),
            rate_per_s=recent.answered_per_s,
            queue=waiting,
            room=max(0, self._queue - waiting),
        )

    def close(self) -> None:
        """Refuse what waits, let what runs come to its end, and release the model. Idempotent."""
        self._model = None
        self._crowd.discard(self)
        with self._lock:
            dropped = self._backlog.drop_all()
        dropped += self._arrived.drop_all()
        for work in dropped:
            work.failed(unloaded(f"{self.name} was unloaded"))
        self._worker.shutdown(wait=False)
