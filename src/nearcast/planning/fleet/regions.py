"""Prices of capacity as regions see them: where lists of a few near places would not show who has room.

Where a whole city lacks room, the few cheapest places of every origin in it are full together. Prices over such lists
climb until nobody is served, and say nothing of the places beyond that have room. So the fleet is looked at from
farther off: sites near one another become one place with the workers of all of them, all such places are open to one
another, and the prices of that small market are where a finer one begins, in the end that of the sites themselves.

Decides: regions, and a first price for each place. Nothing is proven by it, and nothing need be: prices are starting
points, and show which places belong into lists.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.fleet.congestion import Growth, Queues
from nearcast.planning.fleet.cost import FAR_S, LATE, Costs, Floats32
from nearcast.planning.fleet.least import smallest
from nearcast.planning.fleet.market import Market
from nearcast.planning.fleet.prices import HEATS, settle
from nearcast.planning.fleet.problem import Floats, Truths

LEVELS: Final = ((64, 64), (512, 32))
"""Regions before residency divides them, and the cheapest of them that each looks at; from coarse to fine."""
SITES: Final = 4
"""Of a region on the average, at least."""

Ints = NDArray[np.intp]


def regional_prices_s(costs: Costs, queues: Queues, placed: Truths) -> Floats:
    """float64[S]: of each place the price of its region, over the replicas ``placed`` (bool[S, M])."""
    held = placed & costs.able
    price_s, before = np.zeros(len(held)), 0
    for most, width in LEVELS:
        count = min(most, max(1, len(held) // SITES))
        if count > before:
            level = _Level.of(costs, queues, held, count)
            price_s, before = level.prices_s(price_s, width), count
    return price_s


@dataclass(frozen=True, eq=False)
class _Level:
    """A fleet of ``G`` regions.

    Attributes:
        region: intp[S]: of each site.
        speed: float64[S]: by which factor a site does more in a worker-second than its region.
        weight: float64[G, S]: part of each site in its region.
        queues: of regions.
        way_s, link_s: float32[G, G]: round trips, seconds per byte.
        service_s, extra_s: float64[G, M] of a request.
        work_s: float64[G, M]; 0 where there is no replica.
        site: intp[G]: one of each region.
        demand_per_s: float64[G, M].
    """

    costs: Costs
    region: Ints
    speed: Floats
    weight: Floats
    queues: Queues
    way_s: Floats32
    link_s: Floats32
    service_s: Floats
    extra_s: Floats
    work_s: Floats
    site: Ints
    demand_per_s: Floats

    @classmethod
    def of(cls, costs: Costs, queues: Queues, held: Truths, count: int) -> "_Level":
        """``count`` regions, more where residency divides them, with the replicas ``held`` (bool[S, M])."""
        problem = costs.problem
        region, site = _regions(costs, count)
        members = np.zeros((len(site), len(region)))
        members[region, np.arange(len(region))] = 1.0
        weight = members * np.maximum(problem.workers, 1e-9)
        weight /= weight.sum(axis=1, keepdims=True)
        link_s = weight @ costs.slowness
        there = weight @ held
        work_s = _work_s(costs, members, held)
        service_s, extra_s = (
            np.divide(weight @ np.where(held, each, 0.0), there, out=np.zeros_like(there), where=there > 0.0)
            for each in (problem.service_s, problem.extra_s)
        )
        return cls(
            costs,
            region,
            _speed(costs, work_s[region]),
            weight,
            _pooled(queues, members, weight),
            (np.minimum(problem.round_trip_s[site], FAR_S) @ weight.T).astype(np.float32),
            np.where(np.eye(len(site), dtype=np.bool_), 0.0, np.maximum(link_s[:, None], link_s)).astype(np.float32),
            service_s,
            extra_s,
            work_s,
            site,
            members @ problem.demand_per_s,
        )

    def prices_s(self, start_s: Floats, width: int) -> Floats:
        """float64[S], from ``start_s``, each region looking at its ``width`` cheapest."""
        price_s = self.weight @ (start_s / self.speed)
        first: Floats | None = price_s if start_s.any() else None
        for ladder in (HEATS[:2], HEATS[2:4]):
            price_s = settle(self._market(price_s, width), self.queues, first, ladder)
            first = price_s
        found: Floats = price_s[self.region] * self.speed
        return found

    def _market(self, price_s: Floats, width: int) -> Market:
        """A row for each region and model, model by model, over the regions that are cheapest at ``price_s``."""
        regions, models = self.demand_per_s.shape
        ranks = min(width, regions)
        place = np.zeros((ranks, models, regions), np.intp)
        cost_s = np.full(place.shape, np.inf, np.float32)
        work_s = np.zeros(place.shape, np.float32)
        for model in range(models):
            cost = self._cost_s(model)
            paid = cost + (self.work_s[:, model] * price_s).astype(np.float32)
            _, chosen, _ = smallest(paid, np.arange(regions), ranks)
            chosen = np.take_along_axis(chosen, np.take_along_axis(cost, chosen, axis=1).argsort(axis=1), axis=1)
            found = np.take_along_axis(cost, chosen, axis=1)
            place[:, model], cost_s[:, model] = chosen.T, found.T
            work_s[:, model] = np.where(np.isfinite(found), self.work_s[chosen, model], 0.0).T
        flat = (ranks, models * regions)
        return Market(
            place.reshape(flat),
            cost_s.reshape(flat),
            work_s.reshape(flat),
            self.demand_per_s.T.reshape(-1).astype(np.float32),
            np.repeat(self.costs.unserved_s, regions).astype(np.float32),
            regions,
            np.arange(regions),
        )

    def _cost_s(self, model: int) -> Floats32:
        """float32[G, G]: of a request before queues, from region (row) to region; inf where it is not open."""
        problem = self.costs.problem
        cost = self.link_s * np.float32(problem.payload_bytes[model])
        cost += self.way_s
        cost += self.service_s[:, model].astype(np.float32)
        late_s = np.maximum(cost - np.float32(problem.target_s[model]), np.float32(0.0))
        late_s *= np.float32(LATE * problem.urgency[model])
        cost *= np.float32(problem.weight[model])
        cost += late_s
        cost += self.extra_s[:, model].astype(np.float32)
        cost[:, self.work_s[:, model] <= 0.0] = np.inf
        rule, kind = problem.may[problem.rule_set[model]], problem.site_class[self.site]
        if not rule.all():
            cost[~rule[np.ix_(kind, kind)]] = np.inf
        return cost


def _pooled(queues: Queues, members: Floats, weight: Floats) -> Queues:
    """One queue for all workers of each region."""
    growth = Growth(weight @ queues.growth.extra, weight @ queues.growth.power)
    found = Queues.over(members @ queues.workers, queues.weight, members @ queues.fixed, growth)
    return replace(found, ceiling=queues.ceiling)


def _regions(costs: Costs, count: int) -> tuple[Ints, Ints]:
    """intp[S], the region of each site: the nearest of ``count`` sites that are as far from one another as can be, and
    its class of residency; and intp[G], a site of each region."""
    problem = costs.problem
    way_s = np.empty((count, len(problem.sites)), np.float32)
    nearest = np.full(len(problem.sites), np.inf, np.float32)
    site = int(problem.demand_per_s.sum(axis=1).argmax())
    for n in range(count):
        way_s[n] = np.minimum(problem.round_trip_s[site], FAR_S)
        nearest = np.minimum(nearest, way_s[n])
        site = int(nearest.argmax())
    key = way_s.argmin(axis=0) * problem.may.shape[1] + problem.site_class
    _, one, region = np.unique(key, return_index=True, return_inverse=True)
    return region, one


def _work_s(costs: Costs, members: Floats, held: Truths) -> Floats:
    """float64[G, M]: worker-seconds of a request in a region all of whose replicas are equally full; 0 without any."""
    problem = costs.problem
    workers = members @ np.where(held, problem.workers[:, None], 0.0)
    rate = members @ np.divide(problem.workers[:, None], problem.work_s, out=np.zeros(held.shape), where=held)
    return np.divide(workers, rate, out=np.zeros_like(workers), where=rate > 0.0)


def _speed(costs: Costs, work_s: Floats) -> Floats:
    """float64[S]: by which factor a site does more in a worker-second than its region, where a request takes ``work_s``
    (float64[S, M]); on the average of models."""
    some = costs.able & (work_s > 0.0)
    factor = np.divide(work_s, costs.problem.work_s, out=np.zeros(some.shape), where=some)
    found: Floats = factor.sum(axis=1) / np.maximum(some.sum(axis=1), 1)
    return np.where(found > 0.0, found, 1.0)
