"""Whose long request is read next, and that reading is given up with the one who waits."""

import asyncio
import threading
from functools import partial

import pytest

from nearcast.engine.reading import LEAST_BYTES, SHORT_BYTES, Readers, Turns

MIB = 1024 * 1024


def taken(turns: Turns[str], count: int, most_bytes: int | None = None) -> list[str | None]:
    return [turns.take(most_bytes) for _ in range(count)]


def test_models_take_turns_by_bytes_whoever_came_first() -> None:
    turns: Turns[str] = Turns()
    for index in range(4):
        turns.push("large", 8 * MIB, f"l{index}")
    for index in range(20):
        turns.push("small", MIB, f"s{index}")
    order = taken(turns, 24)
    assert order[0] == "l0"
    assert order[1:10] == [f"s{index}" for index in range(8)] + ["l1"]
    assert turns.take() is None


def test_one_that_comes_back_has_saved_up_nothing() -> None:
    turns: Turns[str] = Turns()
    for index in range(10):
        turns.push("busy", MIB, f"b{index}")
    taken(turns, 6)
    for index in range(4):
        turns.push("new", MIB, f"n{index}")
    assert sorted(item[0] for item in taken(turns, 6) if item) == ["b", "b", "b", "n", "n", "n"]


def test_a_short_one_passes_long_ones_of_its_model() -> None:
    turns: Turns[str] = Turns()
    turns.push("m", SHORT_BYTES + 1, "long")
    turns.push("m", 1, "short")
    assert taken(turns, 3, SHORT_BYTES) == ["short", None, None]
    assert turns.take() == "long"


def test_what_is_not_wanted_any_more_costs_its_model_no_turn() -> None:
    lost = {"a0", "a1", "a2"}
    turns: Turns[str] = Turns(lambda item: item not in lost)
    for index in range(4):
        turns.push("a", 50 * MIB, f"a{index}")
    turns.push("b", LEAST_BYTES, "b0")
    turns.push("b", LEAST_BYTES, "b1")
    assert set(taken(turns, 2)) == {"a3", "b0"}
    assert taken(turns, 2) == ["b1", None]


def test_short_ones_are_read_while_a_long_one_takes_its_time() -> None:
    async def story() -> None:
        readers, free = Readers(), threading.Event()
        try:
            long = [readers.submit("large", 60 * MIB, partial(free.wait, 20)) for _ in range(3)]
            async with asyncio.timeout(20):
                assert await readers.submit("small", 1, lambda: "read").done == "read"
                assert await readers.submit("large", 1, lambda: "read").done == "read"
                assert not any(ticket.done.done() for ticket in long)
                free.set()
                assert await asyncio.gather(*(ticket.done for ticket in long)) == [True] * 3
        finally:
            free.set()
            readers.close()

    asyncio.run(story())


def test_failures_are_told_and_abandoned_requests_are_not_read() -> None:
    async def story() -> None:
        readers, free, called = Readers(), threading.Event(), threading.Event()
        try:
            begun = threading.Barrier(3)

            def hold() -> bool:
                begun.wait(20)
                return free.wait(20)

            for _ in range(2):
                readers.submit("m", 1, hold)
            await asyncio.to_thread(begun.wait, 20)  # one for each thread
            abandoned = readers.submit("m", 1, called.set)
            failing = readers.submit("m", 1, lambda: int("x"))
            readers.abandon(abandoned)
            assert abandoned.done.cancelled()
            free.set()
            async with asyncio.timeout(20):
                with pytest.raises(ValueError, match="invalid literal"):
                    await failing.done
            assert not called.is_set()
            readers.abandon(failing)  # too late, and harmless
        finally:
            free.set()
            readers.close()

    asyncio.run(story())
