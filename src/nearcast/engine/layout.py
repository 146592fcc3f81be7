"""Raw tensors on their way in and out, as bytes for as long as nobody asks for arrays.

Decides nothing: a :class:`Layout` says where the tensors of a body stand, a :class:`Part` which rows of a batch's
results are whose. A batch is stacked by joining bytes and cut apart by slicing bytes, which costs a fraction of making
an array per request; whoever indexes a part gets arrays (views, no copies).
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from nearcast.engine.datatypes import Array


class Field(NamedTuple):
    """One tensor: its dtype and shape, and where it begins and ends in the body."""

    dtype: "np.dtype[np.generic]"
    shape: tuple[int, ...]
    start: int
    end: int


class Layout(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What the JSON head of a body said: every body with the same head has the same layout.

    Attributes:
        fields: one per input of the signature, in its order; none is empty, BOOL or BYTES.
        body_bytes: size of the whole body.
        rows: size of dimension 0, where that is the batch; else 1.
        outputs: (index in the signature, wanted as raw bytes) in the order wanted.
        trailing: what must agree among rows that share a batch.
        size_bytes: bytes of all tensors.
    """

    fields: tuple[Field, ...]
    body_bytes: int
    rows: int
    outputs: tuple[tuple[int, bool], ...]
    trailing: tuple[object, ...]
    size_bytes: int

    def stacked(self, bodies: Sequence[bytes]) -> list[Array]:
        """The tensors of several bodies, stacked along dimension 0. They share memory with a single body."""
        if len(bodies) == 1:
            return [_array(field, bodies[0], field.start, 1) for field in self.fields]
        return [
            _array(field, b"".join([body[field.start : field.end] for body in bodies]), 0, len(bodies))
            for field in self.fields
        ]


def _array(field: Field, data: bytes, offset: int, times: int) -> Array:
    shape = field.shape if times == 1 else (times * field.shape[0], *field.shape[1:])
    array: Array = np.ndarray(shape, field.dtype, data, offset)
    return array if offset % field.dtype.itemsize == 0 else array.copy()


class Raw(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Tensors that are still bytes: a body, and where they stand in it."""

    layout: Layout
    body: bytes


class Results(msgspec.Struct, eq=False):
    """What one run of a model gave.

    Attributes:
        arrays: one per output of the signature, in its order.
        alone: whether all of it belongs to one piece of work, whatever its shapes.
    """

    arrays: list[Array]
    alone: bool
    _shapes: tuple[tuple[int, ...], ...] | None = None
    _raw: dict[int, bytes] = msgspec.field(default_factory=dict)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the arrays; without dimension 0 where they are to be cut along it."""
        if self._shapes is None:
            skip = 0 if self.alone else 1
            self._shapes = tuple([array.shape[skip:] for array in self.arrays])
        return self._shapes

    def raw(self, index: int) -> bytes:
        """All of output ``index`` as bytes, copied once however many ask. Not for strings."""
        raw = self._raw.get(index)
        if raw is None:
            raw = self._raw[index] = self.arrays[index].tobytes()
        return raw


class Part(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The rows of one piece of work among the results of its batch."""

    results: Results
    start: int
    end: int

    def __len__(self) -> int:
        return len(self.results.arrays)

    def __getitem__(self, index: int) -> Array:
        array = self.results.arrays[index]
        return array if self.results.alone else array[self.start : self.end]

    def raw(self, index: int) -> bytes:
        """Output ``index`` as raw little-endian bytes, row-major. Not for strings."""
        results = self.results
        raw = results.raw(index)
        if results.alone:
            return raw
        row_bytes = len(raw) // max(1, len(results.arrays[index]))
        return raw[self.start * row_bytes : self.end * row_bytes]


def whole(arrays: list[Array]) -> Part:
    """Results that belong to one piece of work."""
    return Part(Results(arrays, alone=True), 0, -1)
