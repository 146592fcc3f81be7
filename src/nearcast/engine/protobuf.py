"""The wire format of protocol buffers: messages to fields, and fields to bytes. Knows no message of its own.

Decides what is well-formed. What fields mean, and which must be there, is decided by who reads them. Nothing is copied:
a field is told by where it lies. Numbers in packed form are read and written by numpy, never one by one.

Source: protobuf.dev, "Encoding". Stricter than most readers: groups, which nobody has used for years, are refused.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

FIELDS_MAX: Final = 4096
"""Fields of one message: what a body of the largest size might hold would keep the loop busy for seconds."""

_VARINT: Final = 0
_FIXED64: Final = 1
LEN: Final = 2
"""Wire type of whatever has a length."""
_FIXED32: Final = 5
_SIZES: Final = {_FIXED64: 8, _FIXED32: 4}
VARINT_MAX: Final = 10
"""Bytes of the longest varint."""
_PIECE: Final = 1024 * 1024
"""Packed numbers are read by so many bytes: every step holds the interpreter, and takes a multiple in memory."""

Field = tuple[int, int, int]
"""Tag (number and wire type as they stand on the wire), and where the value begins and ends.

For a varint the second number is the value, and the third is meaningless.
"""


class NotMessage(ValueError):
    """Bytes that are no message; says what is wrong, and where."""


def tag_of(number: int, wire_type: int) -> int:
    """The tag of field ``number``: wire type 0 for varints, 2 for whatever has a length."""
    return number << 3 | wire_type


def fields(data: bytes, at: int, end: int, most: int = FIELDS_MAX) -> list[Field]:
    """The fields of the message in ``data[at:end]``, in the order in which they stand there.

    Raises:
        NotMessage: it is cut off, has a field of an unknown kind, or more than ``most``.
    """
    found: list[Field] = []
    while at < end:
        tag = data[at]
        if tag < 0x80:
            at += 1
        else:
            tag, at = varint(data, at, end)
        kind = tag & 7
        if tag < 8:
            raise NotMessage(f"a field has the number 0, at byte {at}")
        if len(found) == most:
            raise NotMessage(f"it has more than {most} fields")
        if kind == LEN:
            if at < end and data[at] < 0x80:
                size = data[at]
                at += 1
            else:
                size, at = varint(data, at, end)
            start, at = at, at + size
            found.append((tag, start, at))
        elif kind == _VARINT:
            value, at = varint(data, at, end)
            found.append((tag, value, 0))
        elif kind in _SIZES:
            start, at = at, at + _SIZES[kind]
            found.append((tag, start, at))
        else:
            raise NotMessage(f"field {tag >> 3} has the wire type {kind}, which is not in use")
        if at > end:
            raise NotMessage(f"field {tag >> 3} ends {at - end} bytes behind the end of its message")
    return found


def varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The varint that begins at ``at``, and where it ends.

    Raises:
        NotMessage: it is cut off or too long.
    """
    value = shift = 0
    for position in range(at, min(end, at + VARINT_MAX)):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position + 1
        shift += 7
    raise NotMessage(f"a number is cut off or too long, at byte {at}")


def signed(value: int) -> int:
    """A varint read as int64."""
    return value - (1 << 64) if value >> 63 else value


def text(data: bytes, start: int, end: int) -> str:
    """The string in ``data[start:end]``.

    Raises:
        NotMessage: not UTF-8.
    """
    try:
        return data[start:end].decode()
    except UnicodeDecodeError as error:
        raise NotMessage(f"a string is not UTF-8: {error}") from error


def packed_varints(data: bytes, start: int, end: int) -> npt.NDArray[np.uint64]:
    """The packed varints in ``data[start:end]``.

    Raises:
        NotMessage: one is cut off or too long.
    """
    raw = np.frombuffer(data, np.uint8, end - start, start)
    pieces = []
    while len(raw) > _PIECE:
        ends = np.flatnonzero(raw[_PIECE - VARINT_MAX : _PIECE] < 0x80)
        if not len(ends):
            raise NotMessage("packed numbers are cut off or too long")
        cut = _PIECE - VARINT_MAX + int(ends[-1]) + 1
        pieces.append(_varints(raw[:cut]))
        raw = raw[cut:]
    pieces.append(_varints(raw))
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _varints(raw: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    lasts = np.flatnonzero(raw < 0x80)
    if len(lasts) == len(raw):
        return raw.astype(np.uint64)
    firsts = np.empty_like(lasts)
    firsts[:1] = 0
    firsts[1:] = lasts[:-1] + 1
    lengths = lasts - firsts + 1
    if raw[-1] >= 0x80 or lengths.max() > VARINT_MAX:
        raise NotMessage("packed numbers are cut off or too long")
    values = np.zeros(len(lasts), np.uint64)
    for index in range(int(lengths.max())):
        longer = lengths > index
        group = (raw[firsts[longer] + index] & 0x7F).astype(np.uint64)
        values[longer] |= group << np.uint64(7 * index)
    return values


def to_packed_varints(values: npt.NDArray[Any]) -> bytes:
    """``values`` (integers or booleans) as packed varints; negative ones take ten bytes, as the format wants it."""
    if values.dtype.kind == "i":
        values = values.astype(np.int64)
    unsigned = values.astype(np.uint64).ravel()
    if unsigned.size == 0 or unsigned.max() < 0x80:
        return unsigned.astype(np.uint8).tobytes()
    lengths = np.ones(unsigned.size, np.int64)
    for bits in range(7, 64, 7):
        lengths += unsigned >= np.uint64(1 << bits)
    firsts = np.cumsum(lengths) - lengths
    written = np.empty(int(lengths.sum()), np.uint8)
    for index in range(int(lengths.max())):
        longer = lengths > index
        group = (unsigned[longer] >> np.uint64(7 * index)) & np.uint64(0x7F)
        more = (lengths[longer] > index + 1).astype(np.uint8) << 7
        written[firsts[longer] + index] = group.astype(np.uint8) | more
    return written.tobytes()


def to_varint(value: int) -> bytes:
    """``value`` (not negative) as a varint."""
    if value < 0x80:
        return bytes((value,))
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def to_field(number: int, value: bytes) -> bytes:
    """Field ``number`` with a string, bytes, a message, or packed numbers."""
    return b"%b%b%b" % (to_varint(tag_of(number, LEN)), to_varint(len(value)), value)


def to_field_head(number: int, size: int) -> bytes:
    """What stands before ``size`` bytes that are field ``number``."""
    return to_varint(tag_of(number, LEN)) + to_varint(size)
