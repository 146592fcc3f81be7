"""Bytes of others that are no document: whoever reads them says so, and nothing ends because of them."""

import asyncio
import re
from pathlib import Path

import httpx
import msgspec
import pytest

from nearcast.agent.measure import GatewayProber
from nearcast.resources.status import NodeStatus
from nearcast.resources.unreadable import UNREADABLE

SOURCES = Path(__file__).resolve().parents[3] / "src/nearcast"
BYTES = {
    "nothing": b"",
    "text": b"hello",
    "another type": b"[]",
    "not UTF-8": b"\xff\xfe",
    "not UTF-8 inside": b'{"site":"\xbb"}',
    "cut inside a character": b'{"site":"\xc3',
    "deep": b'{"unknown":' + b"[" * 200_000,
    "a surrogate": b'{"site":"\\ud800"}',
}


@pytest.mark.parametrize("name", BYTES)
def test_all_that_a_decoder_raises_is_named(name: str) -> None:
    with pytest.raises(UNREADABLE):
        msgspec.json.decode(BYTES[name], type=NodeStatus)


def test_nobody_outside_of_the_engine_catches_less() -> None:
    """The engine has its own words for each of them (`engine.oip`)."""
    less = re.compile(r"(except|suppress).*msgspec\.(Decode|Msgspec)Error")
    found = [
        f"{path.relative_to(SOURCES)}:{number}"
        for path in SOURCES.rglob("*.py")
        if path.parent.name != "engine"
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if less.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("name", BYTES)
def test_a_peer_that_answers_garbage_is_a_failed_probe(name: str) -> None:
    """Not an exception: that would end the agent of whoever asked."""

    async def story() -> str:
        prober = GatewayProber.__new__(GatewayProber)
        transport = httpx.MockTransport(
            lambda _request: httpx.Response(200, content=BYTES[name].replace(b"site", b"device"))
        )
        prober._client = httpx.AsyncClient(transport=transport, base_url="http://gateway")
        prober._clock = lambda: 1.0
        try:
            probe = await prober.probe("sin")
        finally:
            await prober.close()
        assert probe.load is None
        return probe.message

    assert len(asyncio.run(story())) > 8
