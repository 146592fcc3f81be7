"""How busy a model says that it is, and what it learns of its cost. Time is an argument."""

import pytest

from nearcast.engine.gauges import BUCKETS_S, WINDOW, Gauges, Histogram, expected_s
from nearcast.engine.profile import Point, Profile

# one row takes 10 ms; 32 rows take 40 ms, 1.25 ms each
CURVE = (Point(1, 0.010), Point(8, 0.017), Point(32, 0.040))
BATCHED = Profile(curve=CURVE, max_batch=32, service_s=0.010)
SINGLE = Profile(curve=(Point(1, 0.24),), service_s=0.24)
UNKNOWN = Profile()


def run(gauges: Gauges, rows: int, seconds: float, *, saturated: bool = False) -> None:
    gauges.ran(rows, rows, seconds, seconds, saturated=saturated)
    gauges.answered += rows


def test_before_any_sample_nothing_is_claimed() -> None:
    assert Gauges(BATCHED).recent(5.0) == (0.0, 0.0, 0.0)


def test_rates_are_those_of_the_window_not_of_all_time() -> None:
    gauges = Gauges(SINGLE)
    for second in range(20):
        gauges.sample(float(second))
        if second < 10:
            run(gauges, 10, 2.4)
    busy_past = gauges.recent(20.0)
    assert busy_past == (0.0, 0.0, 0.0)
    run(gauges, 5, 1.2)
    gauges.failed += 1
    recent = gauges.recent(20.0)
    elapsed_s = 20.0 - (19 - WINDOW)
    assert recent == pytest.approx((1.2 / elapsed_s, 5 / elapsed_s, 1 / elapsed_s))


def test_half_empty_batches_keep_the_worker_busy_and_use_little_of_it() -> None:
    gauges = Gauges(BATCHED)
    for second in range(10):
        gauges.sample(float(second))
        for _ in range(100):
            run(gauges, 1, 0.010, saturated=True)
    recent = gauges.recent(10.0)
    assert recent.utilization == pytest.approx(recent.answered_per_s * gauges.work_s)
    assert recent.utilization < 0.15


def test_full_batches_without_a_pause_are_all_that_it_can_do() -> None:
    gauges = Gauges(BATCHED)
    for second in range(10):
        gauges.sample(float(second))
        for _ in range(25):
            run(gauges, 32, 0.040, saturated=True)
    assert gauges.recent(10.0).utilization == pytest.approx(1.0)


def test_a_run_that_is_going_on_counts() -> None:
    gauges = Gauges(BATCHED)
    gauges.sample(0.0)
    assert gauges.recent(2.0, running_s=1.0).utilization == pytest.approx(0.5)
    assert gauges.recent(2.0, running_s=9.0).utilization == 1.0


def test_service_is_that_of_late_and_of_an_idle_engine_again_when_nothing_comes() -> None:
    gauges = Gauges(BATCHED)
    for _ in range(100):
        run(gauges, 32, 0.040, saturated=True)
    gauges.sample(0.0)
    assert gauges.service_s == pytest.approx(0.040, rel=0.01)
    assert gauges.idle_s == pytest.approx(0.010)
    for second in range(20):
        gauges.sample(1.0 + second)
    assert gauges.service_s == pytest.approx(0.010, rel=0.01)


def test_the_curve_has_a_figure_for_every_number_of_rows() -> None:
    found = expected_s(BATCHED)
    assert len(found) == 33
    assert [found[rows] for rows in (1, 8, 32)] == pytest.approx([0.010, 0.017, 0.040])
    assert found[20] == pytest.approx(0.0285)
    assert expected_s(UNKNOWN) == [0.01, 0.01]


def test_work_is_that_of_a_full_batch_from_the_beginning() -> None:
    assert Gauges(BATCHED).work_s == pytest.approx(0.040 / 32)
    assert Gauges(BATCHED).full_s == pytest.approx(0.040)
    assert Gauges(SINGLE).full_s == pytest.approx(0.24)


def test_an_idle_hour_of_single_rows_does_not_make_a_row_dear() -> None:
    gauges = Gauges(BATCHED)
    for second in range(3600):
        for _ in range(10):
            run(gauges, 1, 0.012)  # a fifth slower than measured: the caches are cold
        gauges.sample(float(second))
    assert gauges.work_s == pytest.approx(1.2 * 0.040 / 32, rel=0.02)
    assert gauges.full_s == pytest.approx(1.2 * 0.040, rel=0.02)
    assert gauges.idle_s == pytest.approx(0.012)


def test_runs_that_are_mostly_waking_up_teach_nothing_while_idle() -> None:
    tiny = Gauges(Profile(curve=(Point(1, 5e-6), Point(32, 10e-6)), max_batch=32, inline=True, service_s=5e-6))
    for second in range(3600):
        run(tiny, 1, 50e-6)
        tiny.sample(float(second))
    assert tiny.work_s == pytest.approx(10e-6 / 32)


def test_a_saturated_engine_teaches_within_seconds() -> None:
    gauges = Gauges(BATCHED)
    for second in range(6):
        for _ in range(10):
            run(gauges, 32, 0.100, saturated=True)  # real inputs are longer than the made-up ones
        gauges.sample(float(second))
    assert gauges.work_s == pytest.approx(0.100 / 32, rel=0.1)


def test_a_quiet_while_hardly_touches_what_a_saturated_engine_taught() -> None:
    gauges = Gauges(BATCHED)
    for second in range(20):
        for _ in range(10):
            run(gauges, 32, 0.100, saturated=True)
        gauges.sample(float(second))
    taught_s = gauges.work_s
    for second in range(20, 30):
        for _ in range(10):
            run(gauges, 1, 0.010)
        gauges.sample(float(second))
    assert 0.93 * taught_s < gauges.work_s < taught_s


def test_small_batches_of_a_busy_engine_are_held_against_their_own_size() -> None:
    gauges = Gauges(BATCHED)
    for second in range(10):
        for _ in range(50):
            run(gauges, 8, 0.017, saturated=True)
        gauges.sample(float(second))
    assert gauges.work_s == pytest.approx(0.040 / 32)


def test_one_batch_that_the_machine_stood_still_in_does_not_ruin_the_figure() -> None:
    gauges = Gauges(BATCHED)
    run(gauges, 32, 30.0, saturated=True)
    gauges.sample(0.0)
    assert gauges.work_s < 2.5 * 0.040 / 32
    for second in range(8):
        for _ in range(20):
            run(gauges, 32, 0.040, saturated=True)
        gauges.sample(1.0 + second)
    assert gauges.work_s == pytest.approx(0.040 / 32, rel=0.15)


def test_a_model_that_could_not_be_measured_learns_from_whatever_comes() -> None:
    gauges = Gauges(UNKNOWN)
    for second in range(30):
        run(gauges, 1, 0.5)
        gauges.sample(float(second))
    assert gauges.work_s == pytest.approx(0.5, rel=0.05)


def test_requests_of_many_rows_cost_as_many() -> None:
    gauges = Gauges(BATCHED)
    for second in range(120):
        gauges.ran(1, 16, 0.025, 0.025, saturated=False)
        gauges.answered += 1
        gauges.sample(float(second))
    assert gauges.rows_per_request == pytest.approx(16.0, rel=0.02)
    assert gauges.work_s / gauges.piece_s == pytest.approx(gauges.rows_per_request)


def test_histogram_counts_each_event_once() -> None:
    histogram = Histogram()
    for seconds in (0.0, BUCKETS_S[0], BUCKETS_S[3], BUCKETS_S[-1] + 1):
        histogram.add(seconds, 2)
    assert sum(histogram.counts) == 8
    assert histogram.counts[0] == 4
    assert histogram.counts[3] == 2
    assert histogram.counts[-1] == 2
