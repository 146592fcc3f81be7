"""The elements of tensors in protocol buffers: raw, or as typed contents (InferTensorContents), both ways.

Decides which elements belong to an input as its message describes it, and how outputs are written. Which inputs there
must be is the codec's to decide (:class:`~nearcast.engine.oip_grpc.GrpcCodec`). Raw bytes are not copied where
alignment allows it; FP16 has no typed form.

Source: Open Inference Protocol v2, "GRPC" (InferTensorContents, raw_input_contents).
"""

from functools import lru_cache
from typing import Final

import numpy as np

from nearcast.engine import datatypes
from nearcast.engine.datatypes import DTYPES, Array, NotElements
from nearcast.engine.protobuf import (
    FIELDS_MAX,
    LEN,
    Field,
    NotMessage,
    fields,
    packed_varints,
    text,
    to_field,
    to_packed_varints,
)

CONTENTS: Final = {
    "BOOL": 1,
    "INT8": 2,
    "INT16": 2,
    "INT32": 2,
    "INT64": 3,
    "UINT8": 4,
    "UINT16": 4,
    "UINT32": 4,
    "UINT64": 5,
    "FP32": 6,
    "FP64": 7,
    "BYTES": 8,
}
"""Number of the field of InferTensorContents that holds a datatype."""
_FIXED: Final = {6: 4, 7: 8}
"""Number of such a field -> bytes of an element, where all have the same."""


class Described:
    """An input as its message describes it: which one, and where its typed contents are, if it has any."""

    __slots__ = ("contents", "count", "datatype", "index", "name", "shape")

    def __init__(self, name: str, datatype: str, shape: tuple[int, ...]) -> None:
        self.name = name
        self.datatype = datatype
        self.shape = shape
        self.index = -1
        self.count = 0
        self.contents: tuple[int, int] | None = None


def array_of(body: bytes, given: Described, raw: Field | None) -> Array:
    """The elements of an input.

    Args:
        body: the whole message.
        given: the input.
        raw: where its raw bytes are, or None where the message has none.

    Raises:
        NotElements: they are missing, there twice, not as many as the shape wants, or not of the datatype.
        NotMessage: the contents are not well-formed.
    """
    if raw is not None:
        if given.contents is not None:
            raise NotElements("expected contents or raw_input_contents, got both")
        return datatypes.from_bytes(body, raw[1], raw[2] - raw[1], given.datatype, given.shape)
    if given.contents is None:
        if given.count:
            raise NotElements("expected contents or raw_input_contents, got neither")
        return np.empty(given.shape, DTYPES[given.datatype])
    number = CONTENTS.get(given.datatype)
    if number is None:
        raise NotElements(f"{given.datatype} has no typed contents: send it in raw_input_contents")
    is_text = number == CONTENTS["BYTES"]  # the only one with a field per element: numbers are packed
    found = fields(body, *given.contents, most=given.count if is_text else FIELDS_MAX)
    for tag, _, _ in found:
        if tag >> 3 != number:
            raise NotElements(f"{given.datatype} belongs in field {number} of contents, got field {tag >> 3}")
    if is_text:
        texts = [text(body, start, end) for _, start, end in found]
        return datatypes.from_list(texts, given.datatype, given.shape, given.count)
    pieces = [_numbers(body, field, number) for field in found]
    values = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    if len(values) != given.count:
        raise NotElements(f"shape {list(given.shape)} holds {given.count} elements, contents have {len(values)}")
    return _in_range(values, given.datatype).reshape(given.shape)


def _numbers(body: bytes, field: Field, number: int) -> Array:
    """The numbers in one field of InferTensorContents, packed or alone, as wide as the wire has them."""
    tag, start, end = field
    size = _FIXED.get(number)
    if size is not None:
        if (end - start) % size:
            raise NotMessage(f"field {number} of contents is cut off")
        return np.frombuffer(body, f"<f{size}", (end - start) // size, start).copy()
    packed = packed_varints(body, start, end) if tag & 7 == LEN else np.array([start], np.uint64)
    return packed.view(np.int64) if number in {2, 3} else packed


def _in_range(values: Array, datatype: str) -> Array:
    """``values`` as ``datatype``; they come as uint64, int64, or the right kind of float."""
    dtype = DTYPES[datatype]
    if dtype.kind in "iu" and len(values):
        limits = np.iinfo(dtype)
        low, high = int(values.min()), int(values.max())
        if low < limits.min or high > limits.max:
            raise NotElements(f"a value is out of range for {datatype}: {low if low < limits.min else high}")
    return values.astype(dtype)


def to_contents(array: Array, datatype: str) -> bytes:
    """InferTensorContents with the elements of ``array``."""
    number = CONTENTS[datatype]
    if datatype == "BYTES":
        texts = [one.encode() if isinstance(one, str) else bytes(one) for one in array.ravel()]
        return b"".join(to_field(number, one) for one in texts)
    return to_field(number, array.tobytes() if number in _FIXED else to_packed_varints(array))


@lru_cache(maxsize=1024)
def to_shape(shape: tuple[int, ...]) -> bytes:
    """The field of a tensor that holds its shape."""
    return to_field(3, to_packed_varints(np.array(shape, np.int64)))
