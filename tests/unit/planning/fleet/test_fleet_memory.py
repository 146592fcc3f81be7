"""What a bound says of fleets whose memory does not hold everything."""

import dataclasses

import numpy as np
import pytest

from fleets.exact import best_placement_s
from fleets.small import line, scattered
from nearcast.planning.fleet.assign import Ground
from nearcast.planning.fleet.congestion import Queues
from nearcast.planning.fleet.cost import Costs
from nearcast.planning.fleet.knapsack import parts
from nearcast.planning.fleet.memory import SMALL, is_scarce, memory_bound_s
from nearcast.planning.fleet.problem import Problem
from nearcast.planning.fleet.solve import plan_fleet


def ground_of(problem: Problem) -> Ground:
    queues = Queues.of(problem)
    return Ground.of(Costs.of(problem, queues.top_price_s), queues, np.arange(len(problem.sites)))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_of_a_plan_that_is_the_best_the_gap_says_a_third_less_than_it_would_without_memory(seed: int) -> None:
    problem = scattered(6, 4, seed, memory=2.0)
    plan = plan_fleet(problem)
    best_s, _ = best_placement_s(problem)
    boundless = plan_fleet(dataclasses.replace(problem, memory_bytes=np.full(6, 99.0)))
    assert plan.cost_s <= 1.001 * best_s
    assert plan.placement_bound_s <= best_s
    assert best_s - plan.placement_bound_s < 0.65 * (best_s - boundless.cost_s)


def test_two_sites_that_hold_one_of_two_models_each_send_half_of_their_requests_to_one_another() -> None:
    """A second away, so nearly all of the cost is the way, and the bound knows that half of the requests must go it."""
    problem = line(2, 2, apart_s=1.0)
    plan = plan_fleet(problem)
    assert plan.cost_s > 2.0
    assert plan.placement_gap < 0.01


def test_memory_is_scarce_where_one_site_does_not_hold_all_that_it_may() -> None:
    assert is_scarce(ground_of(line(2, 2)).costs)
    assert not is_scarce(ground_of(line(2, 2, memory_bytes=np.full(2, 2.0))).costs)
    one = np.array([[True, False], [True, False]])
    assert not is_scarce(ground_of(line(2, 2, eligible=one)).costs)


def test_a_large_fleet_is_not_looked_at() -> None:
    sites = 1 + int(SMALL**0.5)
    assert memory_bound_s(ground_of(line(sites)), np.zeros(sites), 1.0) == -np.inf


def test_parts_fill_memory_by_worth_per_byte() -> None:
    gain = np.array([[6.0, 4.0, 0.5], [6.0, 4.0, 0.5]])
    held = parts(gain, np.array([2.0, 1.0, 1.0]), np.array([2.0, 0.5]))
    assert held == pytest.approx(np.array([[0.5, 1.0, 0.0], [0.0, 0.5, 0.0]]))
