"""The Open Inference Protocol v2 in protocol buffers: one message to arrays, arrays to one message.

Decides what a well-formed message is, and how answers are written; what fits the model is judged by the codec of the
JSON form, :class:`~nearcast.engine.oip.InferCodec`. Tensors come as raw bytes or as typed contents and go as the
request had them; FP16 has no typed form, so that an answer with one is raw. Raw bytes are not copied where alignment
allows it. Refused with a message: a field given twice, which protobuf would take the last of, shared memory,
classification.

Source: Open Inference Protocol v2, "GRPC" (numbers and types of the fields). Written by hand, because the generated
classes copy every tensor twice and would be the engine's only use of a library of their own (ADR 007).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, TypeVar

import numpy as np

from nearcast import __version__
from nearcast.engine import datatypes
from nearcast.engine.datatypes import DTYPES, Array, NotElements
from nearcast.engine.layout import Field as Place
from nearcast.engine.layout import Layout, Part, Raw
from nearcast.engine.oip import (
    EXTENSIONS,
    LAYOUT_HEAD_MAX,
    LAYOUTS_MAX,
    PLATFORM,
    InferCodec,
    InferRequest,
)
from nearcast.engine.oip_input import refuse_extensions
from nearcast.engine.protobuf import (
    FIELDS_MAX,
    VARINT_MAX,
    Field,
    NotMessage,
    fields,
    packed_varints,
    signed,
    text,
    to_field,
    to_field_head,
    to_packed_varints,
)
from nearcast.engine.refusal import Refusal, invalid_request, invalid_tensor, model_mismatch, unsupported
from nearcast.resources import wire
from nearcast.resources.release import Tensor

PREFIX: Final = wire.GRPC_PREFIX_BYTES
CACHED_MAX: Final = 1024
"""Inputs whose description is remembered, per model: clients say the same name, datatype and shape again and again."""
CACHED_BYTES: Final = 256
DIMENSIONS_MAX: Final = 64
"""Of a shape; numpy has no arrays of more."""
INLINE_MAX: Final = 128 * 1024
"""Bytes of typed contents, or of texts, that are read in the loop (about a millisecond)."""

_BYTES = 2
_CONTENTS: Final = {
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

Value = TypeVar("Value")


class _Described:
    """An input as its message describes it: which one, and where its typed contents are, if it has any."""

    __slots__ = ("contents", "count", "datatype", "index", "name", "shape")

    def __init__(self, name: str, datatype: str, shape: tuple[int, ...]) -> None:
        self.name = name
        self.datatype = datatype
        self.shape = shape
        self.index = -1
        self.count = 0
        self.contents: tuple[int, int] | None = None


class GrpcCodec:
    """Reads inference messages for one model version and writes its answers.

    Args:
        codec: knows the model.
    """

    def __init__(self, codec: InferCodec) -> None:
        self._codec = codec
        self._described: dict[bytes, _Described] = {}
        self._layouts: dict[bytes, Layout] = {}
        self._head_bytes: dict[int, int] = {}
        """Size of a body -> size of what stood before the tensor of the last one of that size."""
        self._answers: dict[tuple[object, ...], bytes] = {}
        outputs = codec.signature.outputs
        self._all_raw = tuple((index, True) for index in range(len(outputs)))
        self._all_typed = tuple((index, False) for index in range(len(outputs)))
        self._names = to_field(1, codec.model.encode()) + to_field(2, codec.version.encode())
        self._heads = [to_field(1, one.name.encode()) + to_field(2, one.datatype.encode()) for one in outputs]

    # --- reading -------------------------------------------------------------------------------------------------

    def parse(self, body: bytes) -> InferRequest:
        """The request in ``body``, a ModelInferRequest behind its prefix.

        Raises:
            Refusal: status 400, with what was expected and what came; 404: another version; 501: it is compressed.
        """
        head_bytes = self._head_bytes.get(len(body))
        if head_bytes is not None:
            layout = self._layouts.get(body[:head_bytes])
            if layout is not None and layout.body_bytes == len(body):
                return InferRequest(Raw(layout, body), None, layout.outputs, layout.rows)
        check_prefix(body)
        return _read("a ModelInferRequest", self._parse, body)

    def takes_long(self, body: bytes) -> bool:
        """Whether reading ``body`` costs by its elements, of which it has many, so that the loop must not wait."""
        if len(body) <= INLINE_MAX:
            return False
        if self._codec.has_texts:
            return True
        try:
            found = fields(body, PREFIX, len(body))
        except NotMessage:
            return False
        return sum(end - start for tag, start, end in found if tag == 0x2A) > INLINE_MAX

    def _parse(self, body: bytes) -> InferRequest:
        given: list[_Described] = []
        raw: list[Field] = []
        wanted: list[Field] = []
        seen: dict[int, Field] = {}
        for field in fields(body, PREFIX, len(body)):
            tag = field[0]
            if tag == 0x2A:
                given.append(self._input(body, field))
            elif tag == 0x3A:
                raw.append(field)
            elif tag == 0x32:
                wanted.append(field)
            elif tag != 0x22:  # parameters of the whole request: none of them changes anything here
                _once(seen, field, 7)
        self._check_names(body, seen)
        feeds = self._feeds(body, given, raw)
        identity = _text_of(body, seen, 3) or None
        typed = not raw and any(one.contents is not None for one in given)
        outputs = self._all_typed if typed else self._all_raw
        if wanted:
            indexes: dict[int, bool] = {}
            for field in wanted:
                indexes[self._output(body, field, indexes)] = not typed
            outputs = tuple(indexes.items())
        request = InferRequest(feeds, identity, outputs, self._codec.rows(feeds))
        if identity is None and len(raw) == 1:
            self._learn(body, given[0], raw[0], request)
        return request

    def _learn(self, body: bytes, given: _Described, raw: Field, request: InferRequest) -> None:
        """Remember what stands before the tensor, where it is one tensor and comes last: it will be sent again."""
        _, start, end = raw
        if end != len(body) or start == end or start > LAYOUT_HEAD_MAX or given.datatype in {"BOOL", "BYTES"}:
            return
        if len(self._layouts) >= LAYOUTS_MAX or len(self._head_bytes) >= LAYOUTS_MAX:
            self._layouts.clear()
            self._head_bytes.clear()
        self._head_bytes[len(body)] = start
        self._layouts[body[:start]] = Layout(
            fields=(Place(DTYPES[given.datatype], given.shape, start, end),),
            body_bytes=len(body),
            rows=request.rows,
            outputs=request.outputs,
            trailing=given.shape[1:],
            size_bytes=end - start,
        )

    def _check_names(self, body: bytes, seen: dict[int, Field]) -> None:
        codec = self._codec
        name, version = _text_of(body, seen, 1), _text_of(body, seen, 2)
        if name != codec.model:
            raise model_mismatch(f"expected model_name {codec.model!r}, got {name!r}")
        if version and version != codec.version:
            raise _other_version(codec, version)

    def _input(self, body: bytes, field: Field) -> _Described:
        """What the InferInputTensor in ``field`` describes."""
        _, start, end = field
        if end - start > CACHED_BYTES:
            return self._describe(body, start, end)
        piece = body[start:end]
        known = self._described.get(piece)
        if known is None:
            known = self._describe(body, start, end)
            if known.contents is None:
                if len(self._described) >= CACHED_MAX:
                    self._described.clear()
                self._described[piece] = known
        return known

    def _describe(self, body: bytes, start: int, end: int) -> _Described:
        seen: dict[int, Field] = {}
        shape: list[int] = []
        parameters: list[Field] = []
        for field in fields(body, start, end):
            tag, first, last = field
            if tag == 0x1A:
                _few(last - first, DIMENSIONS_MAX * VARINT_MAX)
                shape += map(signed, packed_varints(body, first, last).tolist())
                _few(len(shape), DIMENSIONS_MAX)
            elif tag == 0x18:
                shape.append(signed(first))
                _few(len(shape), DIMENSIONS_MAX)
            elif tag == 0x22:
                parameters.append(field)
            else:
                _once(seen, field, 5)
        described = _Described(_text_of(body, seen, 1), _text_of(body, seen, 2), tuple(shape))
        refuse_extensions(described.name, [_key(body, one) for one in parameters])
        place = self._codec.place(described.name, described.datatype, described.shape)
        if place is not None:
            described.index, described.count = place
        if 5 in seen and seen[5][1] < seen[5][2]:
            described.contents = seen[5][1:]
        return described

    def _feeds(self, body: bytes, given: list[_Described], raw: list[Field]) -> list[Array]:
        feeds: list[Any] = [None] * len(self._codec.signature.inputs)
        if raw and len(raw) != len(given):
            raise invalid_tensor(f"expected one of raw_input_contents for each of {len(given)} inputs, got {len(raw)}")
        for position, one in enumerate(given):
            if one.index < 0:
                raise self._codec.wrong_inputs([each.name for each in given])
            if feeds[one.index] is not None:
                raise invalid_tensor(f"input {one.name!r} is given twice", param="inputs")
            try:
                feeds[one.index] = _array(body, one, raw[position] if raw else None)
            except NotElements as error:
                raise invalid_tensor(f"input {one.name!r}: {error}", param=one.name) from error
        if len(given) != len(feeds):
            raise self._codec.wrong_inputs([each.name for each in given])
        return feeds

    def _output(self, body: bytes, field: Field, taken: dict[int, bool]) -> int:
        seen: dict[int, Field] = {}
        keys: list[str] = []
        for part in fields(body, field[1], field[2]):
            if part[0] == 0x12:
                keys.append(_key(body, part))
            else:
                _once(seen, part, 2)
        name = _text_of(body, seen, 1)
        refuse_extensions(name, keys)
        return self._codec.output(name, taken)

    # --- writing -------------------------------------------------------------------------------------------------

    def encode(self, request: InferRequest, results: Part) -> bytes:
        """The ModelInferResponse that answers ``request``, with its prefix.

        Args:
            request: what was asked.
            results: one array per output of the signature, in its order.
        """
        if request.id is not None or len(request.outputs) != 1:
            return self._encode(request, results)
        index, raw = request.outputs[0]
        if not raw or self._codec.signature.outputs[index].datatype == "BYTES":
            return self._encode(request, results)
        key = index, results.end - results.start, results.results.shapes
        head = self._answers.get(key)
        data = results.raw(index)
        if head is None:
            message = self._encode(request, results)
            if len(self._answers) >= LAYOUTS_MAX:
                self._answers.clear()
            self._answers[key] = message[: len(message) - len(data)]
            return message
        return head + data

    def _encode(self, request: InferRequest, results: Part) -> bytes:
        outputs = self._codec.signature.outputs
        raw = any(as_raw for _, as_raw in request.outputs) or any(
            outputs[index].datatype not in _CONTENTS for index, _ in request.outputs
        )
        parts = [b"", self._names]
        if request.id is not None:
            parts.append(to_field(3, request.id.encode()))
        tail: list[bytes] = []
        for index, _ in request.outputs:
            array = results[index]
            described = self._heads[index] + _shape(array.shape)
            if raw:
                data = datatypes.to_bytes(array) if array.dtype.kind == "O" else results.raw(index)
                tail += (to_field_head(6, len(data)), data)
            else:
                described += to_field(5, _contents(array, outputs[index].datatype))
            parts.append(to_field(5, described))
        parts += tail
        parts[0] = b"\0" + sum(map(len, parts)).to_bytes(4, "big")
        return b"".join(parts)

    def metadata(self) -> bytes:
        """The ModelMetadataResponse, with its prefix."""

        def tensors(number: int, these: tuple[Tensor, ...]) -> bytes:
            described = [to_field(1, one.name.encode()) + to_field(2, one.datatype.encode()) for one in these]
            shapes = [_shape(one.shape) for one in these]
            return b"".join(to_field(number, each + shape) for each, shape in zip(described, shapes, strict=True))

        codec = self._codec
        return framed(
            self._names
            + to_field(3, PLATFORM.encode())
            + tensors(4, codec.signature.inputs)
            + tensors(5, codec.signature.outputs)
        )

    def check_model(self, body: bytes) -> None:
        """Refuse ``body``, a ModelReadyRequest or ModelMetadataRequest, when it names another model.

        Raises:
            Refusal: status 400: not such a message, or another model; 404: another version; 501: it is compressed.
        """
        check_prefix(body)
        _read("a request for a model", self._check_model, body)

    def _check_model(self, body: bytes) -> None:
        seen: dict[int, Field] = {}
        for field in fields(body, PREFIX, len(body)):
            _once(seen, field, 2)
        self._check_names(body, seen)


def check_prefix(body: bytes) -> None:
    """Refuse ``body`` unless it is the prefix of exactly one message, and that message.

    Raises:
        Refusal: status 400, or 501 when the message is compressed.
    """
    if len(body) < PREFIX:
        raise invalid_request(f"expected one gRPC message, got {len(body)} bytes")
    if body[0] != 0:
        raise unsupported(501, "compressed messages are not supported: send them as they are (identity)")
    size = int.from_bytes(body[1:PREFIX], "big")
    if size != len(body) - PREFIX:
        raise invalid_request(f"expected one gRPC message of {size} bytes, got {len(body) - PREFIX}")


def framed(message: bytes) -> bytes:
    """``message`` behind its prefix."""
    return b"\0%b%b" % (len(message).to_bytes(4, "big"), message)


def truth() -> bytes:
    """A message whose field 1 is true, with its prefix: ServerLive, ServerReady and ModelReady answer so."""
    return framed(b"\x08\x01")


def server_answers() -> dict[bytes, bytes]:
    """Answers to the calls that name no model, by path, with their prefix."""
    extensions = b"".join(to_field(3, one.encode()) for one in EXTENSIONS)
    metadata = framed(to_field(1, b"nearcast") + to_field(2, __version__.encode()) + extensions)
    return {path("ServerLive"): truth(), path("ServerReady"): truth(), path("ServerMetadata"): metadata}


def path(method: str) -> bytes:
    """The path of a method of the protocol's service."""
    return f"{wire.GRPC_SERVICE_PATH}{method}".encode()


def _read(what: str, read: Callable[[bytes], Value], body: bytes) -> Value:
    try:
        return read(body)
    except NotMessage as error:
        raise invalid_request(f"not {what}: {error}") from error


def _few(count: int, most: int) -> None:
    """Refuse a shape with more of something than ``most``, before time is spent on it."""
    if count > most:
        raise NotMessage(f"a shape has more than {DIMENSIONS_MAX} dimensions")


def _once(seen: dict[int, Field], field: Field, known: int) -> None:
    """Note a field that has a length and may stand there once; skip fields of numbers that are not ``known``."""
    number = field[0] >> 3
    if number > known:
        return
    if field[0] & 7 != _BYTES:
        raise NotMessage(f"field {number} has the wire type {field[0] & 7}, expected {_BYTES}")
    if number in seen:
        raise NotMessage(f"field {number} stands there twice")
    seen[number] = field


def _text_of(body: bytes, seen: dict[int, Field], number: int) -> str:
    field = seen.get(number)
    return "" if field is None else text(body, field[1], field[2])


def _key(body: bytes, field: Field) -> str:
    """The key of an entry of a map."""
    seen: dict[int, Field] = {}
    for part in fields(body, field[1], field[2]):
        _once(seen, part, 2)
    return _text_of(body, seen, 1)


def _other_version(codec: InferCodec, version: str) -> Refusal:
    here = wire.model_at(codec.model, codec.version)
    return Refusal(404, wire.CODE_MODEL_NOT_FOUND, f"expected {here}, the message names version {version!r}")


def _array(body: bytes, given: _Described, raw: Field | None) -> Array:
    if raw is not None:
        if given.contents is not None:
            raise NotElements("expected contents or raw_input_contents, got both")
        return datatypes.from_bytes(body, raw[1], raw[2] - raw[1], given.datatype, given.shape)
    if given.contents is None:
        if given.count:
            raise NotElements("expected contents or raw_input_contents, got neither")
        return np.empty(given.shape, DTYPES[given.datatype])
    number = _CONTENTS.get(given.datatype)
    if number is None:
        raise NotElements(f"{given.datatype} has no typed contents: send it in raw_input_contents")
    is_text = number == _CONTENTS["BYTES"]  # the only one with a field per element: numbers are packed
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
    packed = packed_varints(body, start, end) if tag & 7 == _BYTES else np.array([start], np.uint64)
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


def _contents(array: Array, datatype: str) -> bytes:
    """InferTensorContents with the elements of ``array``."""
    number = _CONTENTS[datatype]
    if datatype == "BYTES":
        texts = [one.encode() if isinstance(one, str) else bytes(one) for one in array.ravel()]
        return b"".join(to_field(number, one) for one in texts)
    return to_field(number, array.tobytes() if number in _FIXED else to_packed_varints(array))


@lru_cache(maxsize=1024)
def _shape(shape: tuple[int, ...]) -> bytes:
    return to_field(3, to_packed_varints(np.array(shape, np.int64)))
