"""Whom a node asks, and how often: places often, scouts seldom, and nobody beyond the bounds."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from nearcast.agent.estimate import Probe
from nearcast.agent.measure import MAX_PEERS, MAX_RARE, RARE, Measurements


class Answering:
    """Every peer answers at once."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def probe(self, site: str) -> Probe:
        self.asked.append(site)
        return Probe(at_s=0.0, round_trip_s=0.05)


Story = Callable[[Measurements, Answering], Awaitable[None]]


def play(monkeypatch: pytest.MonkeyPatch, story: Story) -> list[float]:
    """Run ``story``; a pause between questions never ends. Returns the pauses that were begun."""
    pauses: list[float] = []
    moment = asyncio.sleep

    async def sleep(delay_s: float) -> None:
        pauses.append(delay_s)
        await asyncio.Event().wait()

    async def run() -> None:
        prober = Answering()
        measurements = Measurements(prober, pause_s=lambda: 1.5)
        monkeypatch.setattr("nearcast.agent.measure.asyncio.sleep", sleep)
        try:
            await story(measurements, prober)
        finally:
            monkeypatch.setattr("nearcast.agent.measure.asyncio.sleep", moment)
            await measurements.stop()

    asyncio.run(run())
    return pauses


async def _turns() -> None:
    for _ in range(5):
        ready = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(ready.set_result, None)
        await ready


def test_a_scout_is_asked_more_rarely_than_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(measurements: Measurements, prober: Answering) -> None:
        measurements.follow(("place",), ("scout",))
        await _turns()
        assert set(measurements.estimates) == {"place", "scout"}

    assert sorted(play(monkeypatch, story)) == [1.5, 1.5 * RARE]


def test_a_scout_that_becomes_a_place_is_asked_at_once_and_stays_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(measurements: Measurements, prober: Answering) -> None:
        measurements.follow((), ("away",))
        await _turns()
        measurements.follow(("away",))
        assert "away" in measurements.estimates
        await _turns()
        assert prober.asked == ["away", "away"]

    assert play(monkeypatch, story) == [1.5 * RARE, 1.5]


def test_who_is_no_longer_followed_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(measurements: Measurements, prober: Answering) -> None:
        measurements.follow(("one", "other"), ("scout",))
        await _turns()
        measurements.follow(("one",))
        assert set(measurements.estimates) == {"one"}

    play(monkeypatch, story)


def test_places_come_before_scouts_where_there_is_not_room_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    places = tuple(f"p{n:02}" for n in range(MAX_PEERS - 1))
    scouts = tuple(f"s{n:02}" for n in range(9))

    async def story(measurements: Measurements, prober: Answering) -> None:
        measurements.follow(places, scouts)
        await _turns()
        assert set(prober.asked) == {*places, "s00"}
        measurements.follow(places[:2], scouts)
        await _turns()
        assert set(measurements.estimates) == {*places[:2], *scouts[:MAX_RARE]}

    play(monkeypatch, story)
