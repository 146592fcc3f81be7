"""Rows of the routing program, and how they answer to prices: what is dear is asked less.

A row is the demand of one origin for one model, with the few places that it may use. Given a price for the capacity of
each place, a row spreads over its places by a softened minimum (a logit): shares that change gently where costs are
nearly level, and so are stable when figures change a little. The price of that is at most the ``heat`` times the
logarithm of the number of level places, relative to the row's cost.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.fleet.candidates import Lists
from nearcast.planning.fleet.cost import Costs, Floats32
from nearcast.planning.fleet.problem import Floats

Ints = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Heat:
    """How soft a minimum is: parts of a row's least cost, and of what it pays with the price of capacity.

    Where prices are high a difference far below them is lost in the rounding of float32, and no climb gets anywhere.
    """

    of_cost: float
    of_paid: float


@dataclass(frozen=True, eq=False)
class Market:
    """``N`` rows of ``K`` ranks.

    Attributes:
        place: intp[K, N].
        cost_s: float32[K, N]; inf where a row has fewer places.
        work_s: float32[K, N]; 0 where a row has fewer places.
        demand_per_s: float32[N].
        unserved_s: float32[N]: cost of a request that is not served.
        sites: number of places.
        origin: intp[O]: of all rows, which are model by model, each origin by origin; empty where only some were taken.
    """

    place: Ints
    cost_s: Floats32
    work_s: Floats32
    demand_per_s: Floats32
    unserved_s: Floats32
    sites: int
    origin: Ints

    @classmethod
    def of(cls, costs: Costs, lists: Lists, origin: Ints) -> "Market":
        """All rows of ``lists``, whose origins are ``origin``."""
        problem = costs.problem
        ranks, models, count = lists.place.shape
        work_s = np.zeros(lists.place.shape, np.float32)
        for model in range(models):
            column = np.where(costs.able[:, model], problem.work_s[:, model], 0.0).astype(np.float32)
            found = column[lists.place[:, model]]
            work_s[:, model] = np.where(np.isfinite(lists.cost_s[:, model]), found, np.float32(0.0))
        return cls(
            lists.place.reshape(ranks, -1),
            lists.cost_s.reshape(ranks, -1),
            work_s.reshape(ranks, -1),
            problem.demand_per_s[origin].T.reshape(-1).astype(np.float32),
            np.repeat(costs.unserved_s, count).astype(np.float32),
            len(costs.able),
            origin,
        )

    def models_of(self, rows: Ints) -> Ints:
        """intp[n]: the model of each of ``rows``."""
        found: Ints = rows // len(self.origin)
        return found

    def origins_of(self, rows: Ints) -> Ints:
        """intp[n]: the site at which each of ``rows`` enters."""
        found: Ints = self.origin[rows % len(self.origin)]
        return found

    def take(self, rows: Ints) -> "Market":
        """Only these rows."""
        return Market(
            np.take(self.place, rows, axis=1),  # unlike [:, rows] this keeps ranks first in memory, too
            np.take(self.cost_s, rows, axis=1),
            np.take(self.work_s, rows, axis=1),
            self.demand_per_s[rows],
            self.unserved_s[rows],
            self.sites,
            self.origin[:0],
        )

    def put(self, rows: Ints, part: "Market") -> "Market":
        """With the places of ``part`` as those of ``rows``."""
        place, cost_s, work_s = self.place.copy(), self.cost_s.copy(), self.work_s.copy()
        place[:, rows], cost_s[:, rows], work_s[:, rows] = part.place, part.cost_s, part.work_s
        return Market(place, cost_s, work_s, self.demand_per_s, self.unserved_s, self.sites, self.origin)

    def top(self, ranks: int) -> "Market":
        """Only the first ``ranks`` places of each row; views."""
        return Market(
            self.place[:ranks],
            self.cost_s[:ranks],
            self.work_s[:ranks],
            self.demand_per_s,
            self.unserved_s,
            self.sites,
            self.origin,
        )

    def reduced_s(self, price_s: Floats) -> Floats32:
        """float32[K, N]: cost with the price of the capacity that is taken."""
        found: Floats32 = np.take(price_s.astype(np.float32), self.place)
        found *= self.work_s
        found += self.cost_s
        return found

    def load(self, share: Floats32) -> Floats:
        """float64[S]: worker-seconds per second at each place, if rows spread by ``share`` (float32[K, N])."""
        return self.at_places(share * (self.work_s * self.demand_per_s))

    def at_places(self, amount: Floats32) -> Floats:
        """float64[S]: ``amount`` (float32[K, N]) added up by place."""
        found = np.bincount(self.place.reshape(-1), amount.reshape(-1), minlength=self.sites)
        return found.astype(np.float64, copy=False)


@dataclass(frozen=True, eq=False)
class Answer:
    """How rows answer to prices.

    Attributes:
        share: float32[K, N]: of each place.
        unserved: float32[N]: share that is not served.
        soft_s: the softened least cost of all demand; a concave function of the prices, whose slopes are the loads.
        hard_s: the least cost of all demand.
    """

    share: Floats32
    unserved: Floats32
    soft_s: float
    hard_s: float


def answer(market: Market, price_s: Floats, heat_s: Floats32, reduced: Floats32 | None = None) -> Answer:
    """Shares by a softened minimum at ``price_s``; ``heat_s`` is float32[N], the cost difference that still counts.

    ``reduced`` is :meth:`Market.reduced_s` of these prices, where the caller has it; it is used up.
    """
    if reduced is None:
        reduced = market.reduced_s(price_s)
    low = np.minimum(reduced.min(axis=0), market.unserved_s)
    scale = np.float32(1.0) / heat_s
    np.subtract(low, reduced, out=reduced)
    reduced *= scale
    np.exp(reduced, out=reduced)
    unserved = np.exp((low - market.unserved_s) * scale)
    total = reduced.sum(axis=0) + unserved
    reduced *= np.float32(1.0) / total
    soft = low - heat_s * np.log(total)
    demand = market.demand_per_s
    return Answer(
        reduced,
        unserved / total,
        float((demand * soft).sum(dtype=np.float64)),
        float((demand * low).sum(dtype=np.float64)),
    )


def heats(market: Market, heat: Heat, price_s: Floats, reduced: Floats32 | None = None) -> Floats32:
    """float32[N]: cost differences that count as small at ``price_s``; ``reduced`` as in :func:`answer`, but kept."""
    if reduced is None:
        reduced = market.reduced_s(price_s)
    least = np.minimum(market.cost_s.min(axis=0), market.unserved_s)
    paid = np.minimum(reduced.min(axis=0), market.unserved_s)
    found: Floats32 = np.float32(heat.of_cost) * least + np.float32(heat.of_paid) * paid
    return np.maximum(found, np.float32(1e-9))
