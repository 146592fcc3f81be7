"""Lists of places that follow prices, and the prices to go on from."""

import numpy as np
import pytest

from fleets.exact import best_shares_s
from fleets.small import line, scattered
from nearcast.planning.fleet.assign import Ground
from nearcast.planning.fleet.bound import UNSEEN, least_s
from nearcast.planning.fleet.congestion import Queues
from nearcast.planning.fleet.cost import Costs
from nearcast.planning.fleet.problem import MAX_CANDIDATES, Floats, Problem, Truths
from nearcast.planning.fleet.search import CAUTION, Search
from nearcast.planning.fleet.solve import route_fleet

SITES = 120
WORK_S = 0.01


def _search(problem: Problem, placed: Truths | None = None) -> Search:
    queues = Queues.of(problem)
    ground = Ground.of(Costs.of(problem, queues.top_price_s), queues, np.arange(len(problem.sites)))
    return Search(ground.costs, queues, ground.near, ground.costs.able if placed is None else placed)


def _left_dear() -> Floats:
    """Prices at which the left half of a line is too dear to use, even from its far end."""
    return np.where(np.arange(SITES) < SITES // 2, 1.0 / WORK_S, 0.0)


def _listed(search: Search) -> Truths:
    """bool[N, S]: places in the list of each row."""
    market = search.market
    found = np.zeros((market.demand_per_s.size, market.sites), dtype=np.bool_)
    rank, row = np.nonzero(np.isfinite(market.cost_s))
    found[row, market.place[rank, row]] = True
    return found


def _paid_s(search: Search, price_s: Floats) -> Floats:
    """float64[S, S]: what a request of a line costs at each place with its price."""
    every = np.arange(SITES)
    found: Floats = search.costs.between(0, every[:, None], every[None, :]) + WORK_S * price_s
    return found


def test_lists_begin_with_the_cheapest_places_without_prices() -> None:
    listed = _listed(_search(line(SITES)))
    assert listed.sum(axis=1).tolist() == [MAX_CANDIDATES] * SITES
    assert np.flatnonzero(listed[0]).tolist() == list(range(MAX_CANDIDATES))


def test_what_is_cheaper_outside_of_a_list_at_new_prices_comes_into_it() -> None:
    search = _search(line(SITES))
    price_s = search.look(_left_dear())
    assert _listed(search)[0, SITES // 2]  # the nearest that is not dear
    least = _paid_s(search, price_s).min(axis=1)
    listed = least_s(search.market, price_s)
    assert float((listed - least).sum()) <= UNSEEN * float(least.sum())
    assert (listed >= least - 1e-6).all()


def test_a_list_holds_open_places_only_and_each_once() -> None:
    problem = scattered(SITES, 3, 5)
    placed = np.random.default_rng(5).random((SITES, 3)) < 0.5
    search = _search(problem, placed)
    for seed in range(3):
        search.look(np.random.default_rng(seed).exponential(5.0, SITES))
    market = search.market
    open_to = np.isfinite(market.cost_s)
    for row, (place, there) in enumerate(zip(market.place.T, open_to.T, strict=True)):
        mine = place[there]
        assert len(set(mine.tolist())) == len(mine)
        assert placed[mine, row // SITES].all()


def test_a_bound_is_over_all_open_places_whatever_is_listed() -> None:
    search, price_s = _search(line(SITES)), _left_dear()
    paid_s = float(_paid_s(search, price_s).min(axis=1).sum())
    assert search.bound_at(price_s) == pytest.approx(paid_s - search.queues.worth_s(price_s).sum(), abs=0.1)


@pytest.mark.parametrize("seed", [1, 2])
def test_no_prices_bound_shares_above_what_they_can_cost(seed: int) -> None:
    problem = scattered(14, 3, seed, load=0.9)
    placed = np.ones((14, 3), dtype=np.bool_)
    exact_s = best_shares_s(problem, placed)
    good_s = route_fleet(problem, placed).price_s
    search = _search(problem, placed)
    for part in (0.0, 0.5, 1.0, 2.0):
        assert search.bound_at(part * good_s) <= exact_s * (1 + 1e-6)
    assert search.bound_s >= 0.9 * exact_s


def test_a_bound_leaves_lists_as_they_are() -> None:
    search = _search(line(SITES))
    before = search.market.place.copy()
    search.bound_at(_left_dear())
    assert np.array_equal(search.market.place, before)


def test_prices_go_on_as_they_are_at_first() -> None:
    assert np.array_equal(_search(line(SITES)).look(_left_dear()), _left_dear())


def test_prices_go_half_way_back_to_the_best_where_lists_lacked_much() -> None:
    search = _search(line(SITES))
    free = np.zeros(SITES)
    search.bound_at(free)  # the best, since nothing is full
    search.look(_left_dear())
    price_s = search.look(_left_dear()[::-1].copy())
    assert price_s == pytest.approx((1.0 - CAUTION) * _left_dear()[::-1])


@pytest.mark.parametrize("parts", [(1.0, 0.3, 0.1), (0.1, 0.3, 1.0), (0.3, 1.0, 0.1)])
def test_of_several_prices_the_best_bound_is_kept_in_any_order(parts: tuple[float, ...]) -> None:
    problem = line(SITES)
    alone = [_search(problem).bound_at(part * _left_dear()) for part in parts]
    search = _search(problem)
    together = [search.bound_at(part * _left_dear()) for part in parts]
    assert together == np.maximum.accumulate(alone).tolist()
