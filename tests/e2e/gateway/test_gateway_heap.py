"""A gateway whose memory is full refuses what is new, and lives; with room again it answers as before."""

import contextlib
import http.client
import socket
from dataclasses import replace

BOUND_BYTES = 96 << 20
HELD_BYTES = 6 << 20
MOST = 30


def _hold(port: int) -> socket.socket:
    """A request of which all but the last byte is there, which the gateway has to keep until it knows the model."""
    held = socket.create_connection(("127.0.0.1", port), 10)
    head = f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: {HELD_BYTES + 1}\r\n\r\n"
    held.sendall(head.encode())
    held.settimeout(2)
    with contextlib.suppress(OSError):  # answered or cut off already: it is full
        held.sendall(b" " * HELD_BYTES)
    return held


def test_full_memory_is_refused_and_not_died_of(own_fleet) -> None:
    fra = own_fleet.site("fra")
    fra.add("m1")
    fra.run(replace(fra.inputs({"m1": [(100, "fra")]}), heap_bytes=BOUND_BYTES))
    pid = fra.gateway.pid

    def status() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", fra.public, timeout=3)
        try:
            return int(own_fleet.exchange(connection, "/v2/models/m1/infer", {}).status)
        except (OSError, http.client.HTTPException):  # not even a connection any more, or no word on it
            return 0

    assert status() == 200
    with contextlib.ExitStack() as stack:
        seen = []
        while len(seen) < MOST and 503 not in seen:
            stack.enter_context(_hold(fra.public))
            seen.append(status())
        assert seen[-1] == 503, seen
        assert set(seen) <= {0, 200, 503}
    own_fleet.until(lambda: status() == 200, "answers, once there is room")
    assert fra.gateway.pid == pid
