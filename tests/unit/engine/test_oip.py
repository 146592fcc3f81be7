"""Reading and writing the Open Inference Protocol, on bytes."""

import json
from typing import Any

import numpy as np
import pytest

from nearcast.engine.layout import Raw, whole
from nearcast.engine.oip import LAYOUTS_MAX, InferCodec, InferRequest
from nearcast.engine.refusal import Refusal
from nearcast.resources.release import Signature, Tensor


def codec(*inputs: tuple[str, str, tuple[int, ...]], outputs: int = 1) -> InferCodec:
    given = inputs or (("x", "FP32", (-1, 2)),)
    return InferCodec(
        "m",
        "3",
        Signature(
            inputs=tuple(Tensor(name=n, datatype=d, shape=s) for n, d, s in given),  # type: ignore[arg-type]
            outputs=tuple(Tensor(name=f"y{i}", datatype="FP32", shape=(-1, 2)) for i in range(outputs)),
        ),
    )


def body(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def x(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2]} | changes


def refusal(data: bytes, json_length: int | None = None, of: InferCodec | None = None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        (of or codec()).parse(data, json_length)
    assert caught.value.status == 400
    return caught.value


def test_flat_and_nested_data_mean_the_same() -> None:
    flat = codec().parse(body(x(shape=[2, 2], data=[1, 2, 3, 4])), None)
    nested = codec().parse(body(x(shape=[2, 2], data=[[1, 2], [3, 4]])), None)
    assert flat.feeds[0].tolist() == nested.feeds[0].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert flat.feeds[0].dtype == nested.feeds[0].dtype == np.float32


def test_inputs_in_any_order_come_out_in_that_of_the_signature() -> None:
    two = codec(("a", "INT64", (1,)), ("b", "FP32", (1,)))
    given = [
        {"name": "b", "datatype": "FP32", "shape": [1], "data": [0.5]},
        {"name": "a", "datatype": "INT64", "shape": [1], "data": [7]},
    ]
    assert [feed.tolist() for feed in two.parse(body(*given), None).feeds] == [[7], [0.5]]


def test_binary_data_follows_the_json_in_the_order_of_inputs() -> None:
    two = codec(("a", "INT16", (2,)), ("b", "FP64", (1,)))
    head = body(
        {"name": "a", "datatype": "INT16", "shape": [2], "parameters": {"binary_data_size": 4}},
        {"name": "b", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": 8}},
    )
    tail = np.array([1, -2], "<i2").tobytes() + np.array([0.25], "<f8").tobytes()
    feeds = two.parse(head + tail, len(head)).feeds
    assert [feed.tolist() for feed in feeds] == [[1, -2], [0.25]]
    assert all(feed.flags.aligned for feed in feeds)


@pytest.mark.parametrize(
    ("given", "wants", "got"),
    [
        ([x(name="z")], "x: FP32[-1, 2]", "'z'"),
        ([], "x: FP32[-1, 2]", "none"),
        ([x(), x()], "twice", "'x'"),
        ([x(), x(name="z")], "x: FP32[-1, 2]", "'z'"),
        ([x(datatype="FP64")], "expected datatype FP32", "'FP64'"),
        ([x(datatype="nonsense")], "expected datatype FP32", "'nonsense'"),
        ([x(shape=[1, 3])], "expected shape [-1, 2]", "[1, 3]"),
        ([x(shape=[2])], "expected shape [-1, 2]", "[2]"),
        ([x(shape=[-1, 2])], "expected shape [-1, 2]", "[-1, 2]"),
        ([x(shape=[2**62, 2])], "expected shape [-1, 2]", str(2**62)),
        ([x(data=[1])], "holds 2 elements", "has 1"),
        ([x(data=[[1], [2]])], "wants 1 entries", "2"),
        ([x(data=["a", "b"])], "float", "str"),
        ([x(data=[True, False])], "float", "bool"),
        ([x(data=[1e39, 0])], "FP32", "range"),
        ([x(data=None)], "data or binary_data_size", "neither"),
        ([x(parameters={"binary_data_size": 8})], "data or binary_data_size", "both"),
        ([x(data=None, parameters={"binary_data_size": 8})], "8", "0 bytes are left"),
        ([x(data=None, parameters={"binary_data_size": -1})], "byte count", "-1"),
        ([x(data=None, parameters={"binary_data_size": True})], "byte count", "True"),
        ([x(data=None, parameters={"shared_memory_region": "r"})], "not supported", "shared_memory_region"),
    ],
)
def test_wrong_inputs_say_what_was_expected_and_what_came(given: list[dict[str, Any]], wants: str, got: str) -> None:
    message = refusal(body(*given)).message
    assert wants in message
    assert got in message


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"outputs": [{"name": "nope"}]}, "'y0'"),
        ({"outputs": [{"name": "y0"}, {"name": "y0"}]}, "twice"),
        ({"outputs": [{"name": "y0", "parameters": {"classification": 3}}]}, "classification"),
        ({"outputs": [{"name": "y0", "parameters": {"binary_data": 1}}]}, "true or false"),
        ({"model_name": "other"}, "'other'"),
        ({"model_version": "9"}, "'9'"),
    ],
)
def test_wrong_requests(more: dict[str, Any], says: str) -> None:
    assert says in refusal(body(x(), **more)).message


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'{"inputs":1}', b"\xff\xfe", b"[" * 100_000, b'{"inputs":[{}]}']
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    refusal(data)


def test_json_length_must_lie_in_the_body() -> None:
    data = body(x())
    assert str(len(data)) in refusal(data, len(data) + 1).message


def test_bytes_that_belong_to_nobody() -> None:
    data = body(x())
    assert "3 bytes" in refusal(data + b"abc", len(data)).message


def test_wrong_byte_count_tells_both() -> None:
    head = body(x(data=None, parameters={"binary_data_size": 7}))
    assert "takes 8 bytes, got 7" in refusal(head + b"1234567", len(head)).message


@pytest.mark.parametrize("tail", [b"\x01\x00\x00", b"\x05\x00\x00\x00abc", b"\x01\x00\x00\x00\xff", b""])
def test_malformed_strings(tail: bytes) -> None:
    one = codec(("s", "BYTES", (1,)))
    head = body({"name": "s", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(tail)}})
    refusal(head + tail, len(head), one)


def binary_body(count: int = 1, **more: Any) -> tuple[bytes, bytes]:
    given = {"name": "x", "datatype": "FP32", "shape": [count, 2], "parameters": {"binary_data_size": 8 * count}}
    return body(given, **more), np.arange(2 * count, dtype="<f4").tobytes()


def arrays(request: InferRequest) -> list[Any]:
    return request.feeds.layout.stacked((request.feeds.body,)) if isinstance(request.feeds, Raw) else request.feeds


@pytest.mark.parametrize("spaces", range(5))
def test_a_head_that_came_before_means_the_same_again(spaces: int) -> None:
    made = codec()
    head, tail = binary_body(2, parameters={"binary_data_output": True})
    head += b" " * spaces  # so that the tensor stands at any alignment
    first, again = made.parse(head + tail, len(head)), made.parse(head + tail, len(head))
    assert isinstance(again.feeds, Raw), "it was remembered"
    assert arrays(first)[0].tolist() == arrays(again)[0].tolist() == [[0, 1], [2, 3]]
    assert arrays(again)[0].flags.aligned
    assert first.outputs == again.outputs == ((0, True),)


def test_a_head_that_came_before_does_not_excuse_its_body() -> None:
    made = codec()
    head, tail = binary_body()
    made.parse(head + tail, len(head))
    assert "bytes are left" in refusal(head + tail[:-1], len(head), made).message
    assert "belong to no input" in refusal(head + tail + b"x", len(head), made).message
    assert "not JSON" in refusal(head + tail, len(head) - 1, made).message


def test_heads_with_ids_are_not_remembered_and_others_do_not_pile_up() -> None:
    made = codec()
    head, tail = binary_body(id="a")
    for _ in range(2):
        assert made.parse(head + tail, len(head)).id == "a"
    for count in range(1, 2 * LAYOUTS_MAX):
        head, tail = binary_body(count)
        made.parse(head + tail, len(head))
    remembered = [
        isinstance(made.parse(head + tail, len(head)).feeds, Raw)
        for head, tail in (binary_body(count) for count in range(2 * LAYOUTS_MAX - 5, 0, -1))
    ]
    assert 0 < sum(remembered) <= LAYOUTS_MAX


def test_a_binary_answer_is_the_same_when_its_head_is_remembered() -> None:
    made = codec(outputs=2)
    head, tail = binary_body(parameters={"binary_data_output": True})
    request = made.parse(head + tail, len(head))
    results = whole([np.array([[1, 2]], np.float32), np.array([[3, 4]], np.float32)])
    assert made.encode(request, results) == made.encode(request, results)
    other = whole([np.zeros((3, 2), np.float32)] * 2)
    answer, json_length = made.encode(request, other)
    assert [output["shape"] for output in json.loads(answer[:json_length])["outputs"]] == [[3, 2], [3, 2]]


def test_answers_in_json() -> None:
    made = codec()
    answer, json_length = made.encode(
        made.parse(body(x(), id='a"b'), None), whole([np.array([[1.5, np.nan]], np.float32)])
    )
    assert json_length is None
    assert json.loads(answer) == {
        "model_name": "m",
        "model_version": "3",
        "id": 'a"b',
        "outputs": [{"name": "y0", "datatype": "FP32", "shape": [1, 2], "data": [1.5, None]}],
    }


def test_answers_partly_binary_in_the_order_that_was_asked_for() -> None:
    made = codec(outputs=2)
    wanted = [{"name": "y1", "parameters": {"binary_data": True}}, {"name": "y0"}]
    zero, one = np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)
    answer, json_length = made.encode(made.parse(body(x(), outputs=wanted), None), whole([zero, one]))
    assert json_length is not None
    outputs = json.loads(answer[:json_length])["outputs"]
    assert [output["name"] for output in outputs] == ["y1", "y0"]
    assert outputs[0]["parameters"] == {"binary_data_size": 8}
    assert "data" not in outputs[0]
    assert outputs[1]["data"] == [0, 0]
    assert answer[json_length:] == one.tobytes()


def test_binary_for_all_outputs_at_once() -> None:
    made = codec(outputs=2)
    request = made.parse(body(x(), parameters={"binary_data_output": True}), None)
    _, json_length = made.encode(request, whole([np.zeros((1, 2), np.float32)] * 2))
    assert json_length is not None
    assert all(binary for _, binary in request.outputs)
