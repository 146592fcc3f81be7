"""Work that waits, and which of it runs as one batch. Pure: no threads, no loop, no clock, no model.

Invariants: work leaves in the order it came, except that a batch may pass over work that does not fit it (the oldest
always goes first, so nothing starves); cancelled work never leaves; rows of a batch never exceed the limit unless a
single piece of work does by itself.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from nearcast.engine.datatypes import Array
from nearcast.engine.refusal import Refusal

LOOK_AHEAD: Final = 64
"""How many pieces of work one batch may pass over in search of others that fit."""
PADDING_MAX: Final = 1.25
"""Most tokens computed per token asked for, in a padded batch: beyond that, padding eats what batching gives."""
PADDING_FREE: Final = 16
"""Rows up to this many tokens cost about the same, so that padding among them is free."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When a piece of work was computed: seconds of the same clock as :attr:`Work.arrived_s`."""

    started_s: float
    finished_s: float


class Work(ABC):
    """One piece of work: inputs of one model, and somebody who waits for the outputs.

    Args:
        feeds: one array per input, in the order of the signature.
        rows: size of dimension 0, where that is the batch; else 1.
        arrived_s: when it came.
    """

    __slots__ = ("arrived_s", "cancelled", "feeds", "home", "rows", "size_bytes", "trailing", "width")

    def __init__(self, feeds: list[Array], rows: int, arrived_s: float) -> None:
        self.feeds = feeds
        self.rows = rows
        self.arrived_s = arrived_s
        self.cancelled = False
        self.home: Backlog | None = None
        self.size_bytes = feeds[0].nbytes if len(feeds) == 1 else sum(feed.nbytes for feed in feeds)
        self.trailing = feeds[0].shape[1:] if len(feeds) == 1 else tuple(feed.shape[1:] for feed in feeds)
        self.width = feeds[0].shape[-1] if feeds[0].ndim > 1 else 1

    @abstractmethod
    def finished(self, results: Sequence[Array], timing: Timing) -> None:
        """Take the outputs: one array per output of the signature, for these rows only. Called on the loop, once."""

    @abstractmethod
    def failed(self, refusal: Refusal) -> None:
        """Take the failure. Called on the loop, once, and never together with :meth:`finished`."""


class Backlog:
    """Work in the order of its arrival.

    Args:
        pad: whether rows of different widths may share a batch (token models).
    """

    def __init__(self, *, pad: bool) -> None:
        self._pad = pad
        self._waiting: deque[Work] = deque()
        self._cancelled = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting) - self._cancelled

    def push(self, work: Work) -> None:
        """Add ``work`` at the end."""
        work.home = self
        self._waiting.append(work)
        self.size_bytes += work.size_bytes

    def cancel(self, work: Work) -> None:
        """Make sure that ``work``, which waits here, never leaves. Call it once per work."""
        work.cancelled = True
        self._cancelled += 1
        self.size_bytes -= work.size_bytes

    def take(self, max_rows: int) -> list[Work]:
        """The next batch: the oldest work, and what may run with it. Empty when nothing waits."""
        first = self._next()
        if first is None:
            return []
        batch = [first]
        if first.rows >= max_rows:
            return batch
        fit = _Fit(first, pad=self._pad)
        passed: list[Work] = []
        while fit.rows < max_rows and len(passed) < LOOK_AHEAD:
            work = self._next()
            if work is None:
                break
            if fit.rows + work.rows <= max_rows and fit.accepts(work):
                fit.add(work)
                batch.append(work)
            else:
                passed.append(work)
        for work in reversed(passed):
            self._waiting.appendleft(work)
            work.home = self
            self.size_bytes += work.size_bytes
        return batch

    def drop_all(self) -> list[Work]:
        """Everything that waits; nothing waits afterwards."""
        dropped = []
        while (work := self._next()) is not None:
            dropped.append(work)
        return dropped

    def _next(self) -> Work | None:
        waiting = self._waiting
        while waiting:
            work = waiting.popleft()
            if not work.cancelled:
                work.home = None
                self.size_bytes -= work.size_bytes
                return work
            self._cancelled -= 1
        return None


class _Fit:
    """What may still join a batch."""

    __slots__ = ("_cells", "_pad", "_trailing", "_width", "rows")

    def __init__(self, first: Work, *, pad: bool) -> None:
        self._pad = pad
        self._trailing = first.trailing
        self._width = first.width
        self._cells = first.rows * first.width
        self.rows = first.rows

    def accepts(self, work: Work) -> bool:
        if work.trailing == self._trailing:
            return True
        if not self._pad:
            return False
        width = max(self._width, work.width)
        asked = self._cells + work.rows * work.width
        return width <= PADDING_FREE or (self.rows + work.rows) * width <= PADDING_MAX * asked

    def add(self, work: Work) -> None:
        self.rows += work.rows
        self._cells += work.rows * work.width
        self._width = max(self._width, work.width)


def joined(batch: Sequence[Work]) -> list[Array]:
    """The feeds of a whole batch: rows stacked along dimension 0, narrower ones padded with zeros at the end."""
    if len(batch) == 1:
        return batch[0].feeds
    width = max(work.width for work in batch)
    stacked = []
    for index in range(len(batch[0].feeds)):
        arrays = [work.feeds[index] for work in batch]
        if any(array.ndim == 2 and array.shape[1] != arrays[0].shape[1] for array in arrays):
            arrays = [np.pad(array, ((0, 0), (0, width - array.shape[1]))) for array in arrays]
        stacked.append(np.concatenate(arrays))
    return stacked


def parted(batch: Sequence[Work], results: Sequence[Array]) -> list[Sequence[Array]]:
    """The results of each piece of work, cut out of those of the batch (views, no copies)."""
    if len(batch) == 1:
        return [results]
    parts: list[Sequence[Array]] = []
    start = 0
    for work in batch:
        end = start + work.rows
        parts.append([result[start:end] for result in results])
        start = end
    return parts
