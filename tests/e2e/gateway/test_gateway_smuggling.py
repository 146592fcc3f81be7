"""Requests that try to reach an engine by a way that no rule knows of: refused, or stripped of what they smuggle.

Behind the gateway are two engines: `m1`, which anybody may ask, and `closed`, which no request that enters here may
reach (residency). Whatever is sent, `closed` sees nothing, `m1` sees no header that only the gateway may set, and the
connection stays in step: what is sent after it is answered as itself, or not at all.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hpack import Decoder

from fuzz import frames
from fuzz.frames import Http2, frame, pseudo, request
from fuzz.raw import Connection, tcp
from nearcast.resources import wire
from nearcast.resources.plan import ResidencyRule

Fleet = Any
Site = Any
BODY = b'{"model":"m1"}'
INFER, EMBED = b"/v2/models/m1/infer", b"/v1/embeddings"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture(scope="module")
def site(fleet: Fleet) -> Site:
    site = fleet.site("fra")
    site.add("m1")
    site.add("closed")
    rule = ResidencyRule(policy="us-only", models=("closed",), allow_countries=("US",))
    site.run(site.inputs({"m1": [(100, "fra")], "closed": [(100, "fra")]}, rules=(rule,)))
    return site


@pytest.fixture(autouse=True)
def nothing_gets_through(site: Site) -> Iterator[None]:
    """After each test: the closed engine saw nothing, the open one nothing but what it may see."""
    for engine in site.engines.values():
        engine.seen.clear()
    yield
    assert site.engines["closed", "1"].seen == []
    for seen in site.engines["m1", "1"].seen:
        ours = {name: value for name, value in seen.headers.items() if name.startswith(wire.PREFIX)}
        assert ours == {wire.MODEL: "m1"}
        assert seen.trailers == {}
        envoys = {name: value for name, value in seen.headers.items() if name.startswith("x-envoy-")}
        assert envoys.keys() <= {"x-envoy-external-address", wire.ATTEMPT}
        assert envoys[wire.ATTEMPT] == "1"
        assert not {"x-forwarded-client-cert", "upgrade", "http2-settings"} & set(seen.headers)
        assert not [name for name in seen.headers if "_" in name]
        assert seen.path.startswith((INFER.decode(), EMBED.decode()))


def post(path: bytes = INFER, extra: bytes = b"", body: bytes = BODY, *, host: bytes = b"host: x\r\n") -> bytes:
    return b"POST %b HTTP/1.1\r\n%bcontent-length: %d\r\n%b\r\n%b" % (path, host, len(body), extra, body)


def bare(extra: bytes, body: bytes = b"", path: bytes = INFER, method: bytes = b"POST") -> bytes:
    """Without a content-length of ours."""
    return b"%b %b HTTP/1.1\r\nhost: x\r\n%b\r\n%b" % (method, path, extra, body)


LENGTH = b"inference-header-content-length: %b\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
ONE_CHUNK = b"e\r\n%b\r\n0\r\n" % BODY


@dataclass(frozen=True)
class Case:
    """What is sent, and what may come of it. ``reaches``: the engine `m1` sees one request, as itself."""

    sent: bytes
    statuses: tuple[int, ...]
    reaches: bool = False


SPOOFED = (
    wire.MODEL, wire.SITE, wire.FULL, wire.ERROR, wire.REASON, "x-nearcast-new", "x-envoy-original-path",
    wire.LONGEST_WAIT, "x-envoy-retry-on", "x-envoy-max-retries", "x-envoy-upstream-rq-timeout-ms", "x-envoy-internal",
    "x-forwarded-client-cert", "x_nearcast_model", "x-nearcast_model", "x_envoy_original_path",
)  # fmt: skip


def spellings(name: str) -> list[bytes]:
    odd = "".join(letter.upper() if index % 2 else letter for index, letter in enumerate(name))
    return [text.encode() for text in (name, name.upper(), name.title(), odd)]


STRIPPED = {
    f"{spelled.decode()} as {how}": Case(post(extra=extra), (200,), reaches=True)
    for name in SPOOFED
    for spelled in spellings(name)
    for how, extra in {
        "one": b"%b: closed\r\n" % spelled,
        "two": b"%b: m1\r\n%b: closed\r\n" % (spelled, spelled.lower()),
        "folded": b"x-a: b\r\n %b: closed\r\n" % spelled,
        "hidden by LF": b"x-a: b\n%b: closed\r\n" % spelled,
    }.items()
}
FRAMING = {
    "TE and CL": Case(post(extra=CHUNKED, body=b"0\r\n\r\n"), (400,)),
    "TE, space before the colon": Case(bare(b"transfer-encoding : chunked\r\n", ONE_CHUNK + b"\r\n"), (400,)),
    "TE chunked, identity": Case(bare(b"transfer-encoding: chunked, identity\r\n", ONE_CHUNK + b"\r\n"), (400,)),
    "TE xchunked": Case(bare(b"transfer-encoding: xchunked\r\n", ONE_CHUNK + b"\r\n"), (400,)),
    "TE gzip, chunked": Case(bare(b"transfer-encoding: gzip, chunked\r\n", ONE_CHUNK + b"\r\n"), (400,)),
    "TE twice": Case(bare(CHUNKED * 2, ONE_CHUNK + b"\r\n"), (400,)),
    "TE identity and CL": Case(post(extra=b"transfer-encoding: identity\r\n"), (400,)),
    "TE in HTTP/1.0": Case(
        bare(CHUNKED, ONE_CHUNK + b"\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"), (200, 400), reaches=True
    ),
    "CL twice, different": Case(post(extra=b"content-length: 3\r\n"), (400,)),
    "CL twice, the same": Case(post(extra=b"content-length: 14\r\n"), (400,)),
    "CL as a list": Case(bare(b"content-length: 14, 14\r\n", BODY), (400,)),
    "CL +14": Case(bare(b"content-length: +14\r\n", BODY), (400,)),
    "CL -1": Case(bare(b"content-length: -1\r\n", BODY), (400,)),
    "CL 0xe": Case(bare(b"content-length: 0xe\r\n", BODY), (400,)),
    "CL of 30 digits": Case(bare(b"content-length: %b\r\n" % (b"9" * 30), BODY), (400, 413)),
    "chunk size no number": Case(bare(CHUNKED, b"zz\r\n" + BODY + b"\r\n0\r\n\r\n"), (400,)),
    "chunk size negative": Case(bare(CHUNKED, b"-e\r\n" + BODY + b"\r\n0\r\n\r\n"), (400,)),
    "chunk size too large": Case(bare(CHUNKED, b"fffffffffffffffff\r\n" + BODY + b"\r\n0\r\n\r\n"), (400,)),
    "chunk size 0x": Case(bare(CHUNKED, b"0xe\r\n" + BODY + b"\r\n0\r\n\r\n"), (400,)),
    "chunk lines by LF": Case(bare(CHUNKED, b"e\n" + BODY + b"\n0\n\n"), (400,)),
    # Envoy drops the rest of the line; the engine gets the four bytes in a frame of Envoy's own.
    "chunk longer than it says": Case(bare(CHUNKED, b"4\r\n" + BODY + b"\r\n0\r\n\r\n"), (200, 400), reaches=True),
    "chunk with an extension": Case(
        bare(CHUNKED, ONE_CHUNK.replace(b"e\r\n", b"e;a=b\r\n", 1) + b"\r\n"), (200,), True
    ),
    "trailers of ours": Case(bare(CHUNKED, ONE_CHUNK + b"x-nearcast-model: closed\r\n\r\n"), (200,), reaches=True),
    "trailers that frame": Case(bare(CHUNKED, ONE_CHUNK + b"content-length: 99\r\n\r\n"), (200, 400), reaches=True),
}
HEADERS = {
    "NUL in a value": Case(post(extra=b"x-a: b\x00c\r\n"), (400,)),
    "space in a name": Case(post(extra=b"x a: b\r\n"), (400,)),
    "no name": Case(post(extra=b": b\r\n"), (400,)),
    "NUL in a name": Case(post(extra=b"x\x00a: b\r\n"), (400,)),
    "bytes beyond ASCII in a name": Case(post(extra="x-ä: b\r\n".encode()), (400,)),
    "a pseudo header in HTTP/1.1": Case(post(extra=b":path: /v2/models/closed/infer\r\n"), (400,)),
    "CR in a value": Case(post(extra=b"x-a: b\rx-nearcast-model: closed\r\n"), (200, 400), reaches=True),
    "200 headers": Case(post(extra=b"".join(b"x-%d: 1\r\n" % index for index in range(200))), (431,)),
    "70 KB in one header": Case(post(extra=b"x-a: %b\r\n" % (b"y" * 70_000)), (431,)),
    "no host": Case(post(host=b""), (400,)),
    "a host with a space": Case(post(host=b"host: a b\r\n"), (400,)),
    "a host with a path": Case(post(host=b"host: x/v2/models/closed/infer\r\n"), (400,)),
    "two hosts": Case(post(host=b"host: a\r\nhost: b\r\n"), (400,)),
    "one host twice": Case(post(host=b"host: a\r\nHost: a\r\n"), (400,)),
    "two lengths of JSON": Case(post(extra=LENGTH % b"2" + LENGTH % b"14"), (400,)),
    "one length of JSON twice": Case(post(extra=LENGTH % b"14" + (LENGTH % b"14").title()), (400,)),
    "two lengths of JSON on a line": Case(post(extra=LENGTH % b"2,14"), (400,)),
    "one length of JSON": Case(post(extra=LENGTH % b"14"), (200,), reaches=True),
    "another path by header": Case(post(extra=b"x-original-url: /v2/models/closed/infer\r\n"), (200,), reaches=True),
    "another path by rewrite": Case(post(extra=b"x-rewrite-url: /v2/models/closed/infer\r\n"), (200,), reaches=True),
    "another method by header": Case(post(extra=b"x-http-method-override: DELETE\r\n"), (200,), reaches=True),
    "hop by hop over ours": Case(post(extra=b"connection: x-nearcast-model\r\n"), (200, 400), reaches=True),
    "expect a continue": Case(post(extra=b"expect: 100-continue\r\n"), (200,), reaches=True),
}
UPGRADES = {
    "websocket": Case(
        bare(b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n", method=b"GET"), (400, 403)
    ),
    "h2c": Case(
        post(extra=b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"), (200,), True
    ),
    "CONNECT to elsewhere": Case(bare(b"", path=b"example.com:443", method=b"CONNECT"), (400, 404)),
    "CONNECT to a model": Case(bare(b"", path=b"/v2/models/closed/infer", method=b"CONNECT"), (400, 404)),
    "a method that is none": Case(bare(b"", method=b"FOO"), (400,)),
    "OPTIONS *": Case(bare(b"", path=b"*", method=b"OPTIONS"), (404,)),
}
PATHS = {
    path.decode("latin-1"): Case(post(path=path), statuses)
    for path, statuses in {
        b"/v2/models/closed/infer": (403,),
        b"http://elsewhere/v2/models/closed/infer": (403,),
        b"/v2/models/m1/../closed/infer": (403,),
        b"/v2/models/m1/%2e%2e/closed/infer": (403,),
        b"/v2/models/m1/.%2E/closed/infer": (403,),
        b"/v2/models/clos%65d/infer": (403,),
        b"//v2///models//closed//infer": (403,),
        b"/v2/models\\closed/infer": (403,),
        b"/v2/models/m1;/../closed/infer": (403,),
        b"/v2/models/closed;x=y/infer": (404,),
        b"/v2/models/closed%00/infer": (400,),
        b"/v2/models%2fclosed/infer": (400,),
        b"/v2/models%5cclosed/infer": (400,),
        b"/v2/models/closed/infer#m1": (400,),
        b"/v2/models/m1/infer /v2/models/closed/infer": (400,),
        "/v2/models/clösed/infer".encode(): (400,),
        b"/v2/models/" + b"a" * 20_000 + b"/infer": (404,),
        b"/v2/models/" + b"a" * 70_000 + b"/infer": (431,),
        b"/m/closed/v1/embeddings": (403,),
        b"/m/m1/../closed/v1/embeddings": (403,),
        b"/m/clos%65d/v1/embeddings": (403,),
        b"/M/closed/v1/embeddings": (404,),
        b"/V2/models/closed/infer": (404,),
        b"/-/load": (404,),
        b"/v2/models//infer": (404,),
    }.items()
}
CASES = STRIPPED | FRAMING | HEADERS | UPGRADES | PATHS


def assert_shape(reply: Any) -> None:
    """An error in words, of one shape, with a code; never an empty one."""
    if reply.status >= 400:
        assert len(reply.message) > 8, reply.body
        assert reply.headers[wire.ERROR]


@pytest.mark.parametrize("name", CASES)
def test_refused_or_stripped_and_the_connection_stays_in_step(site: Site, name: str) -> None:
    case = CASES[name]
    with Connection(tcp("127.0.0.1", site.public)) as connection:
        connection.send(case.sent + LIVE)
        reply = connection.receive()
        assert reply.status in case.statuses, reply
        assert_shape(reply)
        if reply.status in {200, 404, 403} and not reply.closed:
            after = connection.receive()
            assert (after.status, after.json) == (200, {"live": True})
        else:  # whatever Envoy could not frame ends the connection: nothing after it is ever read as a request
            connection.finish_sending()
            rest = connection.rest()
            assert rest.count(b"HTTP/1.") <= 1, rest
    seen = site.engines["m1", "1"].seen
    assert len(seen) == int(case.reaches and reply.status == 200)
    if seen:
        assert seen[0].body in {BODY, BODY[:4], b""}


def test_a_request_line_alone_is_http_1_0_and_reaches_nobody(site: Site) -> None:
    """HTTP/0.9 has no headers and no bodies: it gets what HTTP/1.0 gets, which is what needs neither."""
    for path in (b"/v2/models/closed", b"/v2/models/closed/infer"):
        with Connection(tcp("127.0.0.1", site.public)) as connection:
            connection.send(b"GET %b\r\n\r\n" % path)
            connection.finish_sending()
            assert b"200" not in connection.rest().partition(b"\r\n")[0]


# --- a body that names several models, or another one ----------------------------------------------------------------


def test_a_body_does_not_lead_around_the_path(site: Site) -> None:
    """Routed by the path; the engine refuses the body (`test_engine_protocol`): never the other way round."""
    for path in (b"/m/m1/v1/embeddings", INFER):
        with Connection(tcp("127.0.0.1", site.public)) as connection:
            reply = connection.ask(post(path, body=b'{"model":"closed","model_name":"closed"}'))
        assert reply.status == 200
    assert len(site.engines["m1", "1"].seen) == 2


FAR = b'"input":"%b"' % (b"x" * 9000)
NAMED = {
    "one": (b'{"model":"closed"}', 403),
    "escaped key": (b'{"mod\\u0065l":"closed"}', 403),
    "escaped value": (b'{"model":"clos\\u0065d"}', 403),
    "far": (b"{%b,%b}" % (FAR, b'"model":"closed"'), 403),
    "escaped and far": (b"{%b,%b,%b}" % (FAR, b'"mod\\u0065l":"closed"', FAR.replace(b"input", b"more")), 403),
    "two": (b'{"model":"m1","model":"closed"}', 400),
    "two, escaped": (b'{"model":"m1","mod\\u0065l":"closed"}', 400),
    "two, escaped first": (b'{"\\u006dodel":"closed","model":"m1"}', 400),
    "nested only": (b'{"a":{"model":"m1"}}', 400),
    "in a text": (b'{"input":"\\"model\\":\\"m1\\""}', 400),
    "in a list": (b'[{"model":"m1"}]', 400),
    "not a string": (b'{"model":["m1"]}', 400),
    "NUL at the end": (b'{"model":"closed\\u0000"}', 404),
    "space at the end": (b'{"model":"closed "}', 404),
    "other case": (b'{"model":"Closed"}', 404),
    "key in another case": (b'{"Model":"m1"}', 400),
    "UTF-16": ('{"model":"closed"}'.encode("utf-16"), 400),
    "not JSON": (b"model=closed", 400),
    "empty": (b"", 400),
}


@pytest.mark.parametrize("name", NAMED)
def test_the_model_of_a_body_is_found_however_it_is_written(site: Site, name: str) -> None:
    body, status = NAMED[name]
    with Connection(tcp("127.0.0.1", site.public)) as connection:
        reply = connection.ask(post(EMBED, body=body))
    assert reply.status == status, reply
    assert_shape(reply)
    assert set(reply.json["error"]) >= {"message", "type", "param", "code"}
    assert site.engines["m1", "1"].seen == []


# --- HTTP/2 ----------------------------------------------------------------------------------------------------------

OURS = [
    (wire.MODEL.encode(), b"closed"),
    (b"x-forwarded-client-cert", b"URI=spiffe://x"),
    (b"x_nearcast_model", b"closed"),
]
TWO_LENGTHS = [(wire.INFERENCE_HEADER_LENGTH.encode(), length) for length in (b"2", b"14")]
LIES = {
    "headers of ours": (request(1, [*pseudo(INFER), *OURS], BODY), 200),
    "trailers of ours": (request(1, pseudo(INFER), BODY, trailers=OURS), 200),
    "a pseudo header of ours": (request(1, [*pseudo(INFER), (b":x-nearcast-model", b"closed")], BODY), None),
    "a pseudo header after others": (request(1, [(b"a", b"b"), *pseudo(INFER)], BODY), None),
    "two paths": (request(1, [*pseudo(INFER), (b":path", b"/v2/models/closed/infer")], BODY), None),
    "a path in trailers": (request(1, pseudo(INFER), BODY, trailers=[(b":path", b"/v2/models/closed/infer")]), None),
    "capitals": (request(1, [*pseudo(INFER), (b"X-Nearcast-Model", b"closed")], BODY), None),
    "CR LF in a value": (request(1, [*pseudo(INFER), (b"a", b"b\r\nx-nearcast-model: closed")], BODY), None),
    "NUL in a value": (request(1, [*pseudo(INFER), (b"a", b"b\x00c")], BODY), None),
    "CR LF in the path": (request(1, pseudo(b"/v2 HTTP/1.1\r\nx: y\r\n\r\nGET /v2/models/closed"), BODY), None),
    "a space in the path": (request(1, pseudo(b"/v2/models/m1/infer HTTP/1.1"), BODY), None),
    "CR LF in the method": (request(1, pseudo(INFER, method=b"POST /v2 HTTP/1.1\r\nx: y"), BODY), None),
    "CR LF in the authority": (request(1, pseudo(INFER, authority=b"x\r\nx-nearcast-model: closed"), BODY), None),
    "transfer-encoding": (request(1, [*pseudo(INFER), (b"transfer-encoding", b"chunked")], BODY), None),
    "connection": (request(1, [*pseudo(INFER), (b"connection", b"upgrade")], BODY), None),
    "a length that is short": (request(1, [*pseudo(INFER), (b"content-length", b"3")], BODY), None),
    "a length that is long": (request(1, [*pseudo(INFER), (b"content-length", b"99")], BODY), None),
    "two lengths": (request(1, [*pseudo(INFER), (b"content-length", b"14"), (b"content-length", b"3")], BODY), None),
    "two lengths of JSON": (request(1, [*pseudo(INFER), *TWO_LENGTHS], BODY), 400),
    "two hosts": (request(1, [*pseudo(INFER, authority=b"a,b")], BODY), 400),
    "no path": (request(1, pseudo(INFER)[:3], BODY), None),
    "an empty path": (request(1, pseudo(b""), BODY), None),
    "a closed model": (request(1, pseudo(b"/v2/models/closed/infer"), BODY), 403),
    "CONNECT": (request(1, [(b":method", b"CONNECT"), (b":authority", b"x:1")], BODY), 404),
    "extended CONNECT": (request(1, [*pseudo(INFER, method=b"CONNECT"), (b":protocol", b"websocket")]), None),
}


@pytest.mark.parametrize("name", LIES)
def test_lies_in_http_2(site: Site, name: str) -> None:
    """Refused with a 4xx or a reset stream (None), or stripped; the gateway goes on."""
    sent, expected = LIES[name]
    with Http2(tcp("127.0.0.1", site.public)()) as connection:
        connection.send(sent)
        status = connection.answer(1)
    if expected is None:
        assert status is None or 400 <= status < 500, status
    else:
        assert status == expected
    assert_goes_on(site)


def test_a_call_with_two_timeouts_is_refused(site: Site) -> None:
    fields = [(b"content-type", b"application/grpc"), (b"grpc-timeout", b"1S"), (b"grpc-timeout", b"9H")]
    with Http2(tcp("127.0.0.1", site.public)()) as connection:
        connection.send(request(1, [*pseudo(f"{wire.GRPC_SERVICE_PATH}ModelInfer".encode()), *fields], b"\0" * 5))
        head = next(found for found in connection.frames(20) if found.kind == frames.HEADERS)
    answered = dict(Decoder().decode(head.payload))
    assert (answered["grpc-status"], answered[wire.ERROR]) == ("3", "bad_request")
    assert answered["grpc-message"] == "expected one grpc-timeout, got several"


VERSIONS = (b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/3.7", b"HTTP/9.9")
NO_VERSIONS = (b"HTTP/1.10", b"HTTP/11.1", b"HTTP/1", b"http/1.1", b"FOO/1.1", b"ICE/1.0", b"HTTP/-1.1")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_that_is_not_known_is_taken_as_1_0(site: Site, version: bytes) -> None:
    """Envoy tells 1.1 from all others. Answered as 1.0 is, the connection ends: nothing after it is a request."""
    with Connection(tcp("127.0.0.1", site.public)) as connection:
        connection.send(post().replace(b"HTTP/1.1", version) + LIVE)
        got = connection.rest()
    assert got.startswith(b"HTTP/1.0 200 ")
    assert got.count(b"HTTP/1.") == 1


@pytest.mark.parametrize("version", NO_VERSIONS)
def test_what_is_no_version_is_refused(site: Site, version: bytes) -> None:
    with Connection(tcp("127.0.0.1", site.public)) as connection:
        reply = connection.ask(post().replace(b"HTTP/1.1", version))
    assert (reply.status, reply.closed) == (400, True)
    assert_shape(reply)


def assert_goes_on(site: Site) -> None:
    with Http2(tcp("127.0.0.1", site.public)()) as connection:
        connection.send(request(1, pseudo(INFER), BODY))
        assert connection.answer(1) == 200


def flood(name: str) -> bytes:
    get = pseudo(b"/v2/health/live", method=b"GET")
    many = 20_000
    return {
        "bad preface": b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "settings": frame(frames.SETTINGS, 0, 0) * many,
        "pings": frame(frames.PING, 0, 0, b"12345678") * many,
        "rapid reset": b"".join(
            request(stream, get) + frame(frames.RST, 0, stream, b"\x00\x00\x00\x08") for stream in range(1, many, 2)
        ),
        "continuation without end": frame(frames.HEADERS, 0, 1, b"")
        + frame(frames.CONTINUATION, 0, 1, frames.block([(b"a", b"b" * 100)])) * many,
        "empty continuations": frame(frames.HEADERS, 0, 1, b"") + frame(frames.CONTINUATION, 0, 1) * many,
        "empty data": frame(frames.HEADERS, frames.END_HEADERS, 1, frames.block(pseudo(INFER)))
        + frame(frames.DATA, 0, 1) * many,
        "window updates": frame(frames.WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 4,
        "priorities": frame(frames.PRIORITY, 0, 1, b"\x00\x00\x00\x00\x10") * many,
        "a frame over the limit": frame(frames.DATA, 0, 1, b"", length=(1 << 24) - 1) + b"x" * 100_000,
        "pushes": frame(frames.PUSH, frames.END_HEADERS, 1, b"\x00\x00\x00\x02"),
        "data before headers": frame(frames.DATA, 0, 1, BODY),
        "an even stream": request(2, get),
        "headers on stream 0": frame(frames.HEADERS, 5, 0, frames.block(get)),
        "a stream that is lower": request(5, get) + request(3, get),
        "an index into nothing": frame(frames.HEADERS, 5, 1, b"\xff\xff\xff\x7f"),
        "unknown frames": frame(200, 255, 77, b"?" * 1000) * 2000,
        "more streams than allowed": b"".join(
            frame(frames.HEADERS, frames.END_HEADERS, stream, frames.block(pseudo(INFER)))
            for stream in range(1, 2000, 2)
        ),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "bad preface", "settings", "pings", "rapid reset", "continuation without end", "empty continuations",
        "empty data", "window updates", "priorities", "a frame over the limit", "pushes", "data before headers",
        "an even stream", "headers on stream 0", "a stream that is lower", "an index into nothing",
        "unknown frames", "more streams than allowed",
    ],
)  # fmt: skip
def test_floods_of_frames_are_bounded(site: Site, name: str) -> None:
    """The connection is ended, or the frames are ignored; others are answered meanwhile and after it."""
    preface = flood(name) if name == "bad preface" else frames.PREFACE
    with Http2(tcp("127.0.0.1", site.public)(), preface) as connection:
        if name != "bad preface":
            connection.send(flood(name))
        assert_goes_on(site)
        for found in connection.frames(0.3):
            assert found.kind != frames.HEADERS or frames.status_of(found.payload) < 500
    assert_goes_on(site)
    assert json.loads(json.dumps(site.ejections())) == {}
