"""Exchanges of replicas in small fleets: what prices say that they may save at most, and how far trying them leads."""

from itertools import islice

import numpy as np
import pytest

from fleets.exact import best_placement_s
from fleets.small import scattered
from nearcast.planning.fleet import exchange
from nearcast.planning.fleet.assign import Ground, route
from nearcast.planning.fleet.congestion import Queues
from nearcast.planning.fleet.cost import Costs
from nearcast.planning.fleet.exchange import Exchange, Floors, exchanged
from nearcast.planning.fleet.problem import Problem, Truths
from nearcast.planning.fleet.solve import plan_fleet


def ground_of(problem: Problem) -> Ground:
    queues = Queues.of(problem)
    return Ground.of(Costs.of(problem, queues.top_price_s), queues, np.arange(len(problem.sites)))


def poor(problem: Problem) -> Truths:
    """A placement that fits and is not good: each site holds the first models that it has memory for, its own first."""
    placed = np.zeros(problem.demand_per_s.shape, dtype=np.bool_)
    for site in range(len(problem.sites)):
        left = problem.memory_bytes[site]
        for model in np.roll(np.arange(len(problem.models)), -site):
            placed[site, model] = problem.footprint_bytes[model] <= left
            left -= problem.footprint_bytes[model] * placed[site, model]
    return placed


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_no_exchange_costs_less_than_its_floor(load: float) -> None:
    problem = scattered(6, 4, 3, load=load, memory=2.0)
    ground, placed = ground_of(problem), poor(problem)
    routing = route(ground, placed)
    move_s = np.linspace(0.0, 0.1, placed.size).reshape(placed.shape)
    floors = Floors.of(ground, placed, routing)
    single = sorted(exchange._possible(ground, placed, problem.pinned, move_s, floors))
    double = sorted(exchange._two(ground, placed, single, floors))
    assert floors.base_s <= routing.cost_s
    assert len(single) > 20
    assert any(len(each.come) == 2 for each in single)
    for each in [*single, *islice(double, 0, len(double), len(double) // 30)]:
        other = each.of(placed)
        moved_s = float(move_s[other].sum() - move_s[placed].sum())
        assert each.moves_s == pytest.approx(moved_s, abs=1e-9)
        assert each.floor_s <= route(ground, other).cost_s + moved_s + 1e-6


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_floor_of_an_exchange_is_no_higher_than_that_of_the_placement_after_it(seed: int) -> None:
    """At the same prices; of one exchange alone it is the same."""
    problem = scattered(6, 4, seed, load=0.8, memory=2.0)
    ground, placed = ground_of(problem), poor(problem)
    routing = route(ground, placed)
    floors = Floors.of(ground, placed, routing)
    single = list(exchange._possible(ground, placed, problem.pinned, np.zeros(placed.shape), floors))
    for each in single:
        assert each.floor_s == pytest.approx(Floors.of(ground, each.of(placed), routing).base_s, rel=1e-4)
    for each in exchange._two(ground, placed, single, floors):
        assert each.floor_s <= Floors.of(ground, each.of(placed), routing).base_s + 1e-4 * abs(floors.base_s)


def test_exchanges_leave_what_must_be_and_fit() -> None:
    problem = scattered(6, 4, 3, memory=2.0)
    problem.least[:] = 2
    problem.most[:] = [2, 3, 4, 6]
    ground, placed = ground_of(problem), poor(problem)
    must = placed & (np.arange(6)[:, None] < 2)
    floors = Floors.of(ground, placed, route(ground, placed))
    single = list(exchange._possible(ground, placed, must, np.zeros(placed.shape), floors))
    found: list[Exchange] = [*single, *exchange._two(ground, placed, single, floors)]
    before = placed.sum(axis=0)
    for each in found:
        other = each.of(placed)
        count = other.sum(axis=0)
        assert (other.astype(int).sum() - placed.sum()) == len(each.come) - len(each.gone)
        assert (other @ problem.footprint_bytes <= problem.memory_bytes + 1e-9).all()
        assert other[must].all()
        assert (count >= np.minimum(problem.least, before)).all()
        assert (count <= np.maximum(problem.most, before)).all()


def test_trials_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = scattered(6, 4, 3, load=0.8, memory=2.0)
    ground, placed = ground_of(problem), poor(problem)
    tried: list[Truths] = []

    def counted(of: Ground, other: Truths, *_: object) -> None:
        tried.append(other)

    monkeypatch.setattr(exchange, "_tried", counted)
    routing = route(ground, placed)
    kept, same = exchanged(ground, placed, routing, problem.pinned, np.zeros(placed.shape), 0.001, trials=7)
    assert len(tried) == 7
    assert len({other.tobytes() for other in tried}) == 7
    assert same is routing
    assert (kept == placed).all()


@pytest.mark.parametrize(
    ("sites", "models", "seed", "load"), [(6, 4, 5, 0.5), (6, 4, 11, 0.8), (8, 5, 2, 0.5), (8, 5, 12, 0.5)]
)
def test_where_memory_is_nearly_full_exchanges_come_near_the_exact_optimum(
    sites: int, models: int, seed: int, load: float
) -> None:
    """Single exchanges, or those that prices alone put first, end 3 to 50 % above it."""
    problem = scattered(sites, models, seed, load=load, memory=2.0)
    exact_s, _ = best_placement_s(problem)
    assert plan_fleet(problem).cost_s <= 1.005 * exact_s
