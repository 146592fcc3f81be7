"""Plans of small fleets: near the exact optimum, stable, and moving only as far as they may."""

import dataclasses

import numpy as np
import pytest

from fleets.exact import best_placement_s, best_shares_s
from fleets.small import line, scattered
from nearcast.planning.fleet.order import failover
from nearcast.planning.fleet.problem import FleetPlan, Problem
from nearcast.planning.fleet.replan import replan_fleet
from nearcast.planning.fleet.solve import Limits, plan_fleet, route_fleet


def shares(problem: Problem, plan: FleetPlan) -> np.ndarray:
    """float64[S, M, S] of origin, model, place."""
    found = np.zeros((len(problem.sites), len(problem.models), len(problem.sites)))
    found[plan.origin, plan.model, plan.place] = plan.share
    return found


def everywhere(problem: Problem) -> np.ndarray:
    return np.ones((len(problem.sites), len(problem.models)), dtype=np.bool_)


@pytest.mark.parametrize("load", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_shares_cost_at_most_a_percent_more_than_the_linear_program_of_highs(seed: int, load: float) -> None:
    problem = scattered(14, 4, seed, load=load)
    placed = np.random.default_rng(seed).random((14, 4)) < 0.6
    placed[0] = True
    plan = route_fleet(problem, placed)
    exact_s = best_shares_s(problem, placed)
    assert plan.cost_s <= 1.01 * exact_s
    assert plan.routing_bound_s <= exact_s * (1 + 1e-6)
    assert plan.routing_gap <= 0.015


def test_more_demand_than_a_fleet_has_room_for_is_refused_where_it_costs_least() -> None:
    problem = scattered(10, 3, 4, load=1.5)
    plan = route_fleet(problem, everywhere(problem))
    assert plan.cost_s <= 1.02 * best_shares_s(problem, everywhere(problem))
    assert plan.unserved_per_s.sum() > 0.0
    assert plan.utilization.max() <= 0.95 + 1e-6


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_placement_is_near_the_exact_optimum_and_its_bound_below(seed: int) -> None:
    problem = scattered(6, 4, seed, memory=2.0)
    plan = plan_fleet(problem)
    exact_s, _ = best_placement_s(problem)
    assert plan.cost_s <= 1.05 * exact_s
    assert plan.placement_bound_s <= exact_s * (1 + 1e-6)


def test_an_idle_fleet_answers_at_home() -> None:
    problem = line(4)
    plan = plan_fleet(problem)
    assert plan.placed.all()
    assert (plan.place == plan.origin).all()
    assert plan.unserved_per_s.sum() == 0.0


def test_overflow_of_a_full_site_goes_to_the_next_and_comes_home() -> None:
    calm = line(4)
    crowd = dataclasses.replace(calm, demand_per_s=np.array([[130.0], [1.0], [1.0], [1.0]]))
    before = plan_fleet(calm)
    full = plan_fleet(crowd, before)
    sent = shares(crowd, full)[0, 0]
    assert full.unserved_per_s.sum() == pytest.approx(0.0, abs=1e-6)
    assert sent[0] >= 0.5 - 1e-6  # at most half goes elsewhere at once
    assert sent[1] > sent[2] >= sent[3]
    again = full
    for _ in range(4):
        again = plan_fleet(calm, again)
    assert shares(calm, again)[0, 0, 0] == 1.0


def test_shares_move_by_no_more_than_the_step() -> None:
    problem = line(3, pinned=np.ones((3, 1), dtype=np.bool_))
    start = plan_fleet(dataclasses.replace(problem, extra_s=np.array([[1.0], [0.0], [1.0]])))
    assert shares(problem, start)[0, 0, 1] == 1.0
    one = plan_fleet(problem, start, limits=Limits(share_step=0.25))
    assert shares(problem, one)[0, 0] == pytest.approx([0.25, 0.75, 0.0], abs=1e-6)
    two = plan_fleet(problem, one, limits=Limits(share_step=0.25))
    assert shares(problem, two)[0, 0] == pytest.approx([0.5, 0.5, 0.0], abs=1e-6)


def test_what_goes_to_a_place_that_is_new_goes_there_at_once() -> None:
    problem = line(3)
    far = dataclasses.replace(problem, eligible=np.array([[False], [True], [True]]))
    start = plan_fleet(far)
    assert shares(problem, start)[0, 0, 1] == 1.0
    joined = plan_fleet(problem, start, limits=Limits(share_step=0.01))
    assert joined.placed[0, 0]
    assert shares(problem, joined)[0, 0] == pytest.approx([1.0, 0.0, 0.0])
    assert joined.routing_gap < 0.01


def test_a_dead_place_loses_all_at_once() -> None:
    problem = line(3)
    plan = plan_fleet(problem)
    dead = dataclasses.replace(problem, workers=np.array([0.0, 1.0, 1.0]))
    assert shares(dead, plan_fleet(dead, plan, limits=Limits(share_step=0.01)))[0, 0] == pytest.approx([0, 1, 0])


def test_small_changes_of_demand_change_shares_a_little() -> None:
    problem = scattered(20, 3, 5, load=0.6)
    plan = route_fleet(problem, everywhere(problem))
    dice = np.random.default_rng(1)
    noisy = dataclasses.replace(
        problem, demand_per_s=problem.demand_per_s * dice.uniform(0.98, 1.02, problem.demand_per_s.shape)
    )
    moved = np.abs(shares(noisy, route_fleet(noisy, everywhere(noisy))) - shares(problem, plan)).sum(axis=2) / 2
    rate = problem.demand_per_s
    assert float((moved * rate).sum() / rate.sum()) < 0.03


def test_a_replica_stays_while_demand_falls_a_little_and_goes_when_it_is_gone() -> None:
    problem = line(3, 2, memory_bytes=np.full(3, 2.0))
    plan = plan_fleet(problem)
    assert plan.placed.all()
    less = dataclasses.replace(problem, demand_per_s=problem.demand_per_s * np.array([1.0, 0.5]))
    assert plan_fleet(less, plan).placed.all()
    none = dataclasses.replace(problem, demand_per_s=problem.demand_per_s * np.array([1.0, 0.0]))
    assert plan_fleet(none, plan).placed.sum(axis=0).tolist() == [3, 1]


def test_replicas_follow_demand_up_within_the_limit_of_moves() -> None:
    few = line(6, 2, most=np.array([6, 6], np.int32), demand_per_s=np.tile([1.0, 0.0], (6, 1)))
    few = dataclasses.replace(few, memory_bytes=np.full(6, 2.0))
    plan = plan_fleet(few)
    assert plan.placed.sum(axis=0).tolist() == [6, 1]
    crowd = dataclasses.replace(few, demand_per_s=np.ones((6, 2)))
    limits = Limits()
    slow = dataclasses.replace(limits, moves=dataclasses.replace(limits.moves, most=2))
    assert plan_fleet(crowd, plan, limits=slow).placed.sum(axis=0).tolist() == [6, 3]
    assert plan_fleet(crowd, plan).placed.sum(axis=0).tolist() == [6, 6]


def test_numbers_of_replicas_hold_without_demand_and_against_it() -> None:
    problem = line(4, 2, demand_per_s=np.tile([5.0, 0.0], (4, 1)), memory_bytes=np.full(4, 1.0))
    problem = dataclasses.replace(problem, least=np.array([1, 2], np.int32), most=np.array([1, 4], np.int32))
    assert plan_fleet(problem).placed.sum(axis=0).tolist() == [1, 2]


def test_a_bound_on_the_number_brings_no_replica_that_nobody_needs() -> None:
    problem = line(3, demand_per_s=np.array([[0.0], [5.0], [0.0]]), most=np.array([2], np.int32))
    assert plan_fleet(problem).placed[:, 0].tolist() == [False, True, False]


def test_pinned_models_beyond_memory_are_kept_from_the_smallest_on() -> None:
    problem = line(1, 3, footprint_bytes=np.array([0.6, 0.5, 0.2]), pinned=np.ones((1, 3), dtype=np.bool_))
    assert plan_fleet(problem).placed.tolist() == [[False, True, True]]


def test_fleets_without_sites_or_models_have_empty_plans() -> None:
    for problem in (line(0), line(3, 0)):
        plan = plan_fleet(problem)
        assert len(plan.share) == 0
        assert plan.cost_s == 0.0


def test_failover_begins_with_what_is_cheapest_with_its_wait() -> None:
    problem = line(7)
    plan = plan_fleet(problem)
    assert failover(problem, plan, 3, 0) == (3, 2, 4, 1, 5)
    slow = dataclasses.replace(plan, wait_s=np.array([0, 0, 0, 9.0, 0, 0, 0]))
    assert failover(problem, slow, 3, 0) == (2, 4, 1, 5, 0)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_plan_after_a_change_in_one_region_is_as_good_as_one_of_everything(seed: int) -> None:
    problem = scattered(120, 6, seed, load=0.5)
    before = plan_fleet(problem)
    changed = np.zeros(120, dtype=np.bool_)
    changed[np.argsort(problem.round_trip_s[0])[:6]] = True
    after = dataclasses.replace(
        problem, demand_per_s=np.where(changed[:, None], 1.6 * problem.demand_per_s, problem.demand_per_s)
    )
    part = replan_fleet(after, before, changed)
    assert part.cost_s <= 1.02 * plan_fleet(after, before).cost_s
    far = np.argsort(problem.round_trip_s[0])[-20:]
    kept = np.isin(before.origin, far)
    assert np.array_equal(before.share[kept], part.share[np.isin(part.origin, far)])


@pytest.mark.parametrize("load", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_planning_again_on_unchanged_inputs_changes_nothing(seed: int, load: float) -> None:
    problem = scattered(40, 6, seed, load=load)
    before = plan_fleet(problem)
    again = plan_fleet(problem, before)
    assert np.array_equal(again.placed, before.placed)
    moved = np.abs(shares(problem, again) - shares(problem, before)).sum(axis=2) / 2
    assert float((moved * problem.demand_per_s).sum() / problem.demand_per_s.sum()) < 0.005


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_replicas_that_answer_nothing_are_not_placed(seed: int) -> None:
    problem = scattered(60, 5, seed, load=0.4, memory=9.0)
    plan = plan_fleet(problem)
    carries = np.zeros_like(plan.placed)
    asked = problem.demand_per_s[plan.origin, plan.model] > 0.0
    carries[plan.place[asked], plan.model[asked]] = True
    assert not (plan.placed & ~carries).any()


def test_bounds_are_near_where_every_place_has_a_price() -> None:
    """Forty places of one model whose batches pay much, near one another: who is busy sends beyond its list."""
    each = np.ones((40, 1))
    demand = np.linspace(240.0, 1200.0, 40)[:, None]
    gpus = line(40, apart_s=0.0005, demand_per_s=demand, work_s=each * 0.01 / 16, full_s=each * 0.02)
    plan = plan_fleet(gpus)
    assert plan.price_s.min() > 0.1
    assert plan.placement_gap < 0.01


def test_a_model_that_comes_where_an_idle_one_went_is_routed_to() -> None:
    """Memory for one of two models that nobody asks for: the other one stood there, and both must be somewhere."""
    problem = line(1, 2, demand_per_s=np.zeros((1, 2)), least=np.array([1, 2], np.int32))
    other = plan_fleet(dataclasses.replace(problem, eligible=np.array([[False, True]])))
    plan = plan_fleet(problem, other)
    assert plan.placed.tolist() == [[True, False]]
    assert (plan.origin.tolist(), plan.model.tolist(), plan.place.tolist()) == ([0], [0], [0])
