"""How much a pass plans anew: each fact counts at once, noise does not, and small changes add up."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from fleets.small import line, scattered
from nearcast.planning.fleet.problem import FleetPlan, Problem
from nearcast.planning.fleet.record import Scope
from nearcast.planning.fleet.scope import Basis, Tolerance, planned, rests
from nearcast.planning.fleet.solve import plan_fleet

TOLERANCE = Tolerance(many=0, few=0.5, drift=1.0)
SITES = 12
MOST = float(1 << 20)


def fleet(**changes: Any) -> Problem:
    """A dozen sites that all hold their one model, each with a load of half a worker."""
    shape = (SITES, 1)
    given = {"demand_per_s": np.full(shape, 50.0), "pinned": np.ones(shape, dtype=np.bool_)}
    return line(SITES, **{**given, **changes})


class Chain:
    """Passes, one after another, each five seconds after the one before."""

    def __init__(self, problem: Problem, tolerance: Tolerance = TOLERANCE) -> None:
        self.tolerance, self.now_s = tolerance, 0.0
        self.plan: FleetPlan = plan_fleet(problem)
        self.basis: Basis = rests(problem, self.plan, None, Scope(), 0.0, tolerance)
        while self.basis.whole_left:
            assert self.step(problem).planned == "whole"

    def step(self, problem: Problem, seconds: float = 5.0) -> Scope:
        self.now_s += seconds
        scope = self.basis.scope(problem, self.plan, self.now_s, self.tolerance)
        before = self.plan, self.basis
        self.plan = planned(problem, self.plan, scope)
        self.basis = rests(problem, self.plan, before, scope, self.now_s, self.tolerance)
        return scope


def with_(problem: Problem, field: str, site: int, value: float) -> Problem:
    figures = getattr(problem, field).copy()
    figures[site] = value
    return dataclasses.replace(problem, **{field: figures})


def test_the_first_plan_goes_on_until_it_has_come_to_its_end_and_then_nothing_is_planned() -> None:
    chain = Chain(fleet())
    before = chain.plan
    assert chain.step(fleet()) == Scope(planned="none")
    assert chain.plan is before


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("demand_per_s", 70.0, "demand: s3"),
        ("demand_per_s", 0.0, "demand: s3"),
        ("workers", 0.0, "hardware or health: s3"),
        ("workers", 2.0, "hardware or health: s3"),
        ("service_s", np.inf, "times or prices: s3"),
        ("service_s", 0.02, "times or prices: s3"),
        ("extra_s", 0.01, "times or prices: s3"),
        ("memory_bytes", 0.99, "what the plan may not do any more: s3"),
    ],
)
def test_what_changes_at_a_site_has_it_planned_anew(field: str, value: float, word: str) -> None:
    chain = Chain(fleet())
    scope = chain.step(with_(fleet(), field, 3, value))
    assert (scope.planned, scope.changed) == ("part", ("s3",))
    assert word in scope.why


@pytest.mark.parametrize(("field", "value"), [("demand_per_s", 55.0), ("workers", 1.02), ("service_s", 0.011)])
def test_noise_is_not_planned_for(field: str, value: float) -> None:
    assert Chain(fleet()).step(with_(fleet(), field, 3, value)).planned == "none"


def test_small_changes_add_up_until_they_count() -> None:
    chain = Chain(fleet())
    said = [chain.step(with_(fleet(), "demand_per_s", 3, 50.0 + more)).planned for more in (4.0, 8.0, 12.0)]
    assert said == ["none", "none", "part"], "held against what was planned for, not against the last pass"


def test_moves_that_go_on_are_looked_at_again() -> None:
    chain = Chain(fleet())
    busy = with_(fleet(), "demand_per_s", 3, 160.0)
    assert chain.step(busy).changed == ("s3",)
    second = chain.step(busy)
    assert (second.changed, second.why) == (("s3",), "moves that go on: s3")
    assert "none" in [chain.step(busy).planned for _ in range(TOLERANCE.steps + 1)], "and come to an end"


def test_a_way_that_broke_and_one_that_got_longer_are_planned_for_where_they_are_used() -> None:
    problem = one_place()
    for far in (np.inf, 0.5):
        longer = problem.round_trip_s.copy()
        longer[7, 0] = far
        scope = Chain(problem).step(dataclasses.replace(problem, round_trip_s=longer))
        assert (scope.planned, scope.changed) == ("part", ("s7",)), far


def one_place() -> Problem:
    """All are answered by the first site."""
    first = np.arange(SITES)[:, None] == 0
    return fleet(eligible=first, pinned=first, workers=np.full(SITES, 20.0))


def test_whoever_finds_a_place_where_there_was_none_is_planned_anew() -> None:
    cut_off = one_place()
    away = cut_off.round_trip_s.copy()
    away[9, 0] = np.inf
    chain = Chain(dataclasses.replace(cut_off, round_trip_s=away))
    assert chain.step(cut_off).changed == ("s9",)
    assert chain.plan.place[chain.plan.origin == 9].tolist() == [0]


def test_a_place_that_is_full_now_is_planned_anew_however_little_each_site_changed() -> None:
    first = np.arange(SITES)[:, None] == 0
    problem = fleet(eligible=first, pinned=first, workers=np.full(SITES, 6.6))
    chain = Chain(problem)
    scope = chain.step(dataclasses.replace(problem, demand_per_s=problem.demand_per_s * 1.1))
    assert (scope.changed, scope.why) == (("s0",), "places that are full now: s0")


def test_everything_is_planned_where_much_changed_or_rules_did_or_it_is_time() -> None:
    busier = dataclasses.replace(fleet(), demand_per_s=np.full((SITES, 1), 70.0))
    assert Chain(fleet()).step(busier).planned == "whole", "more than half of the sites"
    drifting = dataclasses.replace(TOLERANCE, drift=0.05)
    slightly = dataclasses.replace(fleet(), demand_per_s=np.full((SITES, 1), 53.0))
    assert Chain(fleet()).step(slightly).planned == "none"
    assert "whole fleet" in Chain(fleet(), drifting).step(slightly).why
    ruled = dataclasses.replace(fleet(), may=np.zeros((1, 1, 1), dtype=np.bool_))
    assert Chain(fleet()).step(ruled).why == "sites, models or rules changed"
    later = Chain(fleet()).step(fleet(), TOLERANCE.whole_every_s)
    assert (later.planned, later.why) == ("whole", "everything is planned every 120 s")


def test_a_plan_that_only_time_asked_for_is_not_followed_by_others() -> None:
    chain = Chain(fleet())
    noisy = dataclasses.replace(fleet(), demand_per_s=50.0 + np.arange(SITES)[:, None] * 0.9)
    assert chain.step(noisy, TOLERANCE.whole_every_s).planned == "whole"
    assert chain.step(noisy).planned == "none"


def test_a_small_fleet_is_planned_whenever_any_figure_is_another() -> None:
    chain = Chain(fleet(), Tolerance())
    assert chain.step(fleet()).planned == "none"
    assert chain.step(with_(fleet(), "demand_per_s", 3, 50.1)) == Scope(why="figures changed")


def test_plans_that_follow_what_changed_cost_hardly_more_than_plans_of_everything() -> None:
    """Demand wanders at every site, with noise, and doubles at some: two chains of plans over the same figures."""
    first, dice = scattered(130, 4, 5, load=0.6), np.random.default_rng(1)
    chain = Chain(first, dataclasses.replace(TOLERANCE, drift=0.05))
    whole, level, said = chain.plan, np.ones((130, 1)), []
    for _ in range(6):
        level = level * np.exp(dice.normal(0.0, 0.03, level.shape))
        level[dice.integers(130)] *= 2.0
        noise = np.exp(dice.normal(0.0, 0.05, first.demand_per_s.shape))
        now = dataclasses.replace(first, demand_per_s=first.demand_per_s * level * noise)
        said.append(chain.step(now).planned)
        whole = plan_fleet(now, whole)
        if said[-1] != "none":
            assert chain.plan.cost_s <= 1.01 * whole.cost_s
    assert said.count("part") >= 2, said
