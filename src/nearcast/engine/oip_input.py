"""One input of a request of the Open Inference Protocol v2: what the model expects of it, and its elements.

Decides whether an input has the datatype and shape that the signature asks for, and where its data stands: in the JSON,
or as raw bytes behind it (binary tensor data extension). Which inputs there must be is the codec's to decide
(:class:`~nearcast.engine.oip.InferCodec`), what elements are is decided in :mod:`~nearcast.engine.datatypes`.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from nearcast.engine import datatypes
from nearcast.engine.datatypes import DTYPES, ELEMENTS, Array, NotElements
from nearcast.engine.refusal import invalid_request, invalid_tensor
from nearcast.resources.release import Tensor

ROWS_MAX: Final = 2**40
"""Sizes from here on are refused as not fitting: no body holds them, and numpy has limits of its own."""
NAMED_MAX: Final = 64
"""Inputs, or sizes of a shape, that an error names: a caller may have sent millions."""

Data = TypeVar("Data")


class GivenInput(msgspec.Struct, Generic[Data]):
    """One input as a request gives it."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Data = None  # type: ignore[assignment]  # absent; not "Data | None", which msgspec.Raw cannot be part of
    parameters: dict[str, Any] | None = None


class ExpectedInput:
    """One input of the signature, with what is asked of it for every request worked out once."""

    __slots__ = ("datatype", "element", "index", "shape", "tail", "tail_count", "tensor")

    def __init__(self, index: int, tensor: Tensor) -> None:
        self.index = index
        self.tensor = tensor
        self.datatype = tensor.datatype
        self.element = ELEMENTS[DTYPES[tensor.datatype].kind]
        self.shape = tensor.shape
        only_batch = tensor.shape[:1] == (-1,) and -1 not in tensor.shape[1:]
        self.tail = tensor.shape[1:] if only_batch else None
        self.tail_count = math.prod(tensor.shape[1:])

    def count(self, given: GivenInput[Any]) -> int:
        """Number of elements of ``given``.

        Raises:
            Refusal: status 400: not the datatype or shape that is expected.
        """
        shape = given.shape
        if given.datatype == self.datatype:
            if self.tail is not None and shape[1:] == self.tail and len(shape) > 0 and 0 <= shape[0] < ROWS_MAX:
                return shape[0] * self.tail_count
            if _fits(shape, self.shape):
                return math.prod(shape)
            wrong = f"expected shape {list(self.shape)}, got {_shown(shape)}"
        else:
            wrong = f"expected datatype {self.datatype}, got {given.datatype!r}"
        raise invalid_tensor(f"input {given.name!r}: {wrong}", param=given.name)


def array_of_list(given: GivenInput[Any], count: int) -> Array:
    """The array of an input whose data is a flat JSON array of ``count`` elements.

    Raises:
        Refusal: status 400: they are not as many, or not of the datatype.
    """
    data: Any = given.data
    try:
        return datatypes.from_list(data, given.datatype, given.shape, count)
    except NotElements as error:
        raise invalid_tensor(f"input {given.name!r}: {error}", param=given.name) from error


def array_of(given: GivenInput[Any], count: int, body: bytes, position: int) -> tuple[Array, int]:
    """The array of any input, and the position behind the binary data that it used.

    Args:
        given: the input.
        count: number of its elements.
        body: the whole body of the request.
        position: where in it the binary data of this input begins, if it has any.

    Raises:
        Refusal: status 400: its data is missing, is there twice, or is not what it says to be.
    """
    size_bytes = _binary_size(given)
    data: Any = given.data
    if size_bytes is None and type(data) is list:
        return array_of_list(given, count), position
    try:
        if size_bytes is None:
            return datatypes.from_json(data, given.datatype, given.shape), position
        return datatypes.from_bytes(body, position, size_bytes, given.datatype, given.shape), position + size_bytes
    except NotElements as error:
        raise invalid_tensor(f"input {given.name!r}: {error}", param=given.name) from error


def refuse_extensions(name: str, parameters: Iterable[str]) -> None:
    """Refuse the tensor ``name`` when one of its ``parameters`` asks for an extension that we do not have."""
    for key in parameters:
        if key == "classification" or key.startswith("shared_memory"):
            raise invalid_request(f"{name!r}: the extension of parameter {key!r} is not supported here")


def describe(tensor: Tensor) -> str:
    """``tensor`` in the words of error messages: ``x: FP32[-1, 4]``."""
    return f"{tensor.name}: {tensor.datatype}{list(tensor.shape)}"


def _binary_size(given: GivenInput[Any]) -> int | None:
    """Bytes of binary data that belong to an input, or None where its data stands in the JSON."""
    size: object = None
    if given.parameters:
        refuse_extensions(given.name, given.parameters)
        size = given.parameters.get("binary_data_size")
    if size is None:
        if given.data is None:
            raise invalid_tensor(f"input {given.name!r}: expected data or binary_data_size, got neither")
        return None
    if type(size) is not int or size < 0:
        raise invalid_tensor(f"input {given.name!r}: binary_data_size must be a byte count, got {size!r}")
    if given.data is not None:
        raise invalid_tensor(f"input {given.name!r}: expected data or binary_data_size, got both")
    return size


def _fits(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    if len(shape) != len(expected):
        return False
    for size, wanted in zip(shape, expected, strict=True):
        if size < 0 or wanted not in {-1, size}:
            return False
    return math.prod(shape) < ROWS_MAX and max(shape, default=0) < ROWS_MAX


def _shown(shape: Sequence[int]) -> str:
    """A shape in the words of error messages."""
    return str([*shape]) if len(shape) <= NAMED_MAX else f"{len(shape)} sizes"
