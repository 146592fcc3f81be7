"""Bounds are below what anything costs: whatever prices and pays they are made of, and with memory as a limit."""

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fleets.exact import best_placement_s
from fleets.small import scattered
from nearcast.planning.fleet.assign import Ground
from nearcast.planning.fleet.congestion import Queues
from nearcast.planning.fleet.cost import Costs
from nearcast.planning.fleet.memory import Relaxed, memory_bound_s

SMALL_ERROR = 1e-6
"""Of the exact solver."""


@settings(max_examples=20, deadline=None)
@given(
    sites=st.integers(1, 5),
    models=st.integers(1, 4),
    seed=st.integers(0, 10_000),
    load=st.sampled_from((0.1, 0.5, 0.9, 1.3)),
    memory=st.sampled_from((0.3, 1.0, 2.0)),
)
def test_no_bound_is_above_the_exact_placement(sites: int, models: int, seed: int, load: float, memory: float) -> None:
    problem = scattered(sites, models, seed, load=load, memory=memory)
    problem = dataclasses.replace(problem, least=np.zeros(models, np.int32))
    queues = Queues.of(problem)
    ground = Ground.of(Costs.of(problem, queues.top_price_s), queues, np.arange(sites))
    exact_s = best_placement_s(problem)[0] * (1.0 + SMALL_ERROR)
    relaxed, dice = Relaxed.of(ground), np.random.default_rng(seed)
    for _ in range(4):
        price_s = dice.exponential(1.0, sites) * dice.choice((0.0, 0.1, 1.0), sites)
        pay_s = relaxed.cheapest_s(price_s) * dice.uniform(0.5, 3.0, (models, sites))
        assert relaxed.at(price_s, pay_s).bound_s <= exact_s
    for goal_s in (exact_s, 3.0 * exact_s):
        assert memory_bound_s(ground, np.zeros(sites), goal_s) <= exact_s
