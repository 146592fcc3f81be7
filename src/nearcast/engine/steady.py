"""Runs of few different sizes, for models to which a size that differs from the last one is dear.

A device's library may plan a convolution anew whenever the shape of its input changes (cuDNN: 0.3 s for a network of
fifty convolutions, measured on an H200; the run itself takes milliseconds), and batches that form by themselves differ
all the time. Such a model is run with as many rows as it was run with last, filled up with zeros: more at once when
more are waiting, fewer only after a while of needing fewer. Only rows that do not depend on one another may be filled
up, and a model is batched only where that was seen (:mod:`~nearcast.engine.profile`).
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from nearcast.engine.datatypes import Array
from nearcast.engine.profile import Profile, Runs, made_up
from nearcast.resources.release import Signature

HOLD_S: Final = 10.0
"""For how long fewer rows must have been enough before runs become smaller."""
DEAR: Final = 4.0
"""A change of size is dear when it takes this many runs of one row, beside the run itself."""


class Rows:
    """How many rows the next run has: a power of two, which rises at once and falls after :data:`HOLD_S`.

    Args:
        most: rows; runs that need more are left as they are.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.current = 1
        self._enough = 1
        self._since_s = 0.0

    def take(self, rows: int, now_s: float) -> int:
        """The size of a run that needs ``rows`` rows, at ``now_s`` seconds."""
        if rows > self.most:
            return rows
        needed = 1 << (rows - 1).bit_length()
        if needed >= self.current:
            self.current, self._enough, self._since_s = needed, 1, now_s
            return needed
        self._enough = max(self._enough, needed)
        if now_s - self._since_s >= HOLD_S:
            self.current, self._enough, self._since_s = self._enough, 1, now_s
        return self.current


class SteadyModel:
    """A model whose runs are filled up. Not for several threads at once: a lane runs one batch after another.

    Args:
        model: with independent rows.
        most: rows of its largest batch.
        now: a clock in seconds.
    """

    def __init__(self, model: Runs, most: int, now: Callable[[], float]) -> None:
        self._model, self._rows, self._now = model, Rows(most), now

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        """As the model, for its own rows only."""
        rows = len(feeds[0])
        size = self._rows.take(rows, self._now())
        if size == rows:
            return self._model.run(feeds)
        results = self._model.run([_filled(feed, size) for feed in feeds])
        if any(result.shape[:1] != (size,) for result in results):
            # An output that does not follow the rows is made of all of them, so of those that nobody asked for, too.
            return self._model.run(feeds)
        return [result[:rows] for result in results]


def steadied(model: Runs, signature: Signature, profile: Profile, now: Callable[[], float]) -> Runs:
    """``model``, or a :class:`SteadyModel` of it where a change of size is dear. Takes a dozen runs of few rows."""
    if profile.max_batch < 2 or any(tensor.datatype == "BYTES" for tensor in signature.inputs):
        return model
    change_s, run_s = change_cost(model, signature, profile.width, now)
    return SteadyModel(model, profile.max_batch, now) if change_s > DEAR * run_s else model


def change_cost(model: Runs, signature: Signature, width: int, now: Callable[[], float]) -> tuple[float, float]:
    """Seconds that a run takes longer because the last one had another size, and seconds of a run of one row."""
    one, two = made_up(signature, 1, width), made_up(signature, 2, width)
    model.run(two)
    changed = [_timed(model, feeds, now) for feeds in (one, two, one, two)]
    steady = []
    for feeds in (one, two):
        model.run(feeds)
        steady.append(min(_timed(model, feeds, now) for _ in range(3)))
    return min(changed) - max(steady), steady[0]


def _timed(model: Runs, feeds: Sequence[Array], now: Callable[[], float]) -> float:
    begun_s = now()
    model.run(feeds)
    return now() - begun_s


def _filled(feed: Array, rows: int) -> Array:
    filled = np.zeros((rows, *feed.shape[1:]), feed.dtype)
    filled[: len(feed)] = feed
    return filled
