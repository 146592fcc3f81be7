"""Tensor datatypes of the Open Inference Protocol v2 in numpy, in JSON, and in raw little-endian bytes.

Decides how elements are written and read; names, shapes and limits are judged in :mod:`~nearcast.engine.oip_input`.
Source: Open Inference Protocol v2, "Tensor Data" and "Tensor Data Types"; Triton's binary tensor data extension
(BYTES elements are a little-endian uint32 length and that many bytes).
"""

import itertools
import math
import re
import struct
from functools import cache, lru_cache
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype("O"),
}
"""BYTES are object arrays of ``str``: ONNX strings are UTF-8."""

ELEMENTS: Final[dict[str, type]] = {"?": bool, "u": int, "i": int, "f": float, "O": str, "b": bool}
PIECE_BYTES: Final = 65536
"""Long JSON arrays of numbers are read in pieces of about this size: a piece holds the interpreter for a millisecond,
the whole could hold it, and with it the loop, for a second."""
_NESTED = re.compile(rb"\s*\[\s*\[")
_length = struct.Struct("<I")
_PACKED_MAX: Final = 4096
_FP32: Final = np.dtype("<f4")


class NotElements(ValueError):
    """Data that is not what a tensor of the given datatype and shape holds; the message says what came."""


@cache
def _decoder(element: type, depth: int) -> msgspec.json.Decoder[Any]:
    kind: Any = element
    for _ in range(depth):
        kind = list[kind]
    return msgspec.json.Decoder(kind, strict=True)


def from_json(raw: msgspec.Raw, datatype: str, shape: tuple[int, ...]) -> Array:
    """The tensor that the JSON array ``raw`` holds, flat (row-major) or nested as ``shape`` says.

    Raises:
        NotElements: wrong element types, range, nesting or count.
    """
    element = ELEMENTS[DTYPES[datatype].kind]
    try:
        if len(memoryview(raw)) > 2 * PIECE_BYTES and element in {int, float} and not _NESTED.match(raw):
            return _in_pieces(bytes(raw), datatype, shape)
        if len(shape) > 1 and _NESTED.match(raw):
            flat = _flatten(_decoder(element, len(shape)).decode(raw), shape)
        else:
            flat = _decoder(element, 1).decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotElements(f"{error}") from error
    count = math.prod(shape)
    return from_list(flat, datatype, shape, count)


def _in_pieces(text: bytes, datatype: str, shape: tuple[int, ...]) -> Array:
    """As :func:`from_json`, for a flat array of numbers."""
    count = math.prod(shape)
    decode = _decoder(ELEMENTS[DTYPES[datatype].kind], 1).decode
    array: Array = np.empty(count, DTYPES[datatype])
    filled = 0
    start, end = 1, len(text) - 1
    while True:
        comma = text.find(b",", start + PIECE_BYTES, end)
        piece = decode(b"[%b]" % text[start : end if comma < 0 else comma])
        if not piece and count:
            raise NotElements(f"expected a number after element {filled}")
        if filled + len(piece) > count:
            raise NotElements(f"shape {list(shape)} holds {count} elements, data has more")
        array[filled : filled + len(piece)] = _array(piece, datatype)
        filled += len(piece)
        if comma < 0:
            break
        start = comma + 1
    if filled != count:
        raise NotElements(f"shape {list(shape)} holds {count} elements, data has {filled}")
    return array.reshape(shape)


def from_list(flat: list[Any], datatype: str, shape: tuple[int, ...], count: int) -> Array:
    """The tensor that ``flat`` holds in row-major order; elements have the right JSON type already.

    Args:
        flat: the elements.
        datatype: their datatype.
        shape: shape of the tensor.
        count: number of elements in ``shape``.

    Raises:
        NotElements: wrong range or count.
    """
    if len(flat) != count:
        raise NotElements(f"shape {list(shape)} holds {count} elements, data has {len(flat)}")
    if datatype == "FP32" and 0 < count <= _PACKED_MAX:  # twice as fast as np.array for short lists
        try:
            return np.frombuffer(_floats(count).pack(*flat), _FP32).reshape(shape)
        except (OverflowError, struct.error) as error:
            raise NotElements(f"a value is out of range for {datatype}: {error}") from error
    return _array(flat, datatype).reshape(shape)


@lru_cache(maxsize=256)
def _floats(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}f")


def _flatten(nested: list[Any], shape: tuple[int, ...]) -> list[Any]:
    level: list[Any] = [nested]
    for depth, size in enumerate(shape):
        for part in level:
            if len(part) != size:
                raise NotElements(
                    f"shape {list(shape)} wants {size} entries in dimension {depth}, data has {len(part)}"
                )
        level = list(itertools.chain.from_iterable(level))
    return level


def _array(flat: list[Any], datatype: str) -> Array:
    dtype = DTYPES[datatype]
    try:
        with np.errstate(over="raise"):
            return np.array(flat, dtype=dtype)
    except (OverflowError, FloatingPointError) as error:
        raise NotElements(f"a value is out of range for {datatype}: {error}") from error


def from_bytes(data: bytes, offset: int, size_bytes: int, datatype: str, shape: tuple[int, ...]) -> Array:
    """The tensor in ``data[offset : offset + size_bytes]``. Shares memory with ``data`` where alignment allows it.

    Raises:
        NotElements: the byte count is not that of ``shape``, or BYTES are malformed.
    """
    dtype = DTYPES[datatype]
    count = math.prod(shape)
    if offset + size_bytes > len(data):
        raise NotElements(f"binary_data_size is {size_bytes}, {len(data) - offset} bytes are left")
    if datatype == "BYTES":
        return _strings(memoryview(data)[offset : offset + size_bytes], count).reshape(shape)
    if size_bytes != count * dtype.itemsize:
        raise NotElements(f"{datatype}{list(shape)} takes {count * dtype.itemsize} bytes, got {size_bytes}")
    if count == 0:
        return np.empty(shape, dtype)
    if datatype == "BOOL":
        truth: Array = np.frombuffer(data, np.uint8, count, offset) != 0
        return truth.reshape(shape)
    array = np.frombuffer(data, dtype, count, offset).reshape(shape)
    return array if offset % dtype.itemsize == 0 else array.copy()


def _strings(data: memoryview, count: int) -> Array:
    found: list[str] = []
    position = 0
    while position < len(data):
        if position + 4 > len(data):
            raise NotElements(f"BYTES element {len(found)} is cut off in its length")
        (length,) = _length.unpack_from(data, position)
        position += 4
        if position + length > len(data):
            raise NotElements(f"BYTES element {len(found)} claims {length} bytes, {len(data) - position} are left")
        found.append(_text(bytes(data[position : position + length]), len(found)))
        position += length
    if len(found) != count:
        raise NotElements(f"the shape holds {count} BYTES elements, data has {len(found)}")
    array = np.empty(count, dtype=object)
    array[:] = found
    return array


def _text(element: bytes, index: int) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError as error:
        raise NotElements(f"BYTES element {index} is not UTF-8, which ONNX strings are: {error}") from error


def to_json(array: Array) -> bytes:
    """``array`` as a flat JSON array, row-major. NaN and infinities become ``null``: JSON has no numbers for them."""
    return msgspec.json.encode(array.ravel().tolist())


def to_bytes(array: Array) -> bytes:
    """``array`` as raw little-endian bytes, row-major (the binary tensor data extension)."""
    if array.dtype.kind != "O":
        return array.tobytes()
    parts: list[bytes] = []
    for element in array.ravel():
        text = element.encode() if isinstance(element, str) else bytes(element)
        parts += (_length.pack(len(text)), text)
    return b"".join(parts)
