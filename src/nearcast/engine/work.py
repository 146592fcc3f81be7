"""Work that waits, and which of it runs as one batch. Pure: no threads, no loop, no clock, no model.

Invariants: work leaves in the order it came, except that a batch may pass over work that does not fit it (the oldest
always goes first, so nothing starves); cancelled work never leaves; rows of a batch never exceed the limit unless a
single piece of work does by itself.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from nearcast.engine.datatypes import Array
from nearcast.engine.layout import Part, Raw, Results, whole
from nearcast.engine.refusal import Refusal

LOOK_AHEAD: Final = 64
"""How many pieces of work one batch may pass over in search of others that fit."""
PADDING_MAX: Final = 1.25
"""Most tokens computed per token asked for, in a padded batch: beyond that, padding eats what batching gives."""
PADDING_FREE: Final = 16
"""Rows up to this many tokens cost about the same, so that padding among them is free."""


class Timing(msgspec.Struct, frozen=True):
    """When work was computed, in seconds of the clock of :attr:`Work.arrived_s`, and in a batch of how many pieces."""

    started_s: float
    finished_s: float
    pieces: int = 1


class Work(ABC):
    """One piece of work: inputs of one model, and somebody who waits for the outputs.

    Args:
        feeds: one array per input, in the order of the signature, or the bytes that hold them.
        rows: size of dimension 0, where that is the batch; else 1.
        arrived_s: when it came.
    """

    __slots__ = ("_feeds", "arrived_s", "cancelled", "raw", "rows", "size_bytes", "trailing")

    def __init__(self, feeds: list[Array] | Raw, rows: int, arrived_s: float) -> None:
        self.rows = rows
        self.arrived_s = arrived_s
        self.cancelled = False
        self._feeds: list[Array] = []
        self.raw: Raw | None = None
        if isinstance(feeds, Raw):
            self.raw = feeds
            layout = feeds.layout
            self.trailing: tuple[object, ...] = layout.trailing
            self.size_bytes = layout.size_bytes
            return
        self._feeds = feeds
        if len(feeds) == 1:
            feed = feeds[0]
            self.trailing = feed.shape[1:]
            self.size_bytes = feed.nbytes
        else:
            self.trailing = tuple([feed.shape[1:] for feed in feeds])
            self.size_bytes = sum([feed.nbytes for feed in feeds])

    @property
    def feeds(self) -> list[Array]:
        """One array per input, in the order of the signature."""
        if not self._feeds and self.raw is not None:
            self._feeds = self.raw.layout.stacked((self.raw.body,))
        return self._feeds

    @property
    def width(self) -> int:
        """Tokens per row of a token model."""
        return int(self.raw.layout.fields[0].shape[1] if self.raw is not None else self._feeds[0].shape[1])

    @abstractmethod
    def finished(self, results: Part, timing: Timing) -> None:
        """Take the outputs: one array per output of the signature, for these rows only. Called on the loop, once."""

    @abstractmethod
    def failed(self, refusal: Refusal) -> None:
        """Take the failure. Called on the loop, once, and never together with :meth:`finished`."""


class Backlog:
    """Work in the order of its arrival.

    ``count``, ``rows`` and ``size_bytes`` say how much waits.

    Args:
        pad: whether rows of different widths may share a batch (token models).
    """

    def __init__(self, *, pad: bool) -> None:
        self._pad = pad
        self._waiting: deque[Work] = deque()
        self._mixed = False  # whether work that cannot share a batch unseen has come since it was last empty
        self.rows = 0
        self.count = 0
        self.size_bytes = 0

    def push(self, work: Work) -> None:
        """Add ``work`` at the end."""
        waiting = self._waiting
        if not waiting:
            self._mixed = False
        elif work.trailing != waiting[-1].trailing:
            self._mixed = True
        waiting.append(work)
        self.count += 1
        self.rows += work.rows
        self.size_bytes += work.size_bytes

    def drop_cancelled(self) -> None:
        """Let go of work that nobody waits for any more."""
        kept = [work for work in self._waiting if not work.cancelled]
        mixed = self._mixed
        self.drop_all()
        for work in kept:
            self.push(work)
        self._mixed = self._mixed or (mixed and bool(kept))

    def take(self, max_rows: int) -> list[Work]:
        """The next batch: the oldest work, and what may run with it. Empty when nothing waits."""
        if not self._waiting or (self.rows <= max_rows and not self._mixed):
            return self.drop_all()
        first = self._next()
        batch = [first]
        if first.rows >= max_rows:
            return batch
        fit = _Fit(first, pad=self._pad)
        passed: list[Work] = []
        while self._waiting and fit.rows < max_rows and len(passed) < LOOK_AHEAD:
            work = self._next()
            if fit.rows + work.rows <= max_rows and fit.accepts(work):
                fit.add(work)
                batch.append(work)
            else:
                passed.append(work)
        self._waiting.extendleft(reversed(passed))
        for work in passed:
            self.count += 1
            self.rows += work.rows
            self.size_bytes += work.size_bytes
        return batch

    def drop_all(self) -> list[Work]:
        """Everything that waits; nothing waits afterwards."""
        dropped = list(self._waiting)
        self._waiting.clear()
        self.count = 0
        self.rows = 0
        self.size_bytes = 0
        self._mixed = False
        return dropped

    def _next(self) -> Work:
        work = self._waiting.popleft()
        self.count -= 1
        self.rows -= work.rows
        self.size_bytes -= work.size_bytes
        return work


class _Fit:
    """What may still join a batch."""

    __slots__ = ("_cells", "_pad", "_trailing", "_width", "rows")

    def __init__(self, first: Work, *, pad: bool) -> None:
        self._pad = pad
        self._trailing = first.trailing
        self._width = first.width if pad else 0
        self._cells = first.rows * self._width
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
        if self._pad:
            self._cells += work.rows * work.width
            self._width = max(self._width, work.width)


def joined(batch: Sequence[Work]) -> list[Array]:
    """The feeds of a whole batch: rows stacked along dimension 0, narrower ones padded with zeros at the end."""
    first = batch[0]
    if len(batch) == 1:
        return first.feeds
    if first.raw is not None:
        layout = first.raw.layout
        bodies = [work.raw.body for work in batch if work.raw is not None and work.raw.layout is layout]
        if len(bodies) == len(batch):
            return layout.stacked(bodies)
    trailing = batch[0].trailing
    width = max([work.width for work in batch]) if any(work.trailing != trailing for work in batch) else 0
    stacked = []
    for index in range(len(batch[0].feeds)):
        arrays = [work.feeds[index] for work in batch]
        if width:
            arrays = [np.pad(array, ((0, 0), (0, width - array.shape[1]))) for array in arrays]
        stacked.append(np.concatenate(arrays))
    return stacked


class NotPerRow(ValueError):
    """The results of a batch do not have one row for each row that went in, so nobody knows whose they are."""


def parted(batch: Sequence[Work], arrays: list[Array]) -> list[Part]:
    """The results of each piece of work, cut out of those of the batch.

    Raises:
        NotPerRow: they cannot be told apart.
    """
    if len(batch) == 1:
        return [whole(arrays)]
    results = Results(arrays, alone=False)
    parts = []
    end = 0
    for work in batch:
        start = end
        end += work.rows
        parts.append(Part(results, start, end))
    for array in arrays:
        if array.shape[:1] != (end,):
            raise NotPerRow(f"{end} rows went in, a result has the shape {list(array.shape)}")
    return parts
