"""The Lua scan against a real JSON parser, in LuaJIT as in Envoy: the same model, wherever and however it stands."""

import json
from collections.abc import Callable

import lupa.luajit21 as lupa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcast.gateway.render.lua_json import MAX_HOPS, NEAR_BYTES, SCAN

Scan = Callable[[bytes], tuple[str | None, str | None]]


@pytest.fixture(scope="module")
def scan() -> Scan:
    runtime = lupa.LuaRuntime(encoding=None)
    runtime.execute(SCAN.encode())
    function = runtime.globals()[b"nearcast_model"]

    def model_of(body: bytes) -> tuple[str | None, str | None]:
        found = function(len(body), lambda start, count: body[start : start + count])
        model, why = found if isinstance(found, tuple) else (found, None)
        return model and model.decode(errors="replace"), why and why.decode()

    return model_of


# Text that looks like what the scan looks for.
tricky = st.sampled_from(
    [
        "model",
        '"model"',
        '\\"model\\":',
        '{"model": "x"}',
        "\\",
        '\\\\"',
        "}",
        "]",
        "{",
        "[",
        ",",
        ":",
        " ",
        "é",
        "\n",
        "\ud7ff",
    ]
)
texts = st.one_of(st.text(max_size=12), st.lists(tricky, max_size=8).map("".join))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts)
keys = st.one_of(texts, st.sampled_from(["model", "models", "Model", "mode", ""]))
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4))
names = st.one_of(
    st.sampled_from(["m1", "magika", "org/name:tag"]), st.text('abcz019.-_/:é"\\ ', min_size=1, max_size=40)
)
fillers = st.sampled_from([0, 0, 0, 100, NEAR_BYTES - 50, NEAR_BYTES, 2 * NEAR_BYTES, 3 * NEAR_BYTES])


@st.composite
def documents(draw: st.DrawFn) -> tuple[bytes, str]:
    """A JSON object with "model" once at its top level, anywhere, in any spelling, and the model."""
    members = draw(st.dictionaries(keys.filter(lambda key: key != "model"), values, max_size=5))
    rows = [(json.dumps(key, ensure_ascii=draw(st.booleans())), value) for key, value in members.items()]
    for row in range(draw(st.integers(0, 2))):
        rows.append((f'"filler{row}"', draw(st.sampled_from(["x", '"', "\\", "é", '{"model":"y"}'])) * draw(fillers)))
    model = draw(names)
    key = draw(st.sampled_from(['"model"', '"mod\\u0065l"', '"\\u006dodel"', '"model"']))
    rows.insert(draw(st.integers(0, len(rows))), (key, model))
    space = st.sampled_from(["", " ", "\n\t ", "\r\n"])
    parts = []
    for name, value in rows:
        text = json.dumps(
            value, ensure_ascii=draw(st.booleans()), separators=draw(st.sampled_from([(",", ":"), (", ", ": ")]))
        )
        parts.append(f"{draw(space)}{name}{draw(space)}:{draw(space)}{text}{draw(space)}")
    body = f"{draw(space)}{{{','.join(parts)}}}{draw(space)}"
    return body.encode(errors="surrogatepass"), model


@settings(max_examples=600, deadline=None)
@given(documents())
def test_the_model_is_the_one_that_a_parser_finds(scan: Scan, document: tuple[bytes, str]) -> None:
    body, model = document
    assert json.loads(body)["model"] == model
    found, why = scan(body)
    # Characters beyond ASCII may be spelled as escapes, which the scan does not decode: no model has such a name.
    if model.isascii():
        assert (found, why) == (model, None)
    else:
        assert found is not None


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(keys.filter(lambda key: key != "model"), values, max_size=6), fillers)
def test_no_model_is_found_where_there_is_none(scan: Scan, members: dict[str, object], filler: int) -> None:
    body = json.dumps(members | {"inner": {"model": "x", "list": ["model", {"model": "x"}]}, "filler": "y" * filler})
    assert scan(body.encode()) == (None, "it is missing")


@settings(max_examples=300, deadline=None)
@given(documents(), st.data())
def test_a_document_that_is_cut_off_never_gives_another_model(
    scan: Scan, document: tuple[bytes, str], data: st.DataObject
) -> None:
    body, model = document
    found, why = scan(body[: data.draw(st.integers(0, len(body)))])
    assert (found is None) != (why is None)
    if found is not None and model.isascii() and len(body) <= 2 * NEAR_BYTES:
        assert found == model


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.lists(tricky, max_size=60).map(lambda parts: "".join(parts).encode())))
def test_any_bytes_give_an_answer(scan: Scan, body: bytes) -> None:
    for padded in (body, body + b" " * (3 * NEAR_BYTES) + body, b'{"model":"m","a":' + body):
        found, why = scan(padded)
        assert (found is None) != (why is None)


@pytest.mark.parametrize("value", ["1", "null", "[]", '{"model":"x"}', '["m"]', "true"])
def test_a_model_that_is_no_string_is_refused(scan: Scan, value: str) -> None:
    for body in (f'{{"model":{value}}}', f'{{"model":{value},"a":"{"x" * 3 * NEAR_BYTES}"}}'):
        assert scan(body.encode()) == (None, "it is not a string")


def test_a_repeated_key_is_refused_in_documents_up_to_eight_kilobytes(scan: Scan) -> None:
    for filler in (0, NEAR_BYTES):
        body = f'{{"model":"a","filler":"{"x" * filler}","mod\\u0065l":"b"}}'
        assert scan(body.encode()) == (None, "it stands there twice")


def test_what_the_tail_begins_with_is_not_taken_for_a_key(scan: Scan) -> None:
    """The tail is cut inside of the key `say "model`, right before a quote that is escaped in the whole document."""
    end = '"model": "evil"'
    for shift in range(-3, 4):
        rest = f',"pad":"{"y" * (NEAR_BYTES - len(end) - 10 + shift)}"}}'
        body = f'{{"a":"{"x" * 3 * NEAR_BYTES}","say \\{end}{rest}'
        assert json.loads(body)['say "model'] == "evil"
        assert scan(body.encode()) == (None, "it is missing")


@pytest.mark.parametrize(
    "middle",
    ["[" * 500_000 + "]" * 500_000, "[" + "[]," * 400_000 + "0]", "[" + '"",' * 400_000 + "0]"],
    ids=["deep", "wide", "texts"],
)
def test_work_is_bounded_by_hops(scan: Scan, middle: str) -> None:
    assert len(middle) > MAX_HOPS
    body = f'{{"a":{middle},"model":"m","b":"{"y" * 2 * NEAR_BYTES}"}}'
    found, why = scan(body.encode())
    assert found is None
    assert why is not None
    assert "first or last" in why
    first = f'{{"model":"m","a":{middle}}}'
    last = f'{{"a":{middle},"model":"m"}}'
    assert scan(first.encode()) == scan(last.encode()) == ("m", None)


@pytest.mark.parametrize(
    "inner", ['{"model":"evil"}', '[{"model":"evil"}]', '["model","evil"]', '"\\"model\\":\\"evil\\""']
)
def test_neither_end_takes_an_inner_model_for_the_outer_one(scan: Scan, inner: str) -> None:
    far = '"' + "x" * 2 * NEAR_BYTES + '"'
    body = f'{{"a":{inner},"b":{far},"model":"m","c":{far},"d":{inner}}}'
    assert scan(body.encode()) == ("m", None)
