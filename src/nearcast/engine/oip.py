"""The Open Inference Protocol v2 over REST, as bytes in and bytes out: no sockets, no model runs here.

Decides what a well-formed inference request is and how an answer is written, in JSON and with the binary tensor data
extension. Every way of being wrong is a :class:`~nearcast.engine.refusal.Refusal` with status 400 that says what was
expected and what came. Not supported, and refused with a message: shared memory, classification.
"""

import math
from collections.abc import Container, Sequence
from functools import lru_cache
from typing import Any, Final, Generic

import msgspec

from nearcast.engine import datatypes
from nearcast.engine.datatypes import DTYPES, Array
from nearcast.engine.layout import Field, Layout, Part, Raw
from nearcast.engine.oip_input import (
    NAMED_MAX,
    Data,
    ExpectedInput,
    GivenInput,
    array_of,
    array_of_list,
    describe,
    refuse_extensions,
)
from nearcast.engine.refusal import Refusal, invalid_request, invalid_tensor, model_mismatch
from nearcast.resources import wire
from nearcast.resources.release import Signature, Tensor

EXTENSIONS: Final = ("binary_tensor_data",)
PLATFORM: Final = "onnxruntime_onnx"
LAYOUTS_MAX: Final = 256
"""Heads of binary bodies, and of answers, that are remembered; a new one when all are taken begins anew."""
LAYOUT_HEAD_MAX: Final = 4096


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Body(msgspec.Struct, Generic[Data]):
    inputs: list[GivenInput[Data]]
    id: str | None = None
    model_name: str | None = None
    model_version: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[_Output] | None = None


Outputs = tuple[tuple[int, bool], ...]


class InferRequest(msgspec.Struct, frozen=True):
    """A request that fits the signature.

    Attributes:
        feeds: one array per input of the signature, in its order, or the bytes that hold them.
        id: the caller's id, to be echoed, or None.
        outputs: (index in the signature, wanted as raw bytes) in the order wanted.
        rows: size of dimension 0, where that is the batch; else 1.
    """

    feeds: list[Array] | Raw
    id: str | None
    outputs: Outputs
    rows: int


class InferCodec:
    """Reads inference requests for one model version and writes its answers.

    Args:
        model: name of the model.
        version: its version.
        signature: what goes in and what comes out.
        batched: whether dimension 0 of every input is the batch.
        pad: whether rows of different widths may share a batch.
    """

    def __init__(
        self, model: str, version: str, signature: Signature, *, batched: bool = False, pad: bool = False
    ) -> None:
        self._batched = batched
        self.has_texts = any(tensor.datatype == "BYTES" for tensor in signature.inputs)
        self._pad = pad
        self._layouts: dict[bytes, Layout] = {}
        self._documents: dict[tuple[object, ...], bytes] = {}
        self.model = model
        self.version = version
        self.signature = signature
        self._inputs = {tensor.name: ExpectedInput(index, tensor) for index, tensor in enumerate(signature.inputs)}
        self._decoder = msgspec.json.Decoder(_Body[msgspec.Raw])
        elements = {expected.element for expected in self._inputs.values()}
        uniform: Any = list[elements.pop()] if len(elements) == 1 else msgspec.Raw  # type: ignore[misc]
        self._uniform_decoder = msgspec.json.Decoder(_Body[uniform])
        """Reads flat data of one element type in a single pass: the common case. The other one says what is wrong."""
        self._outputs = {tensor.name: index for index, tensor in enumerate(signature.outputs)}
        self._all_json = tuple((index, False) for index in range(len(signature.outputs)))
        self._all_binary = tuple((index, True) for index in range(len(signature.outputs)))
        names = msgspec.json.encode({"model_name": model, "model_version": version})
        self._prefix = names[:-1] + b","
        self._output_prefix = [
            b'{"name":%b,"datatype":"%b","shape":' % (msgspec.json.encode(tensor.name), tensor.datatype.encode())
            for tensor in signature.outputs
        ]

    # --- reading -------------------------------------------------------------------------------------------------

    def parse(self, body: bytes, json_length: int | None) -> InferRequest:
        """The request in ``body``.

        Args:
            body: the whole body.
            json_length: value of ``inference-header-content-length``: bytes of JSON, the rest is binary; or None.

        Raises:
            Refusal: status 400, with what was expected and what came.
        """
        if json_length is not None:
            layout = self._layouts.get(body[:json_length])
            if layout is not None and layout.body_bytes == len(body):
                return InferRequest(Raw(layout, body), None, layout.outputs, layout.rows)
        return self._parse(body, json_length)

    def parse_large(self, body: bytes, json_length: int | None) -> InferRequest:
        """As :meth:`parse`, on a thread: never holds the interpreter for long, and takes longer by that."""
        return self._parse(body, json_length, in_pieces=True)

    def _parse(self, body: bytes, json_length: int | None, *, in_pieces: bool = False) -> InferRequest:
        document = body
        position = len(body)
        if json_length is not None:
            if not 0 <= json_length <= position:
                raise invalid_request(f"{wire.INFERENCE_HEADER_LENGTH} is {json_length}, the body has {position} bytes")
            document = body[:json_length]
            position = json_length
        parsed = self._document(document) if not in_pieces else self._generic_document(document)
        feeds: list[Any] = [None] * len(self._inputs)
        missing = len(feeds)
        for given in parsed.inputs:
            expected = self._inputs.get(given.name)
            if expected is None:
                raise self.wrong_inputs([one.name for one in parsed.inputs])
            index = expected.index
            if feeds[index] is not None:
                raise invalid_tensor(f"input {given.name!r} is given twice", param="inputs")
            count = expected.count(given)
            if given.parameters is None and type(given.data) is list:
                feeds[index] = array_of_list(given, count)
            else:
                feeds[index], position = array_of(given, count, body, position)
            missing -= 1
        if missing:
            raise self.wrong_inputs([one.name for one in parsed.inputs])
        if position != len(body):
            raise invalid_tensor(f"{len(body) - position} bytes at the end of the body belong to no input")
        rows = self.rows(feeds)
        outputs = self._all_json
        if (
            parsed.parameters is not None
            or parsed.outputs is not None
            or parsed.model_name is not None
            or parsed.model_version is not None
        ):
            self._check_names(parsed)
            outputs = self._wanted(parsed)
        request = InferRequest(feeds, parsed.id, outputs, rows)
        if json_length is not None and parsed.id is None and json_length <= LAYOUT_HEAD_MAX:
            self._learn(document, parsed.inputs, len(body), request)
        return request

    def rows(self, feeds: list[Array]) -> int:
        """Size of the batch dimension of ``feeds``; 1 for models that have none.

        Raises:
            Refusal: status 400: they disagree.
        """
        if not self._batched:
            return 1
        first = feeds[0].shape
        for feed in feeds[1:]:
            if feed.shape[0] != first[0] or (self._pad and feed.shape != first):
                shapes = ", ".join(str(list(each.shape)) for each in feeds)
                raise invalid_tensor(
                    f"expected inputs of the same {'shape' if self._pad else 'batch size'}, got {shapes}"
                )
        return int(first[0])

    def _learn(self, document: bytes, given: list[GivenInput[Any]], body_bytes: int, request: InferRequest) -> None:
        """Remember where the tensors of bodies that begin with ``document`` stand: their clients will send it again."""
        position = len(document)
        fields: list[Field | None] = [None] * len(given)
        for one in given:
            dtype = DTYPES[one.datatype]
            size_bytes = math.prod(one.shape) * dtype.itemsize
            if one.data is not None or one.datatype in {"BOOL", "BYTES"} or not size_bytes:
                return
            fields[self._inputs[one.name].index] = Field(dtype, one.shape, position, position + size_bytes)
            position += size_bytes
        shapes = tuple([one.shape[1:] for one in fields if one is not None])
        if len(self._layouts) >= LAYOUTS_MAX:
            self._layouts.clear()
        self._layouts[document] = Layout(
            fields=tuple([one for one in fields if one is not None]),
            body_bytes=body_bytes,
            rows=request.rows,
            outputs=request.outputs,
            trailing=shapes[0] if len(shapes) == 1 else shapes,
            size_bytes=body_bytes - len(document),
        )

    def _check_names(self, parsed: _Body[Any]) -> None:
        if parsed.model_name is not None and parsed.model_name != self.model:
            raise model_mismatch(f"expected model_name {self.model!r}, got {parsed.model_name!r}")
        if parsed.model_version is not None and parsed.model_version != self.version:
            raise model_mismatch(f"expected model_version {self.version!r}, got {parsed.model_version!r}")

    def _document(self, document: bytes) -> _Body[Any]:
        try:
            parsed: _Body[Any] = self._uniform_decoder.decode(document)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return self._generic_document(document)
        return parsed

    def _generic_document(self, document: bytes) -> _Body[Any]:
        try:
            parsed: _Body[Any] = self._decoder.decode(document)
        except msgspec.ValidationError as error:
            raise invalid_request(f"not an inference request: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise invalid_request(f"not JSON: {error}") from error
        except RecursionError as error:
            raise invalid_request("not an inference request: nested too deeply") from error
        for given in parsed.inputs:
            if given.data is not None and bytes(memoryview(given.data)[:5]) == b"null":
                given.data = None
        return parsed

    def place(self, name: str, datatype: str, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """Index and number of elements of the input ``name``, or None where the model has none of that name.

        Raises:
            Refusal: status 400: not the datatype or shape that is expected.
        """
        expected = self._inputs.get(name)
        return None if expected is None else (expected.index, expected.count(GivenInput(name, datatype, shape)))

    def wrong_inputs(self, names: Sequence[str]) -> Refusal:
        """What to tell somebody who gave the inputs ``names``, where others are expected."""
        expected = ", ".join(describe(tensor) for tensor in self.signature.inputs)
        got = ", ".join(map(repr, names[:NAMED_MAX])) or "none"
        if len(names) > NAMED_MAX:
            got += f" and {len(names) - NAMED_MAX} more"
        return invalid_tensor(f"{self.model} takes the inputs {expected}; got {got}", param="inputs")

    def _wanted(self, parsed: _Body[Any]) -> tuple[tuple[int, bool], ...]:
        binary = parsed.parameters is not None and _flag(parsed.parameters, "binary_data_output", default=False)
        if not parsed.outputs:
            return self._all_binary if binary else self._all_json
        wanted: dict[int, bool] = {}
        for output in parsed.outputs:
            index = self.output(output.name, wanted)
            if output.parameters:
                refuse_extensions(output.name, output.parameters)
            wanted[index] = _flag(output.parameters, "binary_data", default=binary)
        return tuple(wanted.items())

    def output(self, name: str, taken: Container[int]) -> int:
        """Index of the output ``name``.

        Raises:
            Refusal: status 400: the model has none of that name, or it is ``taken`` already.
        """
        index = self._outputs.get(name)
        if index is None:
            known = ", ".join(repr(name) for name in self._outputs)
            raise invalid_tensor(f"expected an output of {known}; got {name!r}", param="outputs")
        if index in taken:
            raise invalid_tensor(f"output {name!r} is asked for twice", param="outputs")
        return index

    # --- writing -------------------------------------------------------------------------------------------------

    def encode(self, request: InferRequest, results: Part) -> tuple[bytes, int | None]:
        """The body that answers ``request``, and the bytes of its JSON part, or None where all of it is JSON.

        Args:
            request: what was asked.
            results: one array per output of the signature, in its order.
        """
        if request.outputs is self._all_json or request.id is not None:
            return self._encode(request, results)
        key = request.outputs, results.end - results.start, results.results.shapes
        document = self._documents.get(key)
        if document is None:
            body, length = self._encode(request, results)
            if length is not None and all(binary and self._is_fixed(index) for index, binary in request.outputs):
                if len(self._documents) >= LAYOUTS_MAX:
                    self._documents.clear()
                self._documents[key] = body[:length]
            return body, length
        if len(request.outputs) == 1:
            return document + results.raw(request.outputs[0][0]), len(document)
        return b"".join((document, *[results.raw(index) for index, _ in request.outputs])), len(document)

    def _is_fixed(self, index: int) -> bool:
        return self.signature.outputs[index].datatype != "BYTES"

    def _encode(self, request: InferRequest, results: Part) -> tuple[bytes, int | None]:
        name = b"" if request.id is None else b'"id":%b,' % msgspec.json.encode(request.id)
        if request.outputs is self._all_json and len(results) == 1:  # the common case, in one piece
            result = results[0]
            head = self._output_prefix[0]
            data = datatypes.to_json(result)
            return b'%b%b"outputs":[%b%b,"data":%b}]}' % (self._prefix, name, head, _shape(result.shape), data), None
        written: list[bytes] = []
        tail: list[bytes] = []
        for index, binary in request.outputs:
            array = results[index]
            head = b"%b%b," % (self._output_prefix[index], _shape(array.shape))
            if binary:
                raw = datatypes.to_bytes(array)
                tail.append(raw)
                written.append(b'%b"parameters":{"binary_data_size":%d}}' % (head, len(raw)))
            else:
                written.append(b'%b"data":%b}' % (head, datatypes.to_json(array)))
        document = b'%b%b"outputs":[%b]}' % (self._prefix, name, b",".join(written))
        if not tail:
            return document, None
        return b"".join((document, *tail)), len(document)

    def metadata(self) -> bytes:
        """The model's metadata document."""

        def tensors(these: tuple[Tensor, ...]) -> list[dict[str, Any]]:
            return [{"name": one.name, "datatype": one.datatype, "shape": one.shape} for one in these]

        return msgspec.json.encode(
            {
                "name": self.model,
                "versions": [self.version],
                "platform": PLATFORM,
                "inputs": tensors(self.signature.inputs),
                "outputs": tensors(self.signature.outputs),
            },
        )


@lru_cache(maxsize=1024)
def _shape(shape: tuple[int, ...]) -> bytes:
    return msgspec.json.encode(shape)


def _flag(parameters: dict[str, Any] | None, name: str, *, default: bool) -> bool:
    if not parameters or name not in parameters:
        return default
    value = parameters[name]
    if not isinstance(value, bool):
        raise invalid_request(f"parameter {name!r} must be true or false, got {value!r}")
    return value
