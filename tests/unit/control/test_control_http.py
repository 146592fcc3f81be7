"""What the control plane's HTTP does with bytes that are none, while a request before them is being answered."""

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from nearcast.control.server import Protocol

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
GARBAGE = b"\x00\x01 garbage\r\n\r\n"


class Line(asyncio.Transport):
    """A connection. As with TLS in asyncio, who closes it twice must not write any more."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = 0

    def pause_reading(self) -> None:
        """There is no more to read."""

    def resume_reading(self) -> None:
        """As above."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        del name
        return default

    def is_closing(self) -> bool:
        return self.closed > 0

    def close(self) -> None:
        self.closed += 1

    def write(self, data: Any) -> None:
        assert self.closed < 2, "AttributeError: 'NoneType' object has no attribute '_write_appdata'"
        self.written += data if not self.closed else b""


@pytest.mark.parametrize("begun", [False, True], ids=["before its answer", "amid its answer"])
def test_garbage_behind_a_request_ends_the_connection_once_and_quietly(begun: bool) -> None:
    async def story() -> None:
        go_on, ended = asyncio.Event(), asyncio.Event()

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
            if begun:
                await send(start)
            await go_on.wait()
            if not begun:
                await send(start)
            await send({"type": "http.response.body", "body": b"ok"})
            ended.set()

        config = uvicorn.Config(app, http=Protocol, log_config=None)
        config.load()
        line, protocol = Line(), Protocol(config, ServerState(), {}, asyncio.get_running_loop())
        protocol.connection_made(line)
        protocol.data_received(REQUEST)
        await asyncio.sleep(0)  # the app begins
        for _ in range(3):
            protocol.data_received(GARBAGE)
        go_on.set()
        async with asyncio.timeout(20):
            await ended.wait()
        assert line.written.count(b"HTTP/1.1 ") == 1
        assert line.written.startswith(b"HTTP/1.1 200 " if begun else b"HTTP/1.1 400 ")
        assert b"ok" not in line.written
        assert line.closed == 1
        protocol.connection_lost(None)

    asyncio.run(story())


@pytest.mark.parametrize("ending", ["the client leaves", "garbage"])
def test_of_requests_sent_together_none_is_answered_after_the_end_of_their_connection(ending: str) -> None:
    """The first is being answered, the second waits behind it."""

    async def story() -> None:
        go_on, ended = asyncio.Event(), asyncio.Event()
        begun: list[str] = []

        async def app(_scope: Any, _receive: Any, send: Any) -> None:
            begun.append("request")
            await go_on.wait()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})
            ended.set()

        config = uvicorn.Config(app, http=Protocol, log_config=None)
        config.load()
        line, protocol = Line(), Protocol(config, ServerState(), {}, asyncio.get_running_loop())
        protocol.connection_made(line)
        protocol.data_received(REQUEST + REQUEST)
        await asyncio.sleep(0)
        if ending == "garbage":
            protocol.data_received(GARBAGE)
        line.closed = 1  # as asyncio notes before it tells
        protocol.connection_lost(None)
        go_on.set()
        async with asyncio.timeout(20):
            await ended.wait()
        assert begun == ["request"]
        assert line.written.count(b"HTTP/1.1 ") == (1 if ending == "garbage" else 0)
        assert b"200" not in line.written

    asyncio.run(story())


def test_garbage_alone_is_told_that_it_is_none() -> None:
    async def story() -> None:
        async def app(_scope: Any, _receive: Any, _send: Any) -> None:
            raise AssertionError("nothing was asked")

        config = uvicorn.Config(app, http=Protocol, log_config=None)
        config.load()
        line, protocol = Line(), Protocol(config, ServerState(), {}, asyncio.get_running_loop())
        protocol.connection_made(line)
        for _ in range(2):
            protocol.data_received(GARBAGE)
        assert line.written.count(b"HTTP/1.1 400 ") == 1
        assert b"expected HTTP/1.1" in line.written
        assert line.closed == 1

    asyncio.run(story())
