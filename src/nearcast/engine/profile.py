"""What a model costs on this node: its latency by batch size, measured once when it is loaded, and what follows.

Decides the largest batch that pays, and whether a run is short enough to stand in the loop. A model is batched only
when its rows were seen to be independent: the rows of a joint run must equal those of single runs, padded ones too.
A model that cannot be run on made-up inputs is served unbatched, on a thread, and learns its cost from traffic.
Cost: about :data:`BUDGET_S`, or one run where that is longer, whatever the model.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import msgspec
import numpy as np

from nearcast.engine.datatypes import DTYPES, Array
from nearcast.engine.ort_errors import ORT_ERRORS
from nearcast.resources.release import Signature, Tensor

BUDGET_S: Final = 2.0
BATCHES: Final = (1, 2, 4, 8, 16, 32)
DEVICE_BATCHES: Final = (*BATCHES, 64, 128, 256)
"""A device that computes thousands of things at once is not filled by 32 rows."""
INLINE_MAX_S: Final = 0.001
"""Longest run that may stand in the loop: while it runs, nothing else is read."""
GAIN_MIN: Final = 0.9
"""A batch pays when an item costs at most this share of what it costs alone."""
GAIN_TOLERANCE: Final = 1.02
"""Among batches that are this close to the cheapest, the smallest is taken: it waits least. What it costs more is lost
of all that the engine can do; closer than this the measured points are not told apart."""
WORSE: Final = 1.03
WORSE_MAX: Final = 2
"""Doublings in a row that may make items dearer than the cheapest so far, before larger batches are not tried."""
WIDTHS: Final = (32, 16, 64, 224, 1)
"""Sizes tried for dimensions that are free beside the batch, until the model accepts one."""
UNKNOWN_S: Final = 0.01

_RUNS_MAX: Final = 30
_RUNS_MIN: Final = 3
_POINT_S: Final = 0.1


class Runs(Protocol):
    """Something that computes: one array per output for one array per input. May raise one of ``ORT_ERRORS``."""

    def run(self, feeds: Sequence[Array]) -> list[Array]:
        """One array per output, in the order of the signature."""
        ...


class Point(msgspec.Struct, frozen=True):
    """One point of the curve: a run of ``batch`` rows takes ``seconds``."""

    batch: int
    seconds: float


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What a model costs, and how it is run because of that.

    Attributes:
        curve: latency by batch size; empty when the model could not be run on made-up inputs.
        max_batch: most rows per run; 1 when batching does not pay or rows depend on one another.
        inline: whether runs stand in the loop.
        service_s: seconds of a run of one row.
        row_bytes: input bytes of the row that was measured.
        width: of the dimensions that are free beside the batch, in the row that was measured.
        note: why the model is not batched, or the empty string.
    """

    curve: tuple[Point, ...] = ()
    max_batch: int = 1
    inline: bool = False
    service_s: float = UNKNOWN_S
    row_bytes: int = 0
    width: int = 1
    note: str = ""

    def __str__(self) -> str:
        how = f"batches of up to {self.max_batch}" if self.max_batch > 1 else f"no batches ({self.note})"
        return f"{self.service_s * 1000.0:.3g} ms a row, {how}, {'in the loop' if self.inline else 'on a thread'}"

    @property
    def item_s(self) -> float:
        """Seconds per row at :attr:`max_batch`."""
        return next((p.seconds / p.batch for p in self.curve if p.batch == self.max_batch), self.service_s)


def profile(
    model: Runs, signature: Signature, *, pad: bool, now: Callable[[], float], on_device: bool = False
) -> Profile:
    """Measure ``model``.

    Args:
        model: warm or cold; it is warm afterwards.
        signature: its inputs and outputs.
        pad: whether its rows may be padded (token models).
        now: a clock in seconds.
        on_device: whether it runs on a device of its own: while that computes, the loop is free to read.
    """
    begun_s = now()
    width = _accepted_width(model, signature)
    first_s = now() - begun_s
    if width is None:
        return Profile(note="could not be run on made-up inputs: served one request at a time")
    if first_s > BUDGET_S:
        return Profile(curve=(Point(1, first_s),), service_s=first_s, note="one run takes longer than measuring may")
    dependent = "" if _has_batch(signature) else "the batch dimension is fixed"
    if not dependent and not _rows_independent(model, signature, width, pad=pad):
        dependent = "rows depend on one another"
    single = made_up(signature, 1, width)
    sizes = (1,) if dependent else DEVICE_BATCHES if on_device else BATCHES
    curve = tuple(_measured(model, signature, width, sizes, now))
    best = best_batch(curve)
    note = dependent or ("" if best > 1 else "a batch is no cheaper per item")
    return Profile(
        curve=curve,
        max_batch=best,
        inline=not on_device and max(p.seconds for p in curve if p.batch in {1, best}) < INLINE_MAX_S,
        service_s=curve[0].seconds,
        row_bytes=sum(feed.nbytes for feed in single),
        width=width,
        note=note,
    )


def best_batch(curve: Sequence[Point]) -> int:
    """The smallest batch whose cost per item is about the lowest, or 1 where none is clearly cheaper than one row."""
    cost = {point.batch: point.seconds / point.batch for point in curve}
    lowest = min(cost.values())
    best = min(batch for batch, seconds in cost.items() if seconds <= lowest * GAIN_TOLERANCE)
    return best if cost[best] <= GAIN_MIN * cost[1] else 1


def _measured(
    model: Runs, signature: Signature, width: int, sizes: Sequence[int], now: Callable[[], float]
) -> Iterator[Point]:
    """Points of the curve, as far as the budget goes. The least of several runs is taken: noise only ever adds."""
    end = now() + BUDGET_S
    cheapest = math.inf
    worse = 0
    for batch in sizes:
        feeds = made_up(signature, batch, width)
        stop = min(now() + _POINT_S, end)
        least = math.inf
        for run in range(_RUNS_MAX):
            begun = now()
            if run >= _RUNS_MIN and begun >= stop:
                break
            if run > 0 and begun >= end:
                break
            model.run(feeds)
            least = min(least, now() - begun)
        yield Point(batch, max(least, 1e-9))
        worse = worse + 1 if least / batch > cheapest * WORSE else 0
        cheapest = min(cheapest, least / batch)
        if worse == WORSE_MAX or now() + 2 * least > end:
            return


def _accepted_width(model: Runs, signature: Signature) -> int | None:
    free = any(-1 in tensor.shape[1:] for tensor in signature.inputs)
    for width in WIDTHS if free else WIDTHS[:1]:
        try:
            model.run(made_up(signature, 1, width))
        except ORT_ERRORS:
            continue
        return width
    return None


def _has_batch(signature: Signature) -> bool:
    tensors = (*signature.inputs, *signature.outputs)
    return bool(signature.inputs) and all(tensor.shape[:1] == (-1,) for tensor in tensors)


def _rows_independent(model: Runs, signature: Signature, width: int, *, pad: bool) -> bool:
    """Whether two different rows, run together, give what each gives alone (the narrower one padded, where allowed)."""
    first = made_up(signature, 1, width // 2 if pad and width > 1 else width)
    second = made_up(signature, 1, width, seed=1)
    together = []
    for one, other in zip(first, second, strict=True):
        if pad:
            padding = ((0, 0), (0, other.shape[1] - one.shape[1]))
            together.append(np.concatenate([np.pad(one, padding), other]))
        else:
            together.append(np.concatenate([one, other]))
    try:
        alone = [model.run(first), model.run(second)]
        joint = model.run(together)
    except ORT_ERRORS:
        return False
    return all(
        result.shape[:1] == (2,) and _same(result[row : row + 1], alone[row][index])
        for index, result in enumerate(joint)
        for row in (0, 1)
    )


def _same(one: Array, other: Array) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    tolerance = 1e-2 if one.dtype.itemsize == 2 else 1e-3
    return bool(np.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True))


def made_up(signature: Signature, batch: int, width: int, seed: int = 0) -> list[Array]:
    """Inputs that most models accept: small numbers, ones for integers (valid as token ids and as masks)."""
    generator = np.random.default_rng(seed)
    return [_made_up(tensor, batch, width, generator, seed) for tensor in signature.inputs]


def _made_up(tensor: Tensor, batch: int, width: int, generator: np.random.Generator, seed: int) -> Array:
    free = (batch, *(width for _ in tensor.shape[1:]))
    shape = tuple(size if size != -1 else instead for size, instead in zip(tensor.shape, free, strict=False))
    dtype = DTYPES[tensor.datatype]
    if dtype.kind == "O":
        return np.full(shape, "nearcast", dtype=object)
    other = seed and "mask" not in tensor.name  # a second row that is as different as may be
    if dtype.kind == "f":
        return (generator.random(shape) * (-1 if other else 1)).astype(dtype)
    if other:
        return (np.arange(math.prod(shape)).reshape(shape) % 2).astype(dtype)
    return np.ones(shape, dtype)
