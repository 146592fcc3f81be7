"""A load generator where there is no wrk: the same POST over keep-alive connections, from asyncio protocols.

    python -m bench.posts PORT CONNECTIONS SECONDS REQUEST_FILE

REQUEST_FILE holds the whole request, head and body. One process sends some 40,000 requests/s; start several for more.
Prints one line of JSON: requests, seconds, errors, and a sample of latencies in milliseconds.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import uvloop

SAMPLES = 20_000


class Caller(asyncio.Protocol):
    """One connection: sends, waits for the whole answer, sends again."""

    def __init__(self, request: bytes, tally: "Tally") -> None:
        self._request = request
        self._tally = tally
        self._begun = 0.0
        self._got = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._begun = time.perf_counter()
        self._transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
        else:
            self._got += data
            end = self._got.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._got[:end].lower()
            length = int(head.partition(b"\ncontent-length:")[2].partition(b"\r")[0])
            self._tally.errors += not head.startswith(b"http/1.1 200")
            self._left = length - (len(self._got) - end - 4)
            self._got = b""
        if self._left <= 0:
            self._tally.add(time.perf_counter() - self._begun)
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        self._tally.errors += not self._tally.over


class Tally:
    """What was counted."""

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.over = False
        self.latencies: list[float] = []

    def add(self, seconds: float) -> None:
        """One answer after ``seconds``; of very many the sample is thinned out evenly."""
        self.requests += 1
        if len(self.latencies) < SAMPLES:
            self.latencies.append(seconds)
        else:
            self.latencies[self.requests * 7919 % SAMPLES] = seconds


async def load(port: int, connections: int, seconds: float, request: bytes) -> dict[str, object]:
    """POST for ``seconds``."""
    loop = asyncio.get_running_loop()
    tally = Tally()
    begun = time.perf_counter()
    transports = [
        (await loop.create_connection(lambda: Caller(request, tally), "127.0.0.1", port))[0] for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    tally.over = True
    took = time.perf_counter() - begun
    for transport in transports:
        transport.abort()
    return {
        "requests": tally.requests,
        "seconds": took,
        "errors": tally.errors,
        "latencies_ms": [
            round(each * 1e3, 3) for each in sorted(tally.latencies)[:: max(1, len(tally.latencies) // 500)]
        ],
    }


if __name__ == "__main__":
    result = uvloop.run(load(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]).read_bytes()))
    print(json.dumps(result))
