"""Tensors survive both ways of writing them, and no body whatever makes the codecs fail otherwise than by 400."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcast.engine import datatypes
from nearcast.engine.datatypes import DTYPES
from nearcast.engine.oip import InferCodec
from nearcast.engine.openai import parse_embeddings
from nearcast.engine.refusal import Refusal
from nearcast.resources.release import Signature, Tensor

FLOATS = {"FP16": 16, "FP32": 32, "FP64": 64}


def values(datatype: str) -> st.SearchStrategy[Any]:
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BYTES":
        return st.text(max_size=8)
    if datatype in FLOATS:
        return st.floats(width=FLOATS[datatype], allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]
    limits = np.iinfo(DTYPES[datatype])
    return st.integers(int(limits.min), int(limits.max))


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, npt.NDArray[Any]]:
    datatype = draw(st.sampled_from(sorted(DTYPES)))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    count = int(np.prod(shape))
    array = np.empty(count, DTYPES[datatype])
    array[:] = draw(st.lists(values(datatype), min_size=count, max_size=count))
    return datatype, array.reshape(shape)


@given(tensors())
def test_json_round_trip(one: tuple[str, npt.NDArray[Any]]) -> None:
    datatype, array = one
    back = datatypes.from_json(msgspec.Raw(datatypes.to_json(array)), datatype, array.shape)
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


@given(tensors())
def test_nested_json_round_trip(one: tuple[str, npt.NDArray[Any]]) -> None:
    datatype, array = one
    if array.ndim == 0:
        return
    back = datatypes.from_json(msgspec.Raw(msgspec.json.encode(array.tolist())), datatype, array.shape)
    assert np.array_equal(back, array)


@given(tensors(), st.integers(0, 9))
def test_binary_round_trip_at_any_offset(one: tuple[str, npt.NDArray[Any]], offset: int) -> None:
    datatype, array = one
    raw = datatypes.to_bytes(array)
    back = datatypes.from_bytes(b"#" * offset + raw, offset, len(raw), datatype, array.shape)
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


@given(tensors(), st.binary(max_size=40))
def test_wrong_bytes_are_refused_and_never_misread(one: tuple[str, npt.NDArray[Any]], raw: bytes) -> None:
    datatype, array = one
    try:
        back = datatypes.from_bytes(raw, 0, len(raw), datatype, array.shape)
    except datatypes.NotElements:
        return
    assert back.shape == array.shape
    if datatype != "BOOL":
        assert datatypes.to_bytes(back) == raw


CODEC = InferCodec(
    "m",
    "1",
    Signature(
        inputs=(
            Tensor(name="x", datatype="FP32", shape=(-1, 2)),
            Tensor(name="s", datatype="BYTES", shape=(-1,)),
            Tensor(name="i", datatype="INT8", shape=(2, -1, -1)),
        ),
        outputs=(Tensor(name="y", datatype="FP32", shape=(-1,)),),
    ),
)
SINGLE = InferCodec("m", "1", Signature(inputs=CODEC.signature.inputs[:1], outputs=CODEC.signature.outputs))

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["x", "s", "i", "FP32"])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
near_inputs = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "s", "i", "z"]) | anything,
        "datatype": st.sampled_from(sorted(DTYPES)) | anything,
        "shape": st.lists(st.integers(-2, 4), max_size=3) | anything,
        "data": st.lists(st.integers(-2, 300) | st.text(max_size=2) | st.floats(), max_size=6) | anything,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 20) | anything})
        | anything,
    },
)
near_requests = st.fixed_dictionaries(
    {},
    optional={
        "inputs": st.lists(near_inputs, max_size=4) | anything,
        "outputs": st.lists(st.fixed_dictionaries({"name": st.just("y") | anything}), max_size=2) | anything,
        "parameters": anything,
        "id": anything,
        "model_name": anything,
    },
)


Parsed = TypeVar("Parsed")


def parsed_or_refused(parse: Callable[[], Parsed]) -> Parsed | None:
    """What ``parse`` gives, or None after a refusal with status 400; any other outcome fails the test."""
    refusals: list[Refusal] = []
    try:
        return parse()
    except Refusal as refusal:
        refusals.append(refusal)
    assert [refusal.status for refusal in refusals] == [400]
    return None


def read(codec: InferCodec, data: bytes, json_length: int | None) -> None:
    request = parsed_or_refused(lambda: codec.parse(data, json_length))
    if request is None:
        return
    for feed, tensor in zip(request.feeds, codec.signature.inputs, strict=True):
        assert feed.dtype == DTYPES[tensor.datatype]
        assert all(want in {-1, size} for size, want in zip(feed.shape, tensor.shape, strict=True))


@settings(max_examples=400)
@given(near_requests, st.binary(max_size=30), st.booleans())
def test_requests_that_are_nearly_right(request: dict[str, Any], tail: bytes, binary: bool) -> None:
    head = json.dumps(request).encode()
    for codec in (CODEC, SINGLE):
        read(codec, head + tail if binary else head, len(head) if binary else None)


@given(st.binary(max_size=200), st.none() | st.integers(0, 250))
def test_requests_that_are_noise(data: bytes, json_length: int | None) -> None:
    read(SINGLE, data, json_length)


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "model": st.just("m") | anything,
            "input": st.lists(st.text(max_size=3) | st.integers() | anything, max_size=4) | anything,
            "encoding_format": st.sampled_from(["float", "base64"]) | anything,
            "dimensions": st.integers() | anything,
        },
    )
)
def test_embeddings_that_are_nearly_right(request: dict[str, Any]) -> None:
    parsed = parsed_or_refused(lambda: parse_embeddings(json.dumps(request).encode(), "m"))
    if parsed is None:
        return
    assert request["model"] == "m"
    assert bool(parsed.texts) != bool(parsed.tokens)


@given(st.binary(max_size=200))
def test_embeddings_that_are_noise(data: bytes) -> None:
    parsed_or_refused(lambda: parse_embeddings(data, "m"))
