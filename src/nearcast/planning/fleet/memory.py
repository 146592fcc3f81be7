"""A lower bound for small fleets that knows of memory: no placement costs less whose models fit where they are.

Let each row (an origin's demand for a model) name what it *pays* for a request. With every model that it holds, a
place then earns what rows pay above its cost and price, and it holds at most what fits: a knapsack, bounded from above
by parts of models, the most worth per byte first. What rows pay, less what queues earn by prices and memory by models,
is no more than any plan costs (Lagrangian relaxation of who serves whom, and of capacity). Where each row pays what the
cheapest of all places costs it, memory earns nothing, and this is the bound of `bound`; the scarcer memory is, the more
can be paid.

Decides: how high pays and prices are driven, in a bounded number of steps. Whatever they are, they give a bound. Steps
go along averaged subgradients, as far as the cost of a plan says that there may be to go (Polyak, USSR Computational
Mathematics and Mathematical Physics 9, 1969).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from nearcast.planning.fleet.assign import Ground
from nearcast.planning.fleet.bound import ROUNDING
from nearcast.planning.fleet.cost import Costs, columns
from nearcast.planning.fleet.knapsack import parts
from nearcast.planning.fleet.problem import Floats

SMALL: Final = 40_000
"""Pairs of a row and a place up to which a fleet is small: a twentieth of a second each for its steps."""
STEPS: Final = 100
PATIENCE: Final = 8
"""Steps without a gain before the next ones are shorter, from the best point so far."""
SHORTER: Final = 0.6
FRESH: Final = 0.4
"""Part of the newest subgradient in the direction."""


def is_scarce(costs: Costs) -> bool:
    """Whether a site has less memory than all models take that it may hold."""
    wanted = costs.able @ costs.problem.footprint_bytes
    return bool((wanted > costs.problem.memory_bytes).any())


def memory_bound_s(ground: Ground, price_s: Floats, cost_s: float) -> float:
    """No placement that fits costs less; -inf where the fleet is not small.

    Args:
        ground: what it says is able may be placed.
        price_s: float64[S]: prices to start from.
        cost_s: of a plan: how far there is to go.
    """
    if ground.costs.able.size * len(ground.near.origin) > SMALL:
        return -np.inf
    relaxed = Relaxed.of(ground)
    best = here = relaxed.at(price_s, relaxed.cheapest_s(price_s))
    way, length, wasted = here.rise, 1.0, 0
    for _ in range(STEPS):
        here = relaxed.at(*relaxed.ahead(here, way, length * max(cost_s - here.bound_s, 0.0)))
        way = tuple((1.0 - FRESH) * old + FRESH * new for old, new in zip(way, here.rise, strict=True))
        wasted += 1
        if here.bound_s > best.bound_s:
            best, wasted = here, 0
        elif wasted == PATIENCE:
            here, way, length, wasted = best, best.rise, SHORTER * length, 0
    return best.bound_s


@dataclass(frozen=True, eq=False)
class Point:
    """Prices and pays, and what they say.

    Attributes:
        price_s: float64[S]. pay_s: float64[M, O], per request.
        bound_s: the bound.
        rise: float64[S] and float64[M, O]: by how much it rises with each price and each pay.
    """

    price_s: Floats
    pay_s: Floats
    bound_s: float
    rise: tuple[Floats, ...]


@dataclass(frozen=True, eq=False)
class Relaxed:
    """All rows, over all places.

    Attributes:
        ground: of the fleet.
        cost_s: float64[S, M, O] of a request from each origin; inf where the place is not open to it.
        work_s: float64[S, M]; 0 where the place cannot run the model.
        demand_per_s: float64[M, O].
    """

    ground: Ground
    cost_s: Floats
    work_s: Floats
    demand_per_s: Floats

    @classmethod
    def of(cls, ground: Ground) -> "Relaxed":
        """O(S x M x O), in memory, too."""
        costs, origin = ground.costs, ground.near.origin
        every = np.arange(len(costs.able))
        cost_s = np.stack(
            [costs.between(model, columns(origin), every[:, None]) for model in range(costs.able.shape[1])], axis=1
        ).astype(np.float64)
        cost_s[~costs.able] = np.inf
        work_s = np.where(costs.able, costs.problem.work_s, 0.0)
        return cls(ground, cost_s, work_s, costs.problem.demand_per_s[origin].T)

    def cheapest_s(self, price_s: Floats) -> Floats:
        """float64[M, O]: what the cheapest place costs each row, with its price."""
        found: Floats = (self.cost_s + (self.work_s * price_s[:, None])[:, :, None]).min(axis=0)
        return found

    def at(self, price_s: Floats, pay_s: Floats) -> Point:
        """What these prices (float64[S]) and pays (float64[M, O]) say; no row pays more than not being served costs."""
        problem, queues, demand = self.ground.costs.problem, self.ground.queues, self.demand_per_s
        pay_s = np.minimum(pay_s, self.ground.costs.unserved_s[:, None])
        over_s = pay_s - self.cost_s - (self.work_s * price_s[:, None])[:, :, None]
        gain = (np.maximum(over_s, 0.0) * demand).sum(axis=2)
        held = parts(gain, problem.footprint_bytes, problem.memory_bytes)
        share = np.where(over_s > 0.0, held[:, :, None], 0.0)
        load = ((share * demand).sum(axis=2) * self.work_s).sum(axis=1)
        paid = float((demand * pay_s).sum())
        earned = float(queues.worth_s(price_s).sum() + (gain * held).sum())
        return Point(
            price_s,
            pay_s,
            paid - earned - ROUNDING * (abs(paid) + abs(earned)),
            (load - queues.load_at(price_s), demand * (1.0 - share.sum(axis=0))),
        )

    def ahead(self, here: Point, way: tuple[Floats, ...], far: float) -> tuple[Floats, Floats]:
        """Prices and pays so far from ``here`` that the bound would rise by ``far`` if it went on as it begins.

        A pay moves by a part of itself, whatever its demand is, and a price as much whether workers are few or many.
        """
        price_way, pay_way = way
        typical_s = max(float(here.price_s.mean()), 1e-9)
        of_price = (here.price_s + 0.1 * typical_s) / np.maximum(self.ground.queues.workers, 1e-9)
        of_pay = np.maximum(here.pay_s, 1e-9) / np.maximum(self.demand_per_s, 1e-30)
        steep = float((of_price * np.square(price_way)).sum() + (of_pay * np.square(pay_way)).sum())
        step = far / max(steep, 1e-9 * far, 1e-30)
        return (
            np.maximum(here.price_s + step * of_price * price_way, 0.0),
            np.maximum(here.pay_s + step * of_pay * pay_way, 0.0),
        )
