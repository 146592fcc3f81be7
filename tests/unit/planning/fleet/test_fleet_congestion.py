"""What load costs: its curve, slope, inverse and conjugate agree with one another, and with queues and batches."""

from dataclasses import replace

import numpy as np
import pytest

from fleets.small import line
from nearcast.planning.fleet.congestion import BEND, CEILING, Growth, Queues, growth_of, served_s
from nearcast.planning.fleet.problem import Floats, Problem
from nearcast.twin.place import NOWHERE, Place

QUEUES = Queues.over(
    np.array([0.5, 1.0, 8.0, 200.0, 4.0]),
    1.5,
    np.array([0.0, 0.0, 1.0, 10.0, 0.0]),
    Growth(np.array([0.0, 3.0, 0.0, 0.5, 2.0]), np.array([2.0, 2.0, 2.0, 5.0, 3.0])),
)
PARTS = (0.01, 0.3, 0.7, 0.84, 0.86, 0.93)


@pytest.mark.parametrize("part", PARTS)
def test_the_price_is_the_slope_of_waiting(part: float) -> None:
    load, step = part * QUEUES.room, 1e-7 * QUEUES.room
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
    queue = Queues.over(np.array([1.0]), 1.0, np.zeros(1))
    rate, service_s = 50.0, 0.01
    wait_s = queue.wait_s(np.array([rate * service_s]), np.array([rate]))
    assert wait_s[0] == pytest.approx(0.5 * service_s / (2 * (1 - 0.5)), rel=1e-3)


def test_load_that_is_there_anyway_takes_room_and_makes_the_rest_dearer() -> None:
    free, busy = (Queues.over(np.array([2.0]), 1.0, fixed) for fixed in (np.zeros(1), np.ones(1)))
    assert busy.room == pytest.approx(CEILING * 2.0 - 1.0)
    assert busy.price_s(np.zeros(1)) == pytest.approx(free.price_s(np.ones(1)))
    assert busy.waiting_s(np.zeros(1)) == pytest.approx(0.0)


@pytest.mark.parametrize("workers", [2, 7, 40])
@pytest.mark.parametrize("rho", [0.3, 0.6, 0.84])
def test_several_workers_wait_half_as_long_as_erlang_says(workers: int, rho: float) -> None:
    load, lost = rho * workers, 1.0
    for count in range(1, workers + 1):  # the usual recurrence of Erlang's B
        lost = load * lost / (count + load * lost)
    waits = lost / (1.0 - rho * (1.0 - lost))
    queue = Queues.over(np.array([float(workers)]), 3.0, np.zeros(1))
    assert queue.wait_s(np.array([load]), np.ones(1))[0] == pytest.approx(
        0.5 * waits * rho / (1.0 - rho), rel=0.02, abs=1e-9
    )


def test_batches_make_a_place_dearer_but_no_queue() -> None:
    workers, load = np.full(2, 8.0), np.full(2, 8.0 * BEND)
    both = Queues.over(workers, 2.0, np.zeros(2), Growth(np.array([0.0, 1.5]), np.array([2.0, 3.0])))
    assert both.price_s(load)[1] == pytest.approx(both.price_s(load)[0] + 1.5 * 3.0 * BEND**2, rel=1e-3)
    assert both.waiting_s(load)[1] == pytest.approx(both.waiting_s(load)[0] + 1.5 * 8.0 * BEND**3, rel=1e-3)
    assert both.wait_s(load, np.ones(2))[1] == pytest.approx(both.wait_s(load, np.ones(2))[0], rel=1e-3)


def batched(service_s: Floats, work_s: Floats, full_s: Floats) -> Problem:
    return line(2, 2, service_s=service_s, work_s=work_s, full_s=full_s, demand_per_s=np.array([[3.0, 1.0]] * 2))


def test_growth_is_that_of_the_models_a_place_may_hold() -> None:
    shape = (2, 2)
    service_s, work_s = np.full(shape, 0.09), np.array([[0.09, 0.045]] * 2)
    problem = batched(service_s, work_s, np.array([[0.09, 0.18]] * 2))
    found = growth_of(problem)
    alone = growth_of(replace(problem, eligible=np.array([[False, True]] * 2)))
    # One worker-second of the second model is 1 / 0.045 requests, each 0.09 s longer when batches are full.
    assert alone.extra == pytest.approx(np.full(2, 2.0 * problem.weight[1]))
    assert alone.power == pytest.approx(np.full(2, 3.0)), "batches of twice the worth: with the square"
    # 3 x 0.09 worker-seconds of the first stand against 1 x 0.045 of the second.
    assert found.extra == pytest.approx(alone.extra * 0.045 / (0.27 + 0.045))
    assert growth_of(replace(problem, full_s=service_s)).extra == pytest.approx(np.zeros(2))
    light = growth_of(replace(problem, weight=np.array([1.0, 0.1])))
    assert light.extra == pytest.approx(0.1 * found.extra)


CURVES = (
    tuple(0.010 + 0.010 * n / 31 for n in range(32)),  # batches pay much, by steps of a GPU that is hardly used
    tuple(0.010 + 0.010 * n / 7 for n in range(8)),
    tuple(0.070 + 0.090 * n / 7 for n in range(8)),
    tuple(0.090 + 0.060 * n / 3 for n in range(4)),
    (0.040, 0.064),
)


@pytest.mark.parametrize("workers", [1, 4, 16])
@pytest.mark.parametrize("curve", CURVES)
def test_service_grows_as_that_of_places_that_batch_whatever_has_come(curve: tuple[float, ...], workers: int) -> None:
    work_s = curve[-1] / len(curve)
    for rho in (0.4, 0.7, 0.9):
        arrivals = np.cumsum(np.random.default_rng(7).exponential(work_s / (rho * workers), 4000))
        part = (_mean_service_s(curve, workers, arrivals) - curve[0]) / (curve[-1] - curve[0])
        one = np.ones((1, 1))
        problem = line(1, service_s=one * curve[0], work_s=one * work_s, full_s=one * curve[-1])
        told = (served_s(problem, np.full(1, rho))[0, 0] - curve[0]) / (curve[-1] - curve[0])
        assert told == pytest.approx(part, abs=0.27)


def _mean_service_s(curve: tuple[float, ...], workers: int, arrivals: Floats) -> float:
    """Seconds in service of a request at a place of the twin."""
    place, work = Place(workers, [curve], [len(arrivals)]), [1.0] * len(arrivals)
    batches = []
    for request, at_s in enumerate(arrivals.tolist()):
        batches += place.until(at_s, work)
        taken = place.take(0, (at_s, request, 0, NOWHERE, 0.0), work)
        batches += [taken] if not isinstance(taken, bool) else []
    batches += place.until(np.inf, work)
    return sum((end_s - begin_s) * len(members) for begin_s, end_s, members in batches) / len(arrivals)
