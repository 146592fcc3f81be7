"""One simulated place: order, batches, room, failure."""

import pytest

from nearcast.twin.place import Order, Place, Waiting

WORK = [1.0] * 100


def waiting(at_s: float, request: int) -> Waiting:
    return (at_s, request, 0, Order((0,)), 0.0)


def test_idle_place_computes_at_once_and_alone() -> None:
    place = Place(1, [(0.010, 0.012)], [4])
    assert place.take(0, waiting(1.0, 7), WORK) == (1.0, 1.010, [waiting(1.0, 7)])
    assert place.busy(1.005) == 1
    assert place.busy(1.010) == 0


def test_those_that_wait_are_batched_in_the_order_of_arrival() -> None:
    place = Place(1, [(0.010, 0.012)], [4])
    place.take(0, waiting(0.0, 0), WORK)
    for request in (1, 2, 3):
        assert place.take(0, waiting(0.001 * request, request), WORK) is True
    begun = place.until(0.1, WORK)
    assert [[member[1] for member in members] for _, _, members in begun] == [[1, 2], [3]]
    assert [(round(begin, 6), round(end, 6)) for begin, end, _ in begun] == [(0.010, 0.022), (0.022, 0.032)]


def test_the_lane_that_waited_longest_goes_first() -> None:
    place = Place(1, [(0.010,), (0.005,)], [4, 4])
    place.take(0, waiting(0.0, 0), WORK)
    place.take(1, waiting(0.002, 1), WORK)
    place.take(0, waiting(0.001, 2), WORK)
    assert [members[0][1] for _, _, members in place.until(1.0, WORK)] == [2, 1]


def test_a_full_lane_refuses_and_others_do_not() -> None:
    place = Place(1, [(0.010,), (0.010,)], [1, 1])
    place.take(0, waiting(0.0, 0), WORK)
    assert place.take(0, waiting(0.0, 1), WORK) is True
    assert place.take(0, waiting(0.0, 2), WORK) is False
    assert place.take(1, waiting(0.0, 3), WORK) is True


def test_the_largest_member_sets_the_time_of_a_batch() -> None:
    place = Place(1, [(0.010, 0.012)], [4])
    place.take(0, waiting(0.0, 0), [1.0, 1.0, 3.0])
    place.take(0, waiting(0.0, 1), [1.0, 1.0, 3.0])
    place.take(0, waiting(0.0, 2), [1.0, 1.0, 3.0])
    ((begin_s, end_s, _),) = place.until(1.0, [1.0, 1.0, 3.0])
    assert end_s - begin_s == 0.012 * 3.0


def test_failure_gives_up_what_waits() -> None:
    place = Place(1, [(0.010,)], [4])
    place.take(0, waiting(0.0, 0), WORK)
    place.take(0, waiting(0.0, 1), WORK)
    assert [left[1] for left in place.fail()] == [1]
    place.recover(5.0)
    assert place.take(0, waiting(5.0, 2), WORK) == (5.0, 5.010, [waiting(5.0, 2)])


def test_a_place_without_workers_takes_nothing() -> None:
    assert Place(0, [(0.010,)], [4]).take(0, waiting(0.0, 0), WORK) is False


def test_expected_wait_is_the_work_ahead_over_the_workers() -> None:
    place = Place(2, [(0.010,)], [9])
    for request in range(5):
        place.take(0, waiting(0.0, request), WORK)
    assert place.wait_s(0.004, [0.010]) == 0.006 + 3 * 0.010 / 2


def test_who_would_wait_longer_than_it_may_is_refused_although_there_is_room() -> None:
    place = Place(1, [(0.010,)], [4])
    place.take(0, waiting(0.0, 0), WORK)
    assert place.take(0, waiting(0.004, 1), WORK, [0.010], 0.005) is False
    assert place.take(0, waiting(0.006, 1), WORK, [0.010], 0.005) is True
    assert place.take(0, waiting(0.006, 2), WORK, [0.010], 0.010) is False
    assert place.take(0, waiting(0.006, 2), WORK, [0.010], 0.015) is True


def test_service_is_told_as_that_of_the_last_batches_and_forgotten_at_rest() -> None:
    place = Place(1, [(0.010, 0.020), ()], [4, 4])
    assert place.service_s == [0.010, 0.0]
    place.take(0, waiting(0.0, 0), WORK)
    for request in (1, 2):
        place.take(0, waiting(0.001, request), WORK)
    place.until(0.015, WORK)
    place.learn(0.025, 0.025)
    assert place.service_s[0] == 0.010, "the batch of two goes on: nobody knows yet how long it takes"
    place.learn(0.030, 0.005)
    assert place.service_s[0] == pytest.approx(0.011)
    place.learn(1.030, 1.0)
    assert place.service_s == [pytest.approx(0.0107), 0.0]
    place.recover(2.0)
    assert place.service_s == [0.010, 0.0], "an engine that starts again has its profile"
