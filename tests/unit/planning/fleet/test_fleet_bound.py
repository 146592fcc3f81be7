"""Bounds over all places, from lists of a few."""

import numpy as np
import pytest

from fleets.small import line
from nearcast.planning.fleet.bound import priced, routing_bound_s
from nearcast.planning.fleet.candidates import Near
from nearcast.planning.fleet.congestion import Queues
from nearcast.planning.fleet.cost import Costs
from nearcast.planning.fleet.search import Search

SITES, MODELS = 60, 3


def looked(seed: int) -> tuple[Search, np.ndarray]:
    """Lists without prices, and prices at which places beyond them are cheaper: two thirds of a line are full."""
    dice = np.random.default_rng(seed)
    shape = (SITES, MODELS)
    demand, service = dice.uniform(10.0, 60.0, shape), dice.uniform(0.008, 0.012, shape)
    problem = line(SITES, MODELS, apart_s=0.002, demand_per_s=demand, service_s=service)
    queues = Queues.of(problem)
    costs = Costs.of(problem, queues.top_price_s)
    search = Search(costs, queues, Near.of(costs, np.arange(SITES)), costs.able)
    return search, np.where(np.arange(SITES) < 40, dice.uniform(2.0, 8.0, SITES), 0.0)


def over_all_s(search: Search, price_s: np.ndarray) -> float:
    """The bound by the cheapest of all places for each row, one by one."""
    every = np.arange(SITES * MODELS)
    least = priced(search.costs, search.market, search.placed, price_s, every, 1)[3]
    return routing_bound_s(search.market, search.queues, price_s, least)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_bound_is_that_over_all_places_though_few_of_them_are_looked_at(seed: int) -> None:
    search, price_s = looked(seed)
    listed = routing_bound_s(search.market, search.queues, price_s, search.market.reduced_s(price_s).min(axis=0))
    exact = over_all_s(search, price_s)
    assert listed > 1.05 * exact  # there are cheaper places outside of the lists
    assert exact * (1.0 - 1e-3) < search.bound_at(price_s) <= exact


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_fewer_looks_say_less_and_some_looks_more_than_none(seed: int) -> None:
    bounds = []
    for most in (0, 600, 1800, None):
        search, price_s = looked(seed)
        bounds.append(search.bound_at(price_s, most))
    assert bounds[0] < bounds[1] < bounds[2] < bounds[3] <= over_all_s(search, price_s)


def test_prices_that_say_less_leave_the_best_bound_as_it_is() -> None:
    search, price_s = looked(1)
    best = search.bound_at(np.zeros(SITES))
    assert best > over_all_s(search, price_s)
    assert search.bound_at(price_s) == search.bound_at(10.0 * price_s) == best
