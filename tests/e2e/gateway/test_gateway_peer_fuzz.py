"""The peer listener under whoever reaches its port: without a certificate, with a wrong one, and as a peer gone bad.

Nobody but a node of the fleet gets as far as HTTP; a node gets as far as its site may, whatever it writes into headers,
paths and frames. Peers that are honest are answered all the while, and the gateway holds no more than before.
"""

import contextlib
import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hpack import Decoder

from fuzz import frames
from fuzz.amount import amount, seeded
from fuzz.frames import Http2, block, frame, pseudo, request
from fuzz.malformed import broken
from fuzz.vitals import Bounds, Watch, traces
from nearcast.gateway.render import Identity
from nearcast.resources import wire
from nearcast.resources.plan import ResidencyRule

Fleet, Site = Any, Any
BODY = b'{"inputs":[]}'
INFER = b"/v2/models/m1/infer"
MODEL = wire.MODEL.encode()
MOST = 1 << 20
"""Bytes of a body that the gateway takes."""
SHORT = 100
BOUNDS = Bounds(memory_bytes=24 << 20, descriptors=64, threads=4)


class Stand:
    """The site ``sin``, which ``fra`` may call for `m1` only, and everybody who tries."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self._fleet, self._folder = fleet, folder
        self.site: Site = fleet.site("sin")
        self.site.add("m1")
        self.site.add("closed")
        rule = ResidencyRule(policy="home", models=("closed",), origin_sites=("fra",), allow_sites=("fra",))
        inputs = self.site.inputs(
            {"m1": [(100, "sin")], "closed": [(100, "sin")]},
            callers=("fra",),
            rules=(rule,),
            revoked=("spiffe://fleet.test/site/fra/node/lost",),
        )
        self.site.run(replace(inputs, max_body_bytes=MOST))
        others = type(fleet.authority)()
        trusted = self.site.identity.authority_pem
        self.contexts = {
            "peer": self._context(fleet.authority.identity("fra")),
            "no caller": self._context(fleet.authority.identity("iad")),
            "revoked": self._context(fleet.authority.identity("fra", "lost")),
            "another fleet": self._context(replace(others.identity("fra"), authority_pem=trusted)),
            "nobody": self._context(None),
        }
        self.honest = http.client.HTTPSConnection(
            "127.0.0.1", self.site.peer_port, context=self._context(fleet.authority.identity("fra"), ()), timeout=20
        )

    def _context(self, identity: Identity | None, protocols: tuple[str, ...] = ("h2",)) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.site.identity.authority_pem)
        context.check_hostname = False
        if protocols:
            context.set_alpn_protocols([*protocols])
        if identity is not None:
            pem = self._folder / "id.pem"
            pem.write_text(identity.certificate_pem + identity.key_pem)
            context.load_cert_chain(pem)
        return context

    def tcp(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.site.peer_port), timeout=20)

    def tls(self, who: str) -> ssl.SSLSocket:
        with self.tcp() as sock:  # which is its own no longer once it is wrapped
            return self.contexts[who].wrap_socket(sock)

    def hello(self) -> bytes:
        """What a client says first."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with contextlib.suppress(ssl.SSLWantReadError):
            self.contexts["peer"].wrap_bio(incoming, outgoing).do_handshake()
        return outgoing.read()

    def pids(self) -> dict[str, int]:
        return {"gateway": self.site.gateway.pid()}

    def asked(self, *fields: tuple[bytes, bytes], path: bytes = INFER, who: str = "peer", body: bytes = BODY) -> int:
        """The status of one request, whose head has ``fields``."""
        with Http2(self.tls(who)) as connection:
            connection.send(request(1, [*pseudo(path), *fields], body))
            return connection.answer(1) or 0

    def assert_honest_are_answered(self) -> None:
        """On a connection that has stood all the time, and on a new one."""
        answer = self._fleet.exchange(self.honest, "/v2/models/m1", headers={wire.MODEL: "m1"}, close=False)
        assert (answer.status, answer.json["by"]) == (200, "m1@1")
        assert self.asked((MODEL, b"m1")) == 200


@pytest.fixture(scope="module")
def stand(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    made = Stand(fleet, tmp_path_factory.mktemp("peers"))
    yield made
    made.honest.close()


@pytest.fixture(autouse=True)
def closed_stays_closed(stand: Stand) -> Iterator[None]:
    """After each test: the model that `fra` may not call saw nothing, and the gateway held none of it against it."""
    for engine in stand.site.engines.values():
        engine.seen.clear()
    yield
    assert stand.site.engines["closed", "1"].seen == []
    assert stand.site.ejections() == {}
    stand.assert_honest_are_answered()


def thrown(stand: Stand, name: str, throw: Callable[[Random], None]) -> None:
    dice, log = seeded(f"peer-{name}"), stand.site.root / "gateway.log"
    for _ in range(30):
        throw(dice)
    watch, mark = Watch(stand.pids, BOUNDS), {log: log.stat().st_size}
    for index in range(amount(SHORT)):
        throw(dice)
        if index % 20 == 0:
            stand.assert_honest_are_answered()
    watch.check()
    assert traces([log], mark) == []


# --- who is no peer --------------------------------------------------------------------------------------------------


def test_bytes_that_are_not_tls(stand: Stand) -> None:
    """Noise, plain HTTP, a greeting that is broken, records that lie about their length."""
    hello = stand.hello()

    def throw(dice: Random) -> None:
        data = (
            dice.randbytes(dice.randrange(1, 3000)),
            frames.PREFACE + request(1, [*pseudo(INFER), (MODEL, b"m1")], BODY),
            broken(dice, hello),
            b"\x16\x03\x01" + dice.randbytes(2) + dice.randbytes(dice.randrange(300)),
            hello + dice.randbytes(dice.randrange(1, 2000)),
            hello * dice.randrange(2, 20),
        )[dice.randrange(6)]
        with stand.tcp() as sock, contextlib.suppress(OSError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            got = b""
            while more := sock.recv(65536):
                got += more
            assert b"HTTP" not in got

    thrown(stand, "tls", throw)


@pytest.mark.parametrize("who", ["nobody", "another fleet", "revoked"])
def test_who_may_not_connect_gets_no_answer(stand: Stand, who: str) -> None:
    """Whatever they send behind a handshake, which TLS 1.3 lets a client believe in: not one frame of an answer."""

    def throw(dice: Random) -> None:
        data = frames.PREFACE + request(1, [*pseudo(INFER), (MODEL, b"m1")], BODY)
        with contextlib.suppress(OSError), stand.tls(who) as line:
            line.sendall(broken(dice, data) if dice.random() < 0.5 else data)
            answers = [found for found in Http2(line, b"").frames(20) if found.kind == frames.HEADERS]
            assert answers == []

    thrown(stand, who.replace(" ", "-"), throw)
    assert {seen.path for seen in stand.site.engines["m1", "1"].seen} == {"/v2/models/m1", INFER.decode()}


# --- a peer gone bad -------------------------------------------------------------------------------------------------


def test_frames_of_a_peer(stand: Stand) -> None:
    """Frames of any kind, and right ones that were broken."""
    good = request(1, [*pseudo(INFER), (MODEL, b"m1")], BODY)

    def any_frame(dice: Random) -> bytes:
        payload = dice.choice((b"", dice.randbytes(dice.randrange(200)), block(pseudo(INFER))))
        length = dice.choice((None, None, None, 0, len(payload) + 1, (1 << 24) - 1))
        stream = dice.choice((0, 1, 2, 3, 2**31 - 1))
        return frame(dice.randrange(12), dice.randrange(256), stream, payload, length=length)

    def throw(dice: Random) -> None:
        if dice.random() < 0.5:
            data = b"".join(any_frame(dice) for _ in range(dice.randrange(1, 8)))
        else:
            data = broken(dice, good) + (good if dice.random() < 0.3 else b"")
        with stand.tls("peer") as line, contextlib.suppress(OSError):
            line.sendall(frames.PREFACE + frame(frames.SETTINGS, 0, 0) + data)
            line.settimeout(0.02)  # long enough for Envoy to have read it; what it says to it is its own affair
            while line.recv(65536):
                pass

    thrown(stand, "frames", throw)


FORGED = (
    (b"x-forwarded-client-cert", b"By=x;URI=spiffe://fleet.test/site/sin/node/n1"),
    (b"x-forwarded-client-cert", b"Hash=0;URI=spiffe://fleet.test/site/fra/node/n1"),
    (b"x-forwarded-for", b"127.0.0.1"),
    (b"x-nearcast-site", b"sin"),
    (b"x-nearcast-error", b"model_required"),
    (b"x-nearcast-full", b"queue"),
    (b"x-nearcast-via", b"sin"),
    (b"x-nearcast-repeated", b"1"),
    (b"x_nearcast_model", b"closed"),
    (b"x-envoy-original-path", b"/v2/models/closed/infer"),
    (b"x-envoy-internal", b"true"),
    (b"x-envoy-upstream-alt-stat-name", b"closed"),
)


def test_forged_headers_are_believed_by_nobody(stand: Stand) -> None:
    """Who calls is what the certificate says; what is asked for is one model."""
    assert stand.asked((MODEL, b"m1"), *FORGED) == 200
    (seen,) = stand.site.engines["m1", "1"].seen
    assert seen.headers["x-forwarded-client-cert"].endswith(";URI=spiffe://fleet.test/site/fra/node/n1")
    assert seen.headers["x-forwarded-client-cert"].count("URI=") == 1
    assert not [name for name in seen.headers if "_" in name or name == "x-envoy-original-path"]
    for path in (INFER, b"/v2/models/closed/infer", b"/-/load", b"/metrics"):
        for model in (b"m1", b"closed", b"ghost", None):
            fields = [(MODEL, model)] if model else []
            assert stand.asked(*fields, *FORGED, path=path, who="no caller") == 403, (path, model)


NAMES = (
    b"closed", b"Closed", b"closed ", b"closed,m1", b"m1,closed", b"m1\tclosed", b"", b"ghost", b"../closed",
    b"a" * 9000,
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_model_that_the_site_may_not_call(stand: Stand, name: bytes) -> None:
    assert stand.asked((MODEL, name), path=b"/v2/models/closed/infer") in {0, 400, 403, 503}
    assert stand.site.engines["m1", "1"].seen == []


def test_two_models_are_none(stand: Stand) -> None:
    for first, second in ((b"m1", b"closed"), (b"closed", b"m1"), (b"m1", b"m1")):
        assert stand.asked((MODEL, first), (MODEL, second)) == 503
    assert stand.site.engines["m1", "1"].seen == []


PATHS = (
    b"/", b"/metrics", b"/-/models", b"/-/models/m1/1", b"/v2", b"/v2/models/m1", INFER, b"/v1/embeddings", b"/stats",
    b"/config_dump", b"/quitquitquit", b"/-/peers/fra/load", b"/-/load/", b"/-/../metrics", b"/-/%6coad/x",
    b"//-/load/x", b"/inference.GRPCInferenceService/ModelInfer",
    b"/inference.GRPCInferenceService/ServerLive", b"/grpc.health.v1/x",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=bytes.decode)
def test_without_a_model_there_is_the_load_report_and_nothing_else(stand: Stand, path: bytes) -> None:
    stand.site.status.seen.clear()
    assert stand.asked(path=path) == 503
    assert stand.asked(path=b"/-/load") == 200
    told = [seen.path for seen in stand.site.status.seen if seen.path != wire.LIVE_PATH]  # Envoy itself asks that one
    assert told == ["/-/load"]


def test_calls_of_a_peer(stand: Stand) -> None:
    """gRPC by frames: of a model that the site may not call, of none, and with a body that is no message."""
    path = f"{wire.GRPC_SERVICE_PATH}ModelInfer".encode()
    call = (b"content-type", b"application/grpc")
    for model, status in ((b"closed", "8"), (b"ghost", "8"), (b"m1,closed", "8")):
        with Http2(stand.tls("peer")) as connection:
            connection.send(request(1, [*pseudo(path), call, (b"te", b"trailers"), (MODEL, model)], b"\xff" * 40))
            head = next(found for found in connection.frames(20) if found.kind == frames.HEADERS)
        answered = dict(Decoder().decode(head.payload))
        assert (answered[":status"], answered["grpc-status"]) == ("200", status)
    assert stand.site.engines["m1", "1"].seen == []


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
def test_a_body_over_the_bound(stand: Stand, told: bool) -> None:
    body = b"x" * (MOST + 1)
    fields = [(MODEL, b"m1"), *([(b"content-length", str(len(body)).encode())] if told else [])]
    with Http2(stand.tls("peer")) as connection:
        connection.send(request(1, [*pseudo(INFER), (MODEL, b"m1")], BODY))
        assert connection.answer(1) == 200  # and its windows are known
        sent = frame(frames.HEADERS, frames.END_HEADERS, 3, block([*pseudo(INFER), *fields]))
        pieces = [body[at : at + 16_000] for at in range(0, len(body), 16_000)]
        sent += b"".join(frame(frames.DATA, 0, 3, piece) for piece in pieces)
        connection.send(sent + frame(frames.DATA, frames.END_STREAM, 3))
        assert connection.answer(3) == 413
    assert [seen.body for seen in stand.site.engines["m1", "1"].seen] == [BODY]
