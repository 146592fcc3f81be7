"""Messages: ours read by the reference client's own classes, theirs read by us, and any bytes end in a refusal."""

from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from nearcast.engine import datatypes, protobuf
from nearcast.engine.layout import Raw, whole
from nearcast.engine.oip import InferCodec
from nearcast.engine.oip_grpc import GrpcCodec
from nearcast.engine.refusal import Refusal
from nearcast.resources.release import Signature, Tensor
from property.test_engine_tensors import tensors

FIELDS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def codec_for(datatype: str, dimensions: int) -> GrpcCodec:
    shape = (-1,) * dimensions
    tensor = [Tensor(name=name, datatype=datatype, shape=shape) for name in ("x", "y")]  # type: ignore[arg-type]
    return GrpcCodec(InferCodec("m", "1", Signature(inputs=(tensor[0],), outputs=(tensor[1],))))


def read(codec: GrpcCodec, message: pb.ModelInferRequest) -> tuple[Any, Any]:
    request = codec.parse(framed(message.SerializeToString()))
    feeds = request.feeds.layout.stacked([request.feeds.body]) if isinstance(request.feeds, Raw) else request.feeds
    return request, feeds[0]


@settings(deadline=None, max_examples=300)
@given(tensors(), st.booleans(), st.text(max_size=5))
def test_a_tensor_survives_the_way_in_and_out(made: tuple[str, Any], typed: bool, name: str) -> None:
    datatype, array = made
    codec = codec_for(datatype, array.ndim)
    message = pb.ModelInferRequest(model_name="m", id=name)
    given_ = message.inputs.add(name="x", datatype=datatype, shape=array.shape)
    typed = typed and datatype in FIELDS and array.size > 0
    if typed:
        flat = [one.encode() if datatype == "BYTES" else one for one in array.ravel().tolist()]
        getattr(given_.contents, FIELDS[datatype]).extend(flat)
    else:
        message.raw_input_contents.append(datatypes.to_bytes(array))
    for _ in range(2):  # the second one may be known already
        request, feed = read(codec, message)
        assert (feed.shape, feed.dtype) == (array.shape, array.dtype)
        assert feed.tolist() == array.tolist()
        told = pb.ModelInferResponse.FromString(codec.encode(request, whole([feed]))[5:])
        assert (told.id, list(told.outputs[0].shape)) == (name, list(array.shape))
        if typed:
            assert list(getattr(told.outputs[0].contents, FIELDS[datatype])) == flat
        else:
            assert list(told.raw_output_contents) == [datatypes.to_bytes(array)]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_numbers_survive_packing(numbers: list[int]) -> None:
    array = np.array(numbers, np.int64)
    packed = protobuf.to_packed_varints(array)
    contents = pb.InferTensorContents(int64_contents=numbers)
    assert protobuf.to_field(3, packed) == contents.SerializeToString() or not numbers
    assert protobuf.packed_varints(packed, 0, len(packed)).view(np.int64).tolist() == numbers


@settings(deadline=None, max_examples=600)
@given(st.binary(max_size=60), st.integers(0, 120), st.booleans())
@example(b"", 0, True)
def test_any_bytes_are_read_or_refused_and_never_fail(noise: bytes, at: int, instead: bool) -> None:
    codec = codec_for("INT32", 1)
    message = pb.ModelInferRequest(model_name="m", id="i", outputs=[{"name": "y"}])
    message.inputs.add(name="x", datatype="INT32", shape=[2]).contents.int_contents.extend([1, -1])
    good = message.SerializeToString()
    broken = good[:at] + noise + good[at + len(noise) * instead :]
    for body in (framed(broken), framed(noise), noise, broken):
        assert outcome(codec, body) in {200, 400, 404, 501}


def outcome(codec: GrpcCodec, body: bytes) -> int:
    try:
        codec.parse(body)
    except Refusal as refusal:
        return refusal.status
    return 200
