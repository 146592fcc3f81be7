"""The Lua that finds the model of a gRPC call, against real messages, in LuaJIT as in Envoy."""

from collections.abc import Callable

import lupa.luajit21 as lupa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from nearcast.gateway.render.lua_grpc import CALLED, MAX_FIELDS
from nearcast.gateway.render.lua_json import NEAR_BYTES, SCAN

Called = Callable[[bytes], tuple[str | None, str | None, str | None]]


@pytest.fixture(scope="module")
def called() -> Called:
    runtime = lupa.LuaRuntime(encoding=None)
    runtime.execute((SCAN + CALLED).encode())
    function = runtime.globals()[b"nearcast_called"]

    def model_of(body: bytes) -> tuple[str | None, str | None, str | None]:
        found = function(len(body), lambda start, count: body[start : start + count])
        parts = found if isinstance(found, tuple) else (found,)
        return tuple(part and part.decode() for part in (*parts, None, None)[:3])  # type: ignore[return-value]

    return model_of


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


names = st.text("abcz019.-_/é", min_size=1, max_size=60)
unknown = st.sampled_from(
    [b"", b"\x40\x01", b"\x40" + b"\xff" * 9 + b"\x01", b"\x49" + b"8bytes..", b"\x55" + b"4by.", b"\x5a\x02hi"]
)


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, str]:
    """A message with its fields in any order, and what it names as its model."""
    model = draw(names)
    tensor = {"name": draw(names), "datatype": "FP32", "shape": draw(st.lists(st.integers(0, 2**40), max_size=4))}
    size = draw(st.sampled_from([0, 8, 127, 128, NEAR_BYTES - 30, NEAR_BYTES, 3 * NEAR_BYTES]))
    parts = [
        pb.ModelInferRequest(model_name=model).SerializeToString(),
        pb.ModelInferRequest(model_version="1", id=draw(names)).SerializeToString(),
        pb.ModelInferRequest(inputs=[tensor]).SerializeToString(),
        pb.ModelInferRequest(raw_input_contents=[b"\x0a\x01x" * (size // 3)]).SerializeToString(),
        draw(unknown),
    ]
    return b"".join(draw(st.permutations(parts))), model


@settings(max_examples=400, deadline=None)
@given(messages())
def test_the_model_is_the_one_that_the_message_names(called: Called, made: tuple[bytes, str]) -> None:
    message, model = made
    assert pb.ModelInferRequest.FromString(message).model_name == model
    assert called(framed(message)) == (model, None, None)


@settings(max_examples=300, deadline=None)
@given(messages(), st.data())
def test_a_message_that_is_cut_off_never_gives_another_model(
    called: Called, made: tuple[bytes, str], data: st.DataObject
) -> None:
    message, model = made
    found, why, _ = called(framed(message[: data.draw(st.integers(0, len(message)))]))
    assert found in {None, model}
    assert (found is None) != (why is None)
    found, why, _ = called(framed(message)[: data.draw(st.integers(0, len(message)))])
    assert found is None
    assert why


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_give_an_answer(called: Called, noise: bytes) -> None:
    for body in (noise, framed(noise), framed(b"\x12\x02" + noise)):
        found, why, _ = called(body) if _decodes(called, body) else ("x", None, None)
        assert (found is None) != (why is None)


def _decodes(called: Called, body: bytes) -> bool:
    try:
        called(body)
    except UnicodeDecodeError:  # a name that is none; the gateway knows no such model
        return False
    return True


@pytest.mark.parametrize(
    ("body", "why", "status"),
    [
        (b"", "cut off", None),
        (b"\0\0\0\0", "cut off", None),
        (framed(b""), "it is missing", None),
        (framed(b"\x0a\x00"), "it is empty", None),
        (framed(b"\x0a\x80\x02" + b"x" * 256), "longer than 255", None),
        (framed(b"\x0b"), "not well-formed", None),
        (framed(b"\x40\x01" * (MAX_FIELDS + 1)), "too many", None),
        (framed(b"\x0a\x01m") * 2, "exactly one message", None),
        (b"\1\0\0\0\3\x0a\x01m", "compressed", "501"),
    ],
)
def test_why_there_is_no_model(called: Called, body: bytes, why: str, status: str | None) -> None:
    found, told, code = called(body)
    assert (found, code) == (None, status)
    assert told is not None
    assert why in told
