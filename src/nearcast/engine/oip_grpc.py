"""The Open Inference Protocol v2 in protocol buffers: one message to arrays, arrays to one message.

Decides what a well-formed message is, and how answers are written; what fits the model is judged by the codec of the
JSON form, :class:`~nearcast.engine.oip.InferCodec`. Tensors come as raw bytes or as typed contents
(:mod:`~nearcast.engine.oip_contents`) and go as the request had them; an answer with FP16, which has no typed form, is
raw. Refused with a message: a field given twice, which protobuf would take the last of, shared memory, classification.

Source: Open Inference Protocol v2, "GRPC" (numbers and types of the fields). Written by hand, because the generated
classes copy every tensor twice and would be the engine's only use of a library of their own (ADR 007).
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from nearcast.engine import datatypes
from nearcast.engine.datatypes import DTYPES, Array, NotElements
from nearcast.engine.layout import Field as Place
from nearcast.engine.layout import Layout, Part, Raw
from nearcast.engine.oip import LAYOUT_HEAD_MAX, LAYOUTS_MAX, PLATFORM, InferCodec, InferRequest
from nearcast.engine.oip_calls import PREFIX, check_prefix, framed
from nearcast.engine.oip_contents import CONTENTS, Described, array_of, to_contents, to_shape
from nearcast.engine.oip_input import refuse_extensions
from nearcast.engine.protobuf import (
    LEN,
    VARINT_MAX,
    Field,
    NotMessage,
    fields,
    packed_varints,
    signed,
    text,
    to_field,
    to_field_head,
)
from nearcast.engine.refusal import Refusal, invalid_request, invalid_tensor, model_mismatch
from nearcast.resources import wire
from nearcast.resources.release import Tensor

CACHED_MAX: Final = 1024
"""Inputs whose description is remembered, per model: clients say the same name, datatype and shape again and again."""
CACHED_BYTES: Final = 256
DIMENSIONS_MAX: Final = 64
"""Of a shape; numpy has no arrays of more."""
INLINE_MAX: Final = 128 * 1024
"""Bytes of typed contents, or of texts, that are read in the loop (about a millisecond)."""

Value = TypeVar("Value")


class GrpcCodec:
    """Reads inference messages for one model version and writes its answers.

    Args:
        codec: knows the model.
    """

    def __init__(self, codec: InferCodec) -> None:
        self._codec = codec
        self._described: dict[bytes, Described] = {}
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
        given: list[Described] = []
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

    def _learn(self, body: bytes, given: Described, raw: Field, request: InferRequest) -> None:
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

    def _input(self, body: bytes, field: Field) -> Described:
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

    def _describe(self, body: bytes, start: int, end: int) -> Described:
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
        described = Described(_text_of(body, seen, 1), _text_of(body, seen, 2), tuple(shape))
        refuse_extensions(described.name, [_key(body, one) for one in parameters])
        place = self._codec.place(described.name, described.datatype, described.shape)
        if place is not None:
            described.index, described.count = place
        if 5 in seen and seen[5][1] < seen[5][2]:
            described.contents = seen[5][1:]
        return described

    def _feeds(self, body: bytes, given: list[Described], raw: list[Field]) -> list[Array]:
        feeds: list[Any] = [None] * len(self._codec.signature.inputs)
        if raw and len(raw) != len(given):
            raise invalid_tensor(f"expected one of raw_input_contents for each of {len(given)} inputs, got {len(raw)}")
        for position, one in enumerate(given):
            if one.index < 0:
                raise self._codec.wrong_inputs([each.name for each in given])
            if feeds[one.index] is not None:
                raise invalid_tensor(f"input {one.name!r} is given twice", param="inputs")
            try:
                feeds[one.index] = array_of(body, one, raw[position] if raw else None)
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
            outputs[index].datatype not in CONTENTS for index, _ in request.outputs
        )
        parts = [b"", self._names]
        if request.id is not None:
            parts.append(to_field(3, request.id.encode()))
        tail: list[bytes] = []
        for index, _ in request.outputs:
            array = results[index]
            described = self._heads[index] + to_shape(array.shape)
            if raw:
                data = datatypes.to_bytes(array) if array.dtype.kind == "O" else results.raw(index)
                tail += (to_field_head(6, len(data)), data)
            else:
                described += to_field(5, to_contents(array, outputs[index].datatype))
            parts.append(to_field(5, described))
        parts += tail
        parts[0] = b"\0" + sum(map(len, parts)).to_bytes(4, "big")
        return b"".join(parts)

    def metadata(self) -> bytes:
        """The ModelMetadataResponse, with its prefix."""

        def tensors(number: int, these: tuple[Tensor, ...]) -> bytes:
            described = [to_field(1, one.name.encode()) + to_field(2, one.datatype.encode()) for one in these]
            shapes = [to_shape(one.shape) for one in these]
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
    if field[0] & 7 != LEN:
        raise NotMessage(f"field {number} has the wire type {field[0] & 7}, expected {LEN}")
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
