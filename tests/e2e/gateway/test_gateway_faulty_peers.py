"""Peers that are worse than dead: what each does to a request that has another place to go, and who says so.

The gateway is real; the peer is a socket of the test that behaves as its fault says. Time-outs are the gateway's own.
"""

import asyncio
import http.client
import ssl
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from nearcast.gateway.render.places import PATIENCE_STEPS_S
from nearcast.planning.cost import Terms
from nearcast.planning.routes import PlaceCost, RouteTable

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

SETTINGS = bytes.fromhex("000000040000000000")


async def _close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _silence(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass


async def _html(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1024)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html></html>")
    await writer.drain()


async def _garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(bytes(range(256)) * 64)
    await writer.drain()
    await _silence(reader, writer)


async def _settings_then_silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """HTTP/2 as far as the settings: the connection stands, and neither requests nor pings are answered."""
    writer.write(SETTINGS)
    await writer.drain()
    await _silence(reader, writer)


DATA, HEADERS, SETTINGS_TYPE, PING = 0, 1, 4, 6
ACK = END_STREAM = 1
OK_OF_100_BYTES = bytes([0x88, 0x0F, 0x0D, 3]) + b"100"
"""HPACK: `:status: 200`, `content-length: 100`."""


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _peer_that(answers: Callable[[asyncio.StreamWriter, int], Awaitable[None]]) -> Serve:
    """HTTP/2 as far as settings and pings, which are answered at once; requests are answered as ``answers`` does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(24)
        writer.write(SETTINGS)
        async with asyncio.TaskGroup() as tasks:
            while head := await reader.readexactly(9):
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                if kind in {SETTINGS_TYPE, PING} and not flags & ACK:
                    writer.write(_frame(kind, ACK, 0, payload if kind == PING else b""))
                elif kind == HEADERS:
                    tasks.create_task(answers(writer, stream))

    async def until_it_ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except* (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass

    return until_it_ends


async def _half(writer: asyncio.StreamWriter, stream: int) -> None:
    writer.write(_frame(HEADERS, 4, stream, OK_OF_100_BYTES) + _frame(DATA, 0, stream, b"x" * 40))
    await writer.drain()
    await asyncio.sleep(0.3)
    writer.close()


async def _half_that_claims_to_be_all(writer: asyncio.StreamWriter, stream: int) -> None:
    writer.write(_frame(HEADERS, 4, stream, OK_OF_100_BYTES) + _frame(DATA, END_STREAM, stream, b"x" * 40))
    await writer.drain()


async def _never(_writer: asyncio.StreamWriter, _stream: int) -> None:
    await asyncio.sleep(200)


async def _late(writer: asyncio.StreamWriter, stream: int) -> None:
    await _answer_after(8, writer, stream)  # longer than any ping or health check waits


async def _later_than_patience(writer: asyncio.StreamWriter, stream: int) -> None:
    await _answer_after(PATIENCE_STEPS_S[0] + 2, writer, stream)


async def _answer_after(seconds: float, writer: asyncio.StreamWriter, stream: int) -> None:
    await asyncio.sleep(seconds)
    writer.write(_frame(HEADERS, 4, stream, OK_OF_100_BYTES) + _frame(DATA, END_STREAM, stream, b"x" * 100))
    await writer.drain()


class FaultyPeer:
    """A server in the place of a peer's gateway."""

    def __init__(self, fleet, peer, serve: Serve, *, tls: str) -> None:
        self.connections = 0
        self._fleet, self._serve = fleet, serve
        context = None
        if tls != "none":
            identity = peer.identity if tls == "ours" else type(fleet.authority)().identity(peer.name)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate, key = peer.root / f"{tls}.pem", peer.root / f"{tls}.key"
            certificate.write_text(identity.certificate_pem)
            key.write_text(identity.key_pem)
            context.load_cert_chain(certificate, key)
            context.set_alpn_protocols(["h2"])
        self._server = self._call(asyncio.start_server(self._accept, "127.0.0.1", peer.peer_port, ssl=context))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._serve(reader, writer)
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    def stop(self) -> None:
        self._fleet.loop.call_soon_threadsafe(self._server.close)
        self._fleet.until(lambda: not self._server.sockets, "the faulty peer is gone")

    def _call(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._fleet.loop).result(10)


@pytest.mark.parametrize(
    ("serve", "tls", "within_s"),
    [
        pytest.param(_close, "ours", 5, id="closes at once"),
        pytest.param(_silence, "none", 12, id="never shakes hands"),
        pytest.param(_close, "another", 5, id="certificate of another authority"),
        pytest.param(_html, "ours", 8, id="a web page"),
        pytest.param(_garbage, "ours", 8, id="random bytes"),
        pytest.param(_settings_then_silence, "ours", 15, id="accepts and never answers"),
    ],
)
def test_a_faulty_peer_costs_time_and_no_request(own_fleet, serve: Serve, tls: str, within_s: float) -> None:
    fra, iad, sin = own_fleet.site("fra"), own_fleet.site("iad"), own_fleet.site("sin")
    for site in (iad, sin):
        site.add("m1")
    faulty = FaultyPeer(own_fleet, iad, serve, tls=tls)
    sin.run(sin.inputs({"m1": [(100, "sin")]}, callers=("fra",)))
    fra.run(fra.inputs({"m1": [(100, "iad>sin")]}, peers=(iad, sin)))
    began_s = time.monotonic()
    try:
        answer = own_fleet.ask(fra.public, "/v2/models/m1/infer", {})
        told = fra.probe("/-/peers/iad/load").status
    finally:
        faulty.stop()
    assert (answer.status, answer.headers.get("x-nearcast-site")) == (200, "sin"), answer.body
    assert time.monotonic() - began_s < 3 * within_s, "with room for a machine that does much else"
    assert faulty.connections or tls == "another"
    assert told >= 500, "the agent is told"


@pytest.mark.parametrize("answers", [_half, _half_that_claims_to_be_all])
def test_an_answer_that_is_cut_short_is_never_whole_for_the_client(own_fleet, answers) -> None:
    """The first byte has gone out, so nobody else may be asked: the client has to see that there is less than said."""
    fra, iad = own_fleet.site("fra"), own_fleet.site("iad")
    iad.add("m1")
    faulty = FaultyPeer(own_fleet, iad, _peer_that(answers), tls="ours")
    fra.run(fra.inputs({"m1": [(100, "iad")]}, peers=(iad,)))
    try:
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            own_fleet.ask(fra.public, "/v2/models/m1/infer", {})
    finally:
        faulty.stop()
    assert faulty.connections


def test_a_slow_peer_that_answers_pings_is_waited_for(own_fleet) -> None:
    """Inference may take its time: what is slow and lives is not asked twice."""
    fra, iad, sin = own_fleet.site("fra"), own_fleet.site("iad"), own_fleet.site("sin")
    for site in (iad, sin):
        site.add("m1")
    faulty = FaultyPeer(own_fleet, iad, _peer_that(_late), tls="ours")
    sin.run(sin.inputs({"m1": [(100, "sin")]}, callers=("fra",)))
    fra.run(fra.inputs({"m1": [(100, "iad>sin")]}, peers=(iad, sin)))
    try:
        answer = own_fleet.ask(fra.public, "/v2/models/m1/infer", {})
    finally:
        faulty.stop()
    assert (answer.status, answer.body) == (200, b"x" * 100)
    assert sin.engines["m1", "1"].seen == []


def _expected_in_a_second(inputs, *sites: str):
    """``inputs`` with what the agent has measured of ``sites``: an answer takes a second."""
    places = tuple(PlaceCost(site, "ready", Terms(service_s=1.0), 0.5) for site in sites)
    route = replace(inputs.routes.models["m1"], places=places)
    return replace(inputs, routes=RouteTable(models={"m1": route}))


@pytest.mark.parametrize(
    ("answers", "mode", "by"),
    [
        pytest.param(_never, "ok", "sin", id="silent, and another place answers"),
        pytest.param(_later_than_patience, "full", "iad", id="slow, and the other place is full"),
    ],
)
def test_a_peer_that_lives_and_never_answers_costs_patience_and_a_slow_one_no_answer(
    own_fleet, answers, mode: str, by: str
) -> None:
    fra, iad, sin = own_fleet.site("fra"), own_fleet.site("iad"), own_fleet.site("sin")
    iad.add("m1")
    sin.add("m1").mode = mode
    faulty = FaultyPeer(own_fleet, iad, _peer_that(answers), tls="ours")
    sin.run(sin.inputs({"m1": [(100, "sin")]}, callers=("fra",)))
    given = fra.inputs({"m1": [(100, "iad>sin")]}, peers=(iad, sin))
    fra.run(_expected_in_a_second(given, "iad", "sin"))
    connection = http.client.HTTPConnection("127.0.0.1", fra.public, timeout=100)
    try:
        answer = own_fleet.exchange(connection, "/v2/models/m1/infer", {})
    finally:
        faulty.stop()
    assert (answer.status, answer.headers["x-nearcast-site"]) == (200, by)
    assert len(sin.engines["m1", "1"].seen) == 1, "asked as well, and once"
    last = "attempt=3" if mode == "full" else "attempt=2"  # all were asked: the first once more
    assert answer.headers["x-nearcast-reason"].endswith(last)
    assert fra.ejections() == {}
