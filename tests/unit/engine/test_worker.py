"""How models share the engine's one worker. The clocks are made up."""

import pytest

from nearcast.engine.worker import LOOP_S, LoopTime, SharedTime, waits


class Clock:
    """Says what it is told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_batch_alone_is_charged_as_long_as_it_takes() -> None:
    clock = Clock()
    shared = SharedTime(clock)
    clock.now_s = 3.0
    began_s = shared.begin()
    clock.now_s = 5.0
    assert shared.read() - began_s == pytest.approx(2.0)
    assert shared.end() - began_s == pytest.approx(2.0)
    clock.now_s = 9.0
    assert shared.read() - began_s == pytest.approx(2.0)


def test_batches_that_run_at_once_divide_the_time_and_nothing_is_charged_twice() -> None:
    clock = Clock()
    shared = SharedTime(clock)
    first_s = shared.begin()
    clock.now_s = 1.0
    second_s = shared.begin()
    clock.now_s = 3.0
    first_charged_s = shared.end() - first_s
    clock.now_s = 4.0
    second_charged_s = shared.end() - second_s
    assert (first_charged_s, second_charged_s) == pytest.approx((2.0, 2.0))
    assert first_charged_s + second_charged_s == pytest.approx(4.0)  # something was computed for four seconds


def test_a_model_alone_waits_for_its_own_work() -> None:
    assert waits([0.5], [0.1]) == [0.5]


def test_the_queue_of_one_model_delays_the_others_as_far_as_they_overlap() -> None:
    crowded, idle, small = waits([10.0, 0.0, 0.2], [0.1, 0.1, 0.1])
    assert crowded == pytest.approx(10.2)
    assert idle == pytest.approx(0.2)  # a tenth of a second of each of the others while its own tenth is done
    assert small == pytest.approx(0.5)


def test_without_work_nobody_waits() -> None:
    assert waits([0.0, 0.0], [0.1, 0.1]) == [0.0, 0.0]
    assert waits([], []) == []


def test_the_loops_time_is_learned_from_busy_seconds_only() -> None:
    cpu = Clock()
    loop = LoopTime(cpu)
    loop.sample(0.0, 0.0, 0)
    cpu.now_s = 0.05
    loop.sample(1.0, 0.0, 100)  # half a millisecond each: the loop rests, and pays for waking up
    assert loop.per_request_s == LOOP_S
    for second in range(20):
        cpu.now_s += 0.9
        loop.sample(2.0 + second, 0.5, 10_000)  # 0.4 s of 0.9 s are its own
    assert loop.per_request_s == pytest.approx(40e-6, rel=0.01)
    assert loop.recent() == pytest.approx(40e-6)


def test_a_loop_that_answers_nothing_costs_no_request_anything() -> None:
    cpu = Clock()
    loop = LoopTime(cpu)
    for second in range(10):
        cpu.now_s += 0.5
        loop.sample(float(second), 0.0, 0)
    assert (loop.recent(), loop.per_request_s) == (0.0, LOOP_S)
