"""Reading and writing OpenAI's embeddings API, on bytes."""

import base64
import json
from typing import Any

import numpy as np
import pytest

from nearcast.engine.openai import MAX_INPUTS, REPEAT_MAX, encode_embeddings, parse_embeddings, shortened
from nearcast.engine.refusal import Refusal
from nearcast.resources import wire


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "input": "hello"} | fields).encode()


def refused(data: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse_embeddings(data, "m")
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("given", "texts", "tokens"),
    [
        ("a", ["a"], []),
        (["a", "b"], ["a", "b"], []),
        ([1, 2], [], [[1, 2]]),
        ([[1, 2], [3]], [], [[1, 2], [3]]),
    ],
)
def test_four_forms_of_input(given: object, texts: list[str], tokens: list[list[int]]) -> None:
    request = parse_embeddings(body(input=given), "m")
    assert (request.texts, request.tokens) == (texts, tokens)


@pytest.mark.parametrize("given", ["", [], [""], ["a", ""], [["a"]], [[]], [1, "a"], [1.5], [True], 7, None, {"a": 1}])
def test_other_forms_are_refused(given: object) -> None:
    assert refused(body(input=given)).param == "input"


def test_too_many_inputs() -> None:
    assert refused(body(input=["a"] * (MAX_INPUTS + 1))).reason == wire.CODE_INPUT_TOO_LARGE


def test_the_body_must_name_the_model() -> None:
    assert refused(body(model="other")).reason == wire.CODE_MODEL_MISMATCH
    assert refused(b'{"input": "a"}').reason == wire.CODE_MODEL_REQUIRED


@pytest.mark.parametrize(
    "data",
    [
        b'{"model":"m","input":"a","model":"m"}',
        b'{"model":"other","input":"a","model":"m"}',
        b'{"model":"other","input":"a","mod\\u0065l":"m"}',
        b'{"\\u006Dodel":"other","input":"a","model":"m"}',
        b'{"\\u006d\\u006f\\u0064\\u0065\\u006c":"other","input":"a","model":"m"}',
    ],
)
def test_a_repeated_model_is_refused_however_it_is_spelt(data: bytes) -> None:
    assert refused(data).reason == wire.CODE_MODEL_MISMATCH


@pytest.mark.parametrize(
    "data",
    [
        b'{"model":"m","input":"the \\"model\\" and \\u006d"}',
        b'{"meta":{"model":"x"},"model":"m","input":"a"}',
        b'{"input":"a","model":"m","meta":[{"model":"x"},{"model":"y"}]}',
        b'{"model":"m","input":["\\"model\\"","model"],"user":"model"}',
    ],
)
def test_a_model_elsewhere_is_no_repetition(data: bytes) -> None:
    parse_embeddings(data, "m")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"model":"m","input":' + b"[" * 100_000])
def test_what_is_no_request(data: bytes) -> None:
    refused(data)


@pytest.mark.parametrize("fields", [{"encoding_format": "hex"}, {"dimensions": "8"}, {"dimensions": 1.5}])
def test_wrong_fields(fields: dict[str, Any]) -> None:
    refused(body(**fields))


def test_answers_as_numbers_and_as_base64() -> None:
    rows = [np.array([0.5, -1], np.float32), np.array([2, 3], np.float32)]
    plain = json.loads(encode_embeddings("m", rows, 9, as_base64=False))
    assert plain["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert [entry["embedding"] for entry in plain["data"]] == [[0.5, -1], [2, 3]]
    assert [entry["index"] for entry in plain["data"]] == [0, 1]
    coded = json.loads(encode_embeddings("m", rows, 9, as_base64=True))
    assert np.frombuffer(base64.b64decode(coded["data"][1]["embedding"]), "<f4").tolist() == [2, 3]


def test_shortened_embeddings_have_length_one() -> None:
    assert shortened(np.array([3, 4, 12], np.float32), 2).tolist() == pytest.approx([0.6, 0.8])
    assert shortened(np.zeros(3, np.float32), 2).tolist() == [0, 0]


def test_a_large_body_that_may_repeat_its_model_is_not_read_twice() -> None:
    data = body(input="x" * REPEAT_MAX).replace(b'"x', b'"\\u006d')
    assert refused(data).message.startswith(f"a body of {len(data)} bytes may name its model twice")
