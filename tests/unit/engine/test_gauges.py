"""How busy a model says that it is. Time is an argument."""

import pytest

from nearcast.engine.gauges import BUCKETS_S, WINDOW, Gauges, Histogram


def test_before_any_sample_nothing_is_claimed() -> None:
    assert Gauges(0.01, 0.01).recent(5.0) == (0.0, 0.0, 0.0)


def test_rates_are_those_of_the_window_not_of_all_time() -> None:
    gauges = Gauges(0.01, 0.01)
    for second in range(20):
        gauges.sample(float(second))
        if second < 10:
            gauges.ran(10, 10, 0.5)
            gauges.answered += 10
    busy_past = gauges.recent(20.0)
    assert busy_past == (0.0, 0.0, 0.0)
    gauges.ran(5, 5, 1.2)
    gauges.answered += 5
    gauges.failed += 1
    recent = gauges.recent(20.0)
    elapsed_s = 20.0 - (19 - WINDOW)
    assert recent == pytest.approx((1.2 / elapsed_s, 5 / elapsed_s, 1 / elapsed_s))


def test_a_run_that_is_going_on_counts() -> None:
    gauges = Gauges(0.01, 0.01)
    gauges.sample(0.0)
    assert gauges.recent(2.0, running_s=1.0).utilization == pytest.approx(0.5)
    assert gauges.recent(2.0, running_s=9.0).utilization == 1.0


def test_averages_move_towards_what_is_seen() -> None:
    gauges = Gauges(1.0, 1.0)
    for _ in range(100):
        gauges.ran(4, 4, 0.2)
    assert gauges.service_s == pytest.approx(0.2, rel=0.01)
    assert gauges.item_s == pytest.approx(0.05, rel=0.01)


def test_histogram_counts_each_event_once() -> None:
    histogram = Histogram()
    for seconds in (0.0, BUCKETS_S[0], BUCKETS_S[3], BUCKETS_S[-1] + 1):
        histogram.add(seconds, 2)
    assert sum(histogram.counts) == 8
    assert histogram.counts[0] == 4
    assert histogram.counts[3] == 2
    assert histogram.counts[-1] == 2
