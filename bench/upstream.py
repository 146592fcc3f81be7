"""A mock engine that costs next to nothing: a fixed answer of 600 bytes to every request, or a stream of 20 events.

    python -m bench.upstream ADDRESS [ADDRESS ...]

An address is a port of the loopback interface, or the path of a Unix socket. A request whose body says `"stream":true`
gets server-sent events: 20 within 100 ms, then the end. Everything else gets one chat completion, so that gateways that
ask for health, models or workers before they serve are content.
"""

import asyncio
import json
import re
import sys
from typing import cast

import httptools
import uvloop

EVENTS = 20
EVENT_S = 0.005
MODEL = "chat"


def _completion() -> bytes:
    message = {"role": "assistant", "content": "x" * 300}
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 100, "total_tokens": 300},
    }
    return json.dumps(document).encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(number: int) -> bytes:
    delta = {"content": f"token {number} "}
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": None if number < EVENTS - 1 else "stop"}],
    }
    return _chunk(b"data: %b\n\n" % json.dumps(document).encode())


BODY = _completion()
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nx-accel-buffering: no\r\n\r\n"
)
PIECES = [*(_event(number) for number in range(EVENTS)), _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"]
WANTS_STREAM = re.compile(rb'"stream": ?true')


class Upstream(asyncio.Protocol):
    """Parses requests, answers each at its end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self.parser = httptools.HttpRequestParser(self)
        self.streams = False

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        if not self.streams and len(body) < 4096:
            self.streams = WANTS_STREAM.search(body) is not None

    def on_message_complete(self) -> None:
        if not self.streams:
            self.transport.write(ANSWER)
            return
        self.streams = False
        self.transport.write(HEAD)
        self._next(0)

    def _next(self, number: int) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(PIECES[number])
        if number + 1 < len(PIECES):
            asyncio.get_running_loop().call_later(EVENT_S, self._next, number + 1)


async def serve(addresses: list[str]) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(Upstream, "127.0.0.1", int(address))
        if address.isdigit()
        else await loop.create_unix_server(Upstream, address)
        for address in addresses
    ]
    print("ready", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1:]))
