"""First prices of capacity, as regions see them."""

from typing import Any

import numpy as np
import pytest

from fleets.small import line
from nearcast.planning.fleet.congestion import Queues
from nearcast.planning.fleet.cost import Costs
from nearcast.planning.fleet.problem import Floats, Problem
from nearcast.planning.fleet.regions import regional_prices_s

TOWN = 8
"""Sites of each of two towns; one request needs 10 ms of a worker, of whom each site has one."""
APART_S = 0.2


def _two_towns(busy_per_s: float, idle_per_s: float, **changes: Any) -> Problem:
    """Two towns, :data:`APART_S` from one another; so much demand at each site of the first, and of the second."""
    town = np.arange(2 * TOWN) // TOWN
    way_s = np.where(town[:, None] == town, 0.002, APART_S)
    np.fill_diagonal(way_s, 0.0)
    demand = np.where(town == 0, busy_per_s, idle_per_s)[:, None]
    return line(2 * TOWN, demand_per_s=demand, round_trip_s=way_s, **changes)


def _prices_s(problem: Problem) -> Floats:
    queues = Queues.of(problem)
    costs = Costs.of(problem, queues.top_price_s)
    return regional_prices_s(costs, queues, costs.able)


def test_a_town_without_room_is_dearer_by_what_the_way_to_the_next_one_costs() -> None:
    price_s = _prices_s(_two_towns(150.0, 10.0))
    busy, idle = price_s[:TOWN], price_s[TOWN:]
    assert (busy.min() - idle.max()) * 0.01 == pytest.approx(APART_S, rel=0.1)


def test_where_all_have_room_capacity_is_next_to_free() -> None:
    assert _prices_s(_two_towns(10.0, 10.0)).max() * 0.01 < 0.01 * APART_S


def test_what_may_not_be_used_does_not_become_dear() -> None:
    may = np.array([[[True, False], [False, True]]])
    kinds = np.arange(2 * TOWN) % 2  # neighbours of either kind in each town
    problem = _two_towns(150.0, 10.0, site_class=kinds.astype(np.int32), may=may)
    problem.demand_per_s[kinds == 1] = 1.0
    price_s = _prices_s(problem)
    assert price_s[:TOWN][kinds[:TOWN] == 0].min() * 0.01 > 0.5 * APART_S
    assert price_s[kinds == 1].max() * 0.01 < 0.01 * APART_S


def test_a_worker_who_does_twice_as_much_is_worth_twice_as_much() -> None:
    work_s = np.full((2 * TOWN, 1), 0.01)
    work_s[:TOWN:2] = 0.02
    price_s = _prices_s(_two_towns(150.0, 10.0, work_s=work_s))
    assert price_s[1:TOWN:2] == pytest.approx(2.0 * price_s[:TOWN:2], rel=0.05)


@pytest.mark.parametrize("sites", [1, 2, 5])
def test_a_fleet_of_a_few_sites_is_a_region_or_two(sites: int) -> None:
    price_s = _prices_s(line(sites, demand_per_s=np.full((sites, 1), 200.0)))
    assert price_s.shape == (sites,)
    assert (price_s > 0.0).all()


def test_without_demand_everything_is_free() -> None:
    assert not _prices_s(_two_towns(0.0, 0.0)).any()
