"""The scrape target: it fails in words before anything runs, and answers whatever happens."""

import asyncio
import socket
from pathlib import Path

import pytest
from prometheus_client.core import Metric as Family

from nearcast.agent.scrape import Scrape, engine_families
from nearcast.agent.settings import Address
from nearcast.errors import InvalidInput
from nearcast.resources import wire


async def nothing() -> list[Family]:
    return []


async def broken() -> list[Family]:
    raise RuntimeError("a bug")


async def asked(scrape: Scrape) -> bytes:
    await scrape.start()
    serving = asyncio.create_task(scrape.run())
    reader, writer = await asyncio.open_connection("127.0.0.1", scrape.port)
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: n\r\nconnection: close\r\n\r\n")
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    return answer


def test_a_bug_in_gathering_leaves_no_scraper_waiting() -> None:
    async def story() -> bytes:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        return await asked(Scrape(Address("127.0.0.1", 0), broken))

    answer = asyncio.run(story())
    assert answer.startswith(b"HTTP/1.1 500 ")


def test_an_address_that_is_taken_is_told_before_anything_runs() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(InvalidInput, match="cannot serve metrics on"):
            asyncio.run(Scrape(listen, nothing).start())


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_an_address_that_others_reach_is_warned_of(host: str, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        scrape = Scrape(Address(host, 0), nothing)
        await scrape.start()
        scrape.close()

    asyncio.run(story())
    assert any("whoever reaches" in record.message for record in caplog.records) is warned


def test_an_engine_that_answers_something_else_has_no_figures(tmp_path: Path) -> None:
    async def story() -> list[Family]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 16\r\n\r\na{b 1 2 3 }\nx y z")
            writer.close()

        async with await asyncio.start_unix_server(answer, tmp_path / wire.ENGINE_STATUS):
            return await engine_families(tmp_path)

    assert asyncio.run(story()) == []
