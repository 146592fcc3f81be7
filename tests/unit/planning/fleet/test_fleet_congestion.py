"""The queue's curve, its slope, its inverse and its conjugate agree with one another."""

import numpy as np
import pytest

from nearcast.planning.fleet.congestion import CEILING, Queues

QUEUES = Queues(np.array([0.5, 1.0, 8.0, 200.0, 4.0]), 1.5, np.array([0.0, 0.0, 1.0, 10.0, 0.0]))
PARTS = (0.01, 0.3, 0.7, 0.84, 0.86, 0.93)


@pytest.mark.parametrize("part", PARTS)
def test_the_price_is_the_slope_of_waiting(part: float) -> None:
    load, step = part * QUEUES.room, 1e-6 * QUEUES.room
    slope = (QUEUES.waiting_s(load + step) - QUEUES.waiting_s(load - step)) / (2 * step)
    assert slope == pytest.approx(QUEUES.price_s(load), rel=1e-4)


@pytest.mark.parametrize("part", PARTS)
def test_the_load_at_a_price_is_where_it_holds(part: float) -> None:
    load = part * QUEUES.room
    assert QUEUES.load_at(QUEUES.price_s(load)) == pytest.approx(load, rel=1e-9)


def test_no_price_is_worth_more_load_than_there_is_room() -> None:
    assert QUEUES.load_at(np.full(5, 1e9)) == pytest.approx(QUEUES.room)
    assert QUEUES.load_at(np.zeros(5)) == pytest.approx(np.zeros(5), abs=1e-6)


@pytest.mark.parametrize("price_s", [0.0, 1e-6, 0.1, 3.0, 1e4])
def test_the_conjugate_is_above_all_that_it_bounds(price_s: float) -> None:
    prices = np.full(5, price_s)
    worth = QUEUES.worth_s(prices)
    for part in np.linspace(0.0, 1.0, 101):
        load = part * QUEUES.room
        assert (worth >= prices * load - QUEUES.waiting_s(load) - 1e-9).all()


def test_one_worker_waits_as_pollaczek_and_khinchine_say() -> None:
    queue = Queues(np.array([1.0]), 1.0, np.zeros(1))
    rate, service_s = 50.0, 0.01
    wait_s = queue.wait_s(np.array([rate * service_s]), np.array([rate]))
    assert wait_s[0] == pytest.approx(0.5 * service_s / (2 * (1 - 0.5)), rel=1e-9)


def test_load_that_is_there_anyway_takes_room_and_makes_the_rest_dearer() -> None:
    free, busy = Queues(np.array([2.0]), 1.0, np.zeros(1)), Queues(np.array([2.0]), 1.0, np.ones(1))
    assert busy.room == pytest.approx(CEILING * 2.0 - 1.0)
    assert busy.price_s(np.zeros(1)) == pytest.approx(free.price_s(np.ones(1)))
    assert busy.waiting_s(np.zeros(1)) == pytest.approx(0.0)
