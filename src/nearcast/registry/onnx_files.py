"""Which other files an ONNX model keeps its weights in, read from the model without any ONNX library.

An ONNX file is a protocol buffer; tensors with ``data_location = EXTERNAL`` name their file under the key
``location``. Only the few fields on the way there are walked (onnx.proto, IR version 10); the rest is skipped without
being copied. The runtime reads the model itself; this is only for the list of files.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from nearcast.errors import InvalidInput

# Field numbers of onnx.proto: message -> field -> what it holds.
GRAPH, TENSOR, NODE, ATTRIBUTE, FUNCTION, SPARSE = "graph", "tensor", "node", "attribute", "function", "sparse"
CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: GRAPH, 25: FUNCTION},
    GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
    FUNCTION: {7: NODE, 11: ATTRIBUTE},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
    SPARSE: {1: TENSOR, 2: TENSOR},
}
EXTERNAL_DATA, KEY, VALUE = 13, 1, 2
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
WAY_OUT = "name the .onnx file, or the folder that holds it; other formats are exported to ONNX first"


def external_files(model: Path) -> tuple[str, ...]:
    """Paths, relative to the model's folder, of the files that its weights lie in.

    Raises:
        InvalidInput: the file is not a protocol buffer, or names a path that leads elsewhere.
    """
    if model.stat().st_size == 0:
        raise InvalidInput(f"expected an ONNX model, {model.name} is empty", hint=WAY_OUT)
    with model.open("rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        found = sorted(set(_locations(view, "model")))
    except (IndexError, ValueError, RecursionError) as error:
        raise InvalidInput(f"expected an ONNX model, {model.name} is not one: {error}", hint=WAY_OUT) from error
    for name in found:
        if name.startswith("/") or "\\" in name or {"", ".."} & set(name.split("/")):
            raise InvalidInput(f"{model.name} keeps weights in {name!r}: expected a file beside or below it")
    return tuple("/".join(part for part in name.split("/") if part != ".") for name in found)


def _locations(view: memoryview, message: str) -> Iterator[str]:
    for number, body in _fields(view):
        if message == TENSOR and number == EXTERNAL_DATA:
            entry = {key: bytes(value) for key, value in _fields(body)}
            if entry.get(KEY) == b"location":
                yield entry.get(VALUE, b"").decode()
        child = CHILDREN.get(message, {}).get(number)
        if child is not None:
            yield from _locations(body, child)


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Field number and content of each length-delimited field; the others are stepped over."""
    position, end = 0, len(view)
    while position < end:
        tag, position = _varint(view, position)
        kind = tag & 7
        if kind == VARINT:
            _, position = _varint(view, position)
        elif kind in {FIXED64, FIXED32}:
            position += 8 if kind == FIXED64 else 4
        elif kind == BYTES:
            size, position = _varint(view, position)
            if position + size > end:
                raise ValueError("a field is longer than what holds it")
            yield tag >> 3, view[position : position + size]
            position += size
        else:
            raise ValueError(f"unknown wire type {kind}")


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")
