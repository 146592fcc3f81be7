"""How much traffic changes its first place from second to second, and how much of that is taken back: oscillation."""

from collections import deque
from typing import Final

import numpy as np

from nearcast.twin.place import Route, Routes
from nearcast.twin.world import Floats

WINDOW: Final = 30
"""Seconds within which a move that is taken back counts as undone."""


class Churn:
    """How the first places of traffic move from second to second."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Route | None] = {}
        self._shares: dict[tuple[int, int], dict[int, float]] = {}
        self._past: deque[dict[tuple[int, int], dict[int, float]]] = deque(maxlen=WINDOW + 1)
        self.moved: list[float] = []
        self._undone: list[float] = []

    def look(self, routes: Routes, rate: Floats) -> None:
        """Compare with the second before, weighted by demand."""
        total, moved = float(rate.sum()), 0.0
        shares = dict(self._shares)
        for origin, row in enumerate(routes):
            for model, route in enumerate(row):
                key = (origin, model)
                if self._known.get(key) is route:
                    continue
                fresh = _first_places(route)
                if key in shares:
                    moved += float(rate[origin, model]) * _distance(shares[key], fresh)
                self._known[key], shares[key] = route, fresh
        self._shares = shares
        self.moved.append(moved / total if total > 0 else 0.0)
        self._past.append(shares)
        if len(self._past) > WINDOW and len(self.moved) % WINDOW == 0:
            self._note_undone(rate, total)

    def _note_undone(self, rate: Floats, total: float) -> None:
        before, now = self._past[0], self._past[-1]
        net = sum(
            float(rate[key]) * _distance(before[key], now[key])
            for key in now
            if key in before and before[key] is not now[key]
        )
        gross = sum(self.moved[-WINDOW:])
        self._undone.append(max(0.0, gross - net / total) / WINDOW if total > 0 else 0.0)

    def undone(self) -> float:
        """Part of the traffic per second that moved and moved back within a window, on the mean."""
        return float(np.mean(self._undone)) if self._undone else 0.0


def _first_places(route: Route | None) -> dict[int, float]:
    found: dict[int, float] = {}
    before = 0.0
    for upper, order in zip(*route, strict=True) if route else ():
        first = order.places[0]
        found[first] = found.get(first, 0.0) + upper - before
        before = upper
    return found


def _distance(one: dict[int, float], other: dict[int, float]) -> float:
    """Part of the traffic that has another first place."""
    if one == other:
        return 0.0
    keys = one.keys() | other.keys()
    return 0.5 * sum(abs(one.get(key, 0.0) - other.get(key, 0.0)) for key in keys)
