"""Shares step by step: by cost alone they settle where costs are level; with a base they leave it only under strain."""

import pytest

from nearcast.planning.cost import Terms
from nearcast.planning.shares import MAX_SHIFT_PER_S, RETURN_PER_S, Base, step
from nearcast.resources.plan import PlannedShare

NONE = Base({}, {})
SPLIT = Base({"home": 0.6, "away": 0.4}, {"home": 0.05, "away": 0.03})
IDLE = {"home": Terms(service_s=0.02), "away": Terms(round_trip_s=0.088, service_s=0.02)}
NAMES = ["home", "away"]


def drive(terms: dict[str, Terms], held: dict[str, float], base: Base, seconds: int) -> dict[str, float]:
    for _ in range(seconds):
        held = step(terms, NAMES, held, base, 1.0)
    return held


def test_by_cost_alone_everything_goes_to_the_cheapest() -> None:
    assert step(IDLE, NAMES, {}, NONE, 0.0) == {"home": 1.0}
    assert drive(IDLE, {"home": 0.5, "away": 0.5}, NONE, 60) == {"home": pytest.approx(1.0)}


def test_a_base_is_where_shares_begin_and_stay_although_one_place_is_farther() -> None:
    assert step(IDLE, NAMES, {}, SPLIT, 0.0) == {"home": 0.6, "away": 0.4}
    assert drive(IDLE, {"home": 0.6, "away": 0.4}, SPLIT, 60) == pytest.approx({"home": 0.6, "away": 0.4})


def test_a_new_base_is_reached_by_small_steps() -> None:
    one = step(IDLE, NAMES, {"home": 1.0}, SPLIT, 1.0)
    assert one == pytest.approx({"home": 1.0 - RETURN_PER_S, "away": RETURN_PER_S})
    assert drive(IDLE, {"home": 1.0}, SPLIT, 10) == pytest.approx({"home": 0.6, "away": 0.4})


def test_a_strained_place_is_left_and_traffic_returns_once_it_is_over() -> None:
    crowded = {**IDLE, "away": Terms(round_trip_s=0.088, wait_s=0.5, service_s=0.02)}
    one = step(crowded, NAMES, {"home": 0.6, "away": 0.4}, SPLIT, 1.0)
    assert 0.6 < one["home"] <= 0.6 + MAX_SHIFT_PER_S
    away = drive(crowded, {"home": 0.6, "away": 0.4}, SPLIT, 30)
    assert away["home"] > 0.99
    assert drive(IDLE, away, SPLIT, 10) == pytest.approx({"home": 0.6, "away": 0.4})


def test_a_queue_at_home_beyond_what_the_plan_expected_sends_more_away() -> None:
    crowded = {"home": Terms(wait_s=0.4, service_s=0.02), "away": IDLE["away"]}
    assert step(crowded, NAMES, {"home": 0.6, "away": 0.4}, SPLIT, 1.0)["away"] > 0.43
    as_expected = {"home": Terms(wait_s=0.05, service_s=0.02), "away": IDLE["away"]}
    assert step(as_expected, NAMES, {"home": 0.6, "away": 0.4}, SPLIT, 1.0) == pytest.approx({"home": 0.6, "away": 0.4})


def test_a_full_place_that_was_expected_to_be_slow_is_left_too() -> None:
    """At 95 % of its workers a cloud is expected to keep a request for 0.2 s; 0.66 s are too much, 0.46 s are not."""
    planned = Base({"home": 0.6, "away": 0.4}, {"home": 0.05, "away": 0.2})
    held = {"home": 0.6, "away": 0.4}
    full = {**IDLE, "away": Terms(round_trip_s=0.088, wait_s=0.6, service_s=0.06)}
    assert step(full, NAMES, held, planned, 1.0)["away"] < 0.4
    by_chance = {**IDLE, "away": Terms(round_trip_s=0.088, wait_s=0.4, service_s=0.06)}
    assert step(by_chance, NAMES, held, planned, 1.0) == pytest.approx(held)


def test_what_is_gone_loses_its_share_at_once_and_the_base_follows() -> None:
    assert step(IDLE, ["home"], {"home": 0.6, "away": 0.4}, Base.of((), ["home"]), 1.0) == {"home": 1.0}
    planned = (PlannedShare(site="home", share=0.6), PlannedShare(site="away", share=0.4))
    assert Base.of(planned, ["home", "home/b"]).share == {"home": 1.0}
    assert Base.of(planned, ["other"]).share == {}


def test_nodes_of_a_site_share_its_base_by_cost() -> None:
    terms = {"home": Terms(service_s=0.02), "home/b": Terms(round_trip_s=0.0005, service_s=0.02), "away": IDLE["away"]}
    names = list(terms)
    held = step(terms, names, {"home/b": 0.6, "away": 0.4}, SPLIT, 1.0)
    assert held["home/b"] + held.get("home", 0.0) == pytest.approx(0.6)
    full = {**terms, "home": Terms(wait_s=0.3, service_s=0.02)}
    held = step(full, names, {"home": 0.6, "away": 0.4}, SPLIT, 1.0)
    assert held["home/b"] > 0.04, "the sibling is nearer than any other site"
    assert held["away"] == pytest.approx(0.4)
