"""An engine that rests returns what its allocator keeps; one that works does not stop for that."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from nearcast.engine import serving as module
from nearcast.engine.exchange import Limits
from nearcast.engine.serving import REST_EVERY, Serving


def end(*, idle: bool, busy: bool = False) -> Any:
    """What a sweep looks at of a model: its lane, and one connection."""
    gauges = SimpleNamespace(sample=lambda now_s: None, inline_s=0.0, answered=0)
    connection = SimpleNamespace(is_idle=not busy, sweep=lambda: None)
    lane = SimpleNamespace(is_idle=idle, gauges=gauges)
    return SimpleNamespace(endpoint=SimpleNamespace(lane=lane, connections=(connection,)))


@pytest.mark.parametrize(
    ("served", "times"),
    [([], 2), ([end(idle=True)], 2), ([end(idle=False)], 0), ([end(idle=True), end(idle=True, busy=True)], 0)],
    ids=["no model", "at rest", "computing", "a request on its way"],
)
def test_memory_is_given_back_at_rest(monkeypatch: pytest.MonkeyPatch, served: list[Any], times: int) -> None:
    calls: list[int] = []

    async def sweeps() -> None:
        serving = Serving(1, Limits())
        monkeypatch.setattr(serving, "_served", dict(enumerate(served)))
        monkeypatch.setattr(module, "give_back", lambda: calls.append(1))
        for _ in range(2 * REST_EVERY):
            serving.sweep()

    asyncio.run(sweeps())
    assert len(calls) == times
