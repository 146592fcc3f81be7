"""Climbing to the prices at which places carry what they are meant to."""

import numpy as np
import pytest

from nearcast.planning.fleet.climb import SETTLED, Field, climb
from nearcast.planning.fleet.congestion import Queues
from nearcast.planning.fleet.market import Heat, Market, answer, heats
from nearcast.planning.fleet.problem import Floats

FINE = Heat(0.01, 3e-4)


def _two_places(workers: tuple[float, float], demand_per_s: tuple[float, float]) -> Field:
    """Two rows, each at one of two places, which may go to the other for 0.1 s more; 1 s of work each."""
    market = Market(
        place=np.array([[0, 1], [1, 0]], np.intp),
        cost_s=np.array([[1.0, 1.0], [1.1, 1.1]], np.float32),
        work_s=np.ones((2, 2), np.float32),
        demand_per_s=np.array(demand_per_s, np.float32),
        unserved_s=np.full(2, 1e3, np.float32),
        sites=2,
        origin=np.arange(2),
    )
    return Field(market, Queues.over(np.array(workers), 1.0, np.zeros(2)), np.zeros(2), 1.0)


def _load(field: Field, price_s: Floats) -> Floats:
    return field.market.load(answer(field.market, price_s, heats(field.market, FINE, price_s)).share)


def test_at_the_top_the_load_is_what_the_price_stands_for() -> None:
    field = _two_places((4.0, 4.0), (3.6, 1.0))
    price_s = climb(field, np.zeros(2), FINE)
    assert price_s[0] - price_s[1] == pytest.approx(0.1, abs=0.05)  # what is torn pays the same at both
    assert _load(field, price_s) == pytest.approx(field.queues.load_at(price_s), abs=2.0 * SETTLED * 4.6)


def test_hundreds_of_nearly_idle_workers_are_no_division_by_nothing() -> None:
    field = _two_places((505.0, 4.0), (60.0, 1.0))
    price_s = climb(field, np.array([1e-310, 0.0]), FINE)
    assert np.isfinite(price_s).all()
    assert _load(field, price_s) == pytest.approx([60.0, 1.0], rel=0.01)
