"""Reading and writing the Open Inference Protocol in protocol buffers, against the reference client's own messages."""

from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from nearcast.engine.layout import Raw, whole
from nearcast.engine.oip import InferCodec, InferRequest
from nearcast.engine.oip_calls import server_answers
from nearcast.engine.oip_grpc import GrpcCodec
from nearcast.engine.protobuf import FIELDS_MAX, NotMessage, packed_varints, to_packed_varints
from nearcast.engine.refusal import Refusal
from nearcast.engine.work import Timing, Work, joined
from nearcast.resources.release import Signature, Tensor

DATATYPES = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def codec(*inputs: tuple[str, str, tuple[int, ...]], outputs: int = 1, batched: bool = False) -> GrpcCodec:
    given = inputs or (("x", "FP32", (-1, 2)),)
    return GrpcCodec(
        InferCodec(
            "m",
            "3",
            Signature(
                inputs=tuple(Tensor(name=n, datatype=d, shape=s) for n, d, s in given),  # type: ignore[arg-type]
                outputs=tuple(Tensor(name=f"y{i}", datatype=given[0][1], shape=(-1, 2)) for i in range(outputs)),  # type: ignore[arg-type]
            ),
            batched=batched,
        )
    )


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def question(*inputs: dict[str, Any], **more: Any) -> bytes:
    """A message for model ``m``; an input's ``raw`` goes where raw bytes go."""
    raw = [one.pop("raw") for one in inputs if "raw" in one]
    return framed(
        pb.ModelInferRequest(
            **{"model_name": "m", "inputs": inputs, "raw_input_contents": raw} | more
        ).SerializeToString()
    )


def x(**changes: Any) -> dict[str, Any]:
    given = {"name": "x", "datatype": "FP32", "shape": [1, 2], "raw": np.array([1.5, 2], "<f4").tobytes()} | changes
    return {key: value for key, value in given.items() if value is not None}


def feeds(request: InferRequest) -> list[np.ndarray]:
    return request.feeds.layout.stacked([request.feeds.body]) if isinstance(request.feeds, Raw) else request.feeds


def refusal(body: bytes, of: GrpcCodec | None = None, status: int = 400) -> str:
    with pytest.raises(Refusal) as caught:
        (of or codec()).parse(body)
    assert caught.value.status == status
    return caught.value.message


def answer(made: bytes) -> pb.ModelInferResponse:
    assert made[:5] == b"\0" + (len(made) - 5).to_bytes(4, "big")
    return pb.ModelInferResponse.FromString(made[5:])


def test_a_raw_tensor_is_read_and_answered_raw() -> None:
    of = codec()
    request = of.parse(question(x(), id="seven", model_version="3"))
    assert feeds(request)[0].tolist() == [[1.5, 2.0]]
    told = answer(of.encode(request, whole([np.array([[1, 2]], np.float32)])))
    assert (told.id, told.model_name, told.model_version) == ("seven", "m", "3")
    assert [(one.name, one.datatype, list(one.shape)) for one in told.outputs] == [("y0", "FP32", [1, 2])]
    assert list(told.raw_output_contents) == [np.array([[1, 2]], np.float32).tobytes()]


@pytest.mark.parametrize("datatype", DATATYPES)
def test_typed_contents_are_read_and_answered_typed(datatype: str) -> None:
    given = [b"a", "öß".encode()] if datatype == "BYTES" else [1, 0]
    of = codec(("x", datatype, (-1, 2)))
    contents = {DATATYPES[datatype]: given}
    request = of.parse(question(x(datatype=datatype, contents=contents, raw=None)))
    (array,) = feeds(request)
    assert array.tolist() == [["a", "öß"] if datatype == "BYTES" else [1, 0]]
    told = answer(of.encode(request, whole([array])))
    assert list(getattr(told.outputs[0].contents, DATATYPES[datatype])) == given
    assert not told.raw_output_contents


def test_an_answer_with_a_type_that_has_no_typed_form_is_raw() -> None:
    of = GrpcCodec(
        InferCodec(
            "m",
            "3",
            Signature(
                inputs=(Tensor(name="x", datatype="FP32", shape=(2,)),),
                outputs=(Tensor(name="h", datatype="FP16", shape=(1,)), Tensor(name="y", datatype="FP32", shape=(1,))),
            ),
        )
    )
    request = of.parse(question(x(shape=[2], raw=None, contents={"fp32_contents": [1, 2]})))
    half, single = np.array([1], np.float16), np.array([2], np.float32)
    told = answer(of.encode(request, whole([half, single])))
    assert list(told.raw_output_contents) == [half.tobytes(), single.tobytes()]
    wanted = of.parse(question(x(shape=[2], raw=None, contents={"fp32_contents": [1, 2]}), outputs=[{"name": "y"}]))
    assert list(answer(of.encode(wanted, whole([half, single]))).outputs[0].contents.fp32_contents) == [2]


def test_inputs_in_any_order_come_out_in_that_of_the_signature() -> None:
    of = codec(("a", "INT64", (1,)), ("b", "FP32", (1,)))
    one = {"name": "b", "datatype": "FP32", "shape": [1], "raw": np.float32(0.5).tobytes()}
    other = {"name": "a", "datatype": "INT64", "shape": [1], "raw": np.int64(-7).tobytes()}
    assert [feed.tolist() for feed in feeds(of.parse(question(one, other)))] == [[-7], [0.5]]


def test_outputs_come_in_the_order_asked_for() -> None:
    of = codec(outputs=3)
    request = of.parse(question(x(), outputs=[{"name": "y2"}, {"name": "y0"}]))
    told = answer(of.encode(request, whole([np.full((1, 2), n, np.float32) for n in range(3)])))
    assert [one.name for one in told.outputs] == ["y2", "y0"]
    assert [np.frombuffer(raw, np.float32)[0] for raw in told.raw_output_contents] == [2, 0]


def test_a_message_that_comes_again_is_read_without_parsing_and_means_the_same() -> None:
    of = codec(batched=True)
    first = of.parse(question(x()))
    again = of.parse(question(x(raw=np.array([3, 4], "<f4").tobytes())))
    assert not isinstance(first.feeds, Raw)
    assert isinstance(again.feeds, Raw)
    assert (again.rows, again.outputs) == (first.rows, first.outputs)
    assert feeds(again)[0].tolist() == [[3.0, 4.0]]

    class Waiting(Work):
        def finished(self, results: Any, timing: Timing) -> None: ...

        def failed(self, refusal: Refusal) -> None: ...

    works = [Waiting(request.feeds, request.rows, 0) for request in (first, again, again)]
    assert joined(works)[0].tolist() == [[1.5, 2.0], [3.0, 4.0], [3.0, 4.0]]
    assert "got 'other'" in refusal(question(x(), model_name="other", id="x"), of)
    assert "expected shape [-1, 2], got [2, 1]" in refusal(question(x(shape=[2, 1])), of)


def test_an_answer_that_is_like_an_earlier_one_is_written_the_same() -> None:
    of = codec(batched=True)
    request = of.parse(question(x()))
    for rows in (1, 3, 1):
        array = np.random.default_rng(rows).random((rows, 2), np.float32)
        told = answer(of.encode(request, whole([array])))
        assert list(told.outputs[0].shape) == [rows, 2]
        assert told.raw_output_contents[0] == array.tobytes()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (question(x(), model_name="other"), "expected model_name 'm', got 'other'"),
        (question(x(), model_name=""), "expected model_name 'm', got ''"),
        (question(), "m takes the inputs x: FP32[-1, 2]; got none"),
        (question(x(name="z")), "got 'z'"),
        (question(x(), x()), "input 'x' is given twice"),
        (question(x(datatype="FP64")), "expected datatype FP32, got 'FP64'"),
        (question(x(datatype="BF16")), "expected datatype FP32, got 'BF16'"),
        (question(x(shape=[-1, 2])), "expected shape [-1, 2], got [-1, 2]"),
        (question(x(shape=[1])), "expected shape [-1, 2], got [1]"),
        (question(x(shape=[2**62, 2])), "expected shape"),
        (question(x(raw=b"1234567")), "takes 8 bytes, got 7"),
        (question(x(raw=None)), "expected contents or raw_input_contents, got neither"),
        (question(x(contents={"fp32_contents": [1, 2]})), "got both"),
        (question(x(), raw_input_contents=[b"", b""]), "for each of 1 inputs, got 2"),
        (question(x(raw=None, contents={"fp32_contents": [1]})), "holds 2 elements, contents have 1"),
        (question(x(raw=None, contents={"int_contents": [1, 2]})), "FP32 belongs in field 6 of contents, got field 2"),
        (question(x(parameters={"shared_memory_region": {"string_param": "r"}})), "'shared_memory_region'"),
        (question(x(), outputs=[{"name": "z"}]), "expected an output of 'y0'; got 'z'"),
        (question(x(), outputs=[{"name": "y0"}, {"name": "y0"}]), "asked for twice"),
        (question(x(), outputs=[{"name": "y0", "parameters": {"classification": {"int64_param": 2}}}]), "classif"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_expected(body: bytes, expected: str) -> None:
    assert expected in refusal(body)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"\x0a\x01m\x0a\x01m", "field 1 stands there twice"),
        (b"\x08\x01", "field 1 has the wire type 0"),
        (b"\x0a\x05m", "behind the end"),
        (b"\x0b", "wire type 3"),
        (b"\x02\x00", "number 0"),
        (b"\xff" * 20, "cut off or too long"),
        (b"\x0a\x01\xff", "not UTF-8"),
        (b"\x48\x01" * (FIELDS_MAX + 1), f"more than {FIELDS_MAX} fields"),
    ],
)
def test_what_is_no_message_is_refused(message: bytes, expected: str) -> None:
    assert expected in refusal(framed(message))


def test_fields_that_nobody_knows_are_passed_over() -> None:
    body = question(x())[5:]
    unknown = b"\x40\x01\x49" + b"8bytes.." + b"\x55" + b"4by." + b"\x5a\x02hi"
    assert feeds(codec().parse(framed(unknown + body + unknown)))[0].tolist() == [[1.5, 2.0]]


def test_another_version_is_not_found_and_compression_not_supported() -> None:
    assert "expected m@3" in refusal(question(x(), model_version="4"), status=404)
    assert "identity" in refusal(b"\1" + question(x())[1:], status=501)


@pytest.mark.parametrize("body", [b"", b"\0\0\0\0", question(x()) + b"more", question(x())[:-1], question(x()) * 2])
def test_anything_but_exactly_one_message_is_refused(body: bytes) -> None:
    assert "one gRPC message" in refusal(body)


def test_numbers_out_of_range_are_refused() -> None:
    of = codec(("x", "INT8", (1,)))
    given = {"datatype": "INT8", "shape": [1], "raw": None}
    assert feeds(of.parse(question(x(**given, contents={"int_contents": [-128]}))))[0].tolist() == [-128]
    assert "out of range for INT8: 128" in refusal(question(x(**given, contents={"int_contents": [128]})), of)


def test_the_metadata_of_model_and_server() -> None:
    of = codec(("a", "INT64", (-1, 3)), outputs=2)
    told = pb.ModelMetadataResponse.FromString(of.metadata()[5:])
    assert (told.name, list(told.versions), told.platform) == ("m", ["3"], "onnxruntime_onnx")
    assert [(one.name, one.datatype, list(one.shape)) for one in told.inputs] == [("a", "INT64", [-1, 3])]
    assert [one.name for one in told.outputs] == ["y0", "y1"]
    server = {path.rpartition(b"/")[2]: message[5:] for path, message in server_answers().items()}
    assert pb.ServerLiveResponse.FromString(server[b"ServerLive"]).live
    assert pb.ServerReadyResponse.FromString(server[b"ServerReady"]).ready
    assert pb.ServerMetadataResponse.FromString(server[b"ServerMetadata"]).name == "nearcast"


def test_a_question_about_a_model_must_name_this_one() -> None:
    of = codec()
    for version in ("", "3"):
        of.check_model(framed(pb.ModelReadyRequest(name="m", version=version).SerializeToString()))
    for request, status in ((pb.ModelReadyRequest(name="o"), 400), (pb.ModelReadyRequest(name="m", version="4"), 404)):
        with pytest.raises(Refusal) as caught:
            of.check_model(framed(request.SerializeToString()))
        assert caught.value.status == status


def test_a_shape_of_millions_of_dimensions_is_refused_before_it_is_read() -> None:
    given = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1] * 100_000)
    message = refusal(framed(pb.ModelInferRequest(model_name="m", inputs=[given]).SerializeToString()))
    assert message.endswith("a shape has more than 64 dimensions")


@pytest.mark.parametrize("count", [500_000, 1_100_000])
def test_packed_numbers_read_by_pieces_are_those_that_were_sent(count: int) -> None:
    values = np.random.default_rng(1).integers(-3, 1 << 14, count)
    packed = to_packed_varints(values)
    np.testing.assert_array_equal(packed_varints(packed, 0, len(packed)).view(np.int64), values)
    with pytest.raises(NotMessage, match="cut off or too long"):
        packed_varints(b"\x80" * (2 * len(packed)), 0, 2 * len(packed))
