"""Totals become rates. Time is an argument."""

import pytest

from nearcast.agent.demand import MODELS_MAX, TIME_CONSTANT_S, Demand
from nearcast.gateway.demand import Asked

CATALOG = ("m", "n")


def steady(demand: Demand, rate_per_s: int, seconds: int, *, begin_s: int = 0, total: int = 0) -> int:
    """``seconds`` of a steady rate, looked at every second; the total at the end."""
    for second in range(seconds):
        total += rate_per_s
        demand.take({"m": Asked(requests=total)}, CATALOG, float(begin_s + second))
    return total


def test_what_was_asked_before_the_first_look_is_no_rate() -> None:
    demand = Demand()
    demand.take({"m": Asked(requests=1_000_000)}, CATALOG, 0.0)
    assert demand.now() == {}
    demand.take({"m": Asked(requests=1_000_000)}, CATALOG, 1.0)
    assert demand.now() == {}


def test_two_thirds_of_a_step_are_seen_within_the_time_constant() -> None:
    demand = Demand()
    demand.take({}, CATALOG, -1.0)
    total = steady(demand, 100, round(TIME_CONSTANT_S))
    assert demand.now()["m"].rate_per_s == pytest.approx(63.2, rel=0.01)
    steady(demand, 100, 60, begin_s=round(TIME_CONSTANT_S), total=total)
    assert demand.now()["m"].rate_per_s == pytest.approx(100.0, rel=0.01)


def test_how_often_one_looks_does_not_matter() -> None:
    often, seldom = Demand(), Demand()
    for demand in (often, seldom):
        demand.take({}, CATALOG, 0.0)
    for tick in range(1, 41):
        often.take({"m": Asked(requests=tick * 10)}, CATALOG, tick / 4)
    seldom.take({"m": Asked(requests=400)}, CATALOG, 10.0)
    assert often.now()["m"].rate_per_s == pytest.approx(seldom.now()["m"].rate_per_s, rel=0.001)


def test_a_demand_that_ends_fades_and_is_forgotten() -> None:
    demand = Demand()
    demand.take({}, CATALOG, -1.0)
    total = steady(demand, 100, 60)
    for second in range(60, 70):
        demand.take({"m": Asked(requests=total)}, CATALOG, float(second))
    assert demand.now()["m"].rate_per_s == pytest.approx(13.5, rel=0.02)
    for second in range(70, 200):
        demand.take({"m": Asked(requests=total)}, CATALOG, float(second))
    assert demand.now() == {}


def test_an_envoy_that_was_started_anew_counts_from_the_beginning() -> None:
    demand = Demand()
    demand.take({}, CATALOG, -1.0)
    steady(demand, 100, 60)
    demand.take({"m": Asked(requests=100)}, CATALOG, 60.0)
    assert demand.now()["m"].rate_per_s == pytest.approx(100.0, rel=0.01)
    demand.take({}, CATALOG, 61.0)
    assert demand.now()["m"].rate_per_s == pytest.approx(81.9, rel=0.01)


def test_sizes_are_means_of_the_sample() -> None:
    demand = Demand()
    demand.take({"m": Asked(1000, 100, 5_000_000, 5_000_000)}, CATALOG, 0.0)
    demand.take({"m": Asked(1080, 110, 5_010_000, 5_000_500)}, CATALOG, 1.0)
    told = demand.now()["m"]
    assert (told.request_bytes, told.answer_bytes) == (1000.0, 50.0)
    demand.take({"m": Asked(1160, 110, 5_010_000, 5_000_500)}, CATALOG, 2.0)  # none of these was in the sample
    assert demand.now()["m"].request_bytes == 1000.0


def test_sizes_follow_what_is_sent_now() -> None:
    demand = Demand()
    sized = received = 0
    demand.take({}, CATALOG, -1.0)
    for second in range(600):
        sized, received = sized + 10, received + (10_000 if second < 300 else 1_000)
        demand.take({"m": Asked(sized * 8, sized, received, received)}, CATALOG, float(second))
    assert demand.now()["m"].request_bytes == pytest.approx(100.0, rel=0.1)


def test_models_that_no_plan_knows_are_nobodys_demand() -> None:
    demand = Demand()
    demand.take({}, CATALOG, 0.0)
    demand.take({"m": Asked(5), "stranger": Asked(500)}, CATALOG, 1.0)
    assert set(demand.now()) == {"m"}
    demand.take({"m": Asked(10), "stranger": Asked(500)}, (*CATALOG, "stranger"), 2.0)
    assert set(demand.now()) == {"m"}  # what was asked before it was deployed does not come all at once now
    demand.take({"m": Asked(15), "stranger": Asked(500)}, ("stranger",), 3.0)
    assert demand.now() == {}


def test_the_most_asked_are_told_where_there_are_too_many() -> None:
    demand = Demand()
    names = [f"m{index:03}" for index in range(MODELS_MAX + 20)]
    demand.take({}, names, 0.0)
    demand.take({name: Asked(requests=index + 1) for index, name in enumerate(names)}, names, 1.0)
    told = demand.now()
    assert list(told) == names[20:]
