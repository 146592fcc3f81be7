"""Peers that are worse than dead: what each does to a request that has another place to go, and who says so.

The gateway is real; the peer is a socket of the test that behaves as its fault says. Time-outs are the gateway's own.
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable

import pytest

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
