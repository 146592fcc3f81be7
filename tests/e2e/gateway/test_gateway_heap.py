"""A gateway whose memory is full refuses what is new, at once, and lives; with room again it answers as before."""

import contextlib
import http.client
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from nearcast.resources import wire

BOUND_BYTES = 96 << 20
HELD_BYTES = 6 << 20
MOST = 60
"""Requests held at once. Their bytes alone are several times the bound, however Envoy counts its pages."""
PATH = "/v2/models/m1/infer"
REFUSING = "overload.envoy.overload_actions.reject_incoming_connections.active"


def _hold(port: int) -> socket.socket:
    """A request of which all but the last byte is there, which the gateway has to keep until it knows the model."""
    held = socket.create_connection(("127.0.0.1", port), 20)
    head = f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: {HELD_BYTES + 1}\r\n\r\n"
    with contextlib.suppress(ConnectionError):  # answered or closed already: it is full
        held.sendall(head.encode())
        held.sendall(b" " * HELD_BYTES)
    return held


def _status(fleet, port: int) -> int:
    """What a new client is told: a status, or 0 where its connection is closed. Silence fails the test, by the 20 s
    that the client waits: a full gateway must not keep anybody waiting for room."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        return int(fleet.exchange(connection, PATH, {}).status)
    except (ConnectionError, http.client.RemoteDisconnected):
        return 0


@pytest.fixture
def fra(own_fleet):
    site = own_fleet.site("fra")
    site.add("m1")
    site.run(replace(site.inputs({"m1": [(100, "fra")]}), heap_bytes=BOUND_BYTES))
    return site


@contextlib.contextmanager
def _filled(fleet, fra) -> Iterator[None]:
    """The gateway's memory is full inside of this. On the way there every client is answered or refused."""
    with contextlib.ExitStack() as stack:
        seen = set()
        for _ in range(MOST):
            stack.enter_context(_hold(fra.public))
            seen.add(_status(fleet, fra.public))
            assert seen <= {0, 200, 503}, seen
            if fra.gateway.stats(REFUSING).get(REFUSING) == "1":
                break
        else:
            pytest.fail(f"{MOST} requests of {HELD_BYTES} bytes fit into {BOUND_BYTES} bytes; clients saw {seen}")
        yield


def test_full_memory_is_refused_and_not_died_of(own_fleet, fra) -> None:
    pid = fra.gateway.pid
    standing = http.client.HTTPConnection("127.0.0.1", fra.public, timeout=20)
    assert own_fleet.exchange(standing, PATH, {}, close=False).status == 200

    with _filled(own_fleet, fra):
        assert _status(own_fleet, fra.public) == 0, "a new connection is closed, not kept waiting"
        refused = own_fleet.exchange(standing, PATH, {})
        assert (refused.status, refused.headers[wire.ERROR]) == (503, wire.CODE_NO_PLACE_READY)
        assert refused.headers[wire.RETRY_AFTER] == "1"

    own_fleet.until(lambda: _status(own_fleet, fra.public) == 200, "answers, once there is room")
    assert fra.gateway.pid == pid


def test_a_full_gateway_still_answers_its_agent(own_fleet, fra) -> None:
    # Refused probes would say that no peer can be reached, and take all of them out of the routes.
    with _filled(own_fleet, fra):
        assert fra.probe(wire.LOAD_PATH).status == 200
