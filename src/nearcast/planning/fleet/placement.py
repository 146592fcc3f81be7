"""Which sites hold which models.

Decides: the set of replicas, within memory, eligibility and the bounds on their number. Every site in turn chooses what
its memory should hold, given what the others hold: the gain of a model there is what requests of all origins near by
save over their best other place, at the prices of capacity that routing found (Gauss-Seidel over sites; those that are
near one another never choose at the same time). A full place's price makes a second replica near it worth having, so
replicas follow demand.

Such gains are promises at the prices of the moment. From what they promise follows how much another placement can save
at the most (no prices make the dual of its routing higher than its cost), so one that promises too little is not even
routed (`solve`). What answers requests now is given up only where its memory is needed: at prices that are right its
requests would pay no more elsewhere, which is true of each such replica and not of all of them together.

A replica costs as much as moving it takes, spread over :attr:`Moves.horizon_s`, and one that is there is given up only
where it has become clearly worth less: between the two lies the hysteresis. What must be is not asked for its worth:
pinned models, and the least number of replicas.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from nearcast.planning.fleet.assign import Ground, Routing, losses
from nearcast.planning.fleet.knapsack import fill
from nearcast.planning.fleet.market import Market
from nearcast.planning.fleet.memory import is_scarce, memory_bound_s
from nearcast.planning.fleet.number import at_least, at_most, scarce
from nearcast.planning.fleet.prices import QUICK, settle
from nearcast.planning.fleet.problem import Floats, Truths
from nearcast.planning.fleet.search import ROUGHLY_UNSEEN, Search
from nearcast.planning.fleet.sweep import Sweep, Value

LOOKED_AT: Final = 30_000_000
"""Pairs of a row and a place that a bound looks at, at most, where lists are not enough."""


@dataclass(frozen=True, slots=True)
class Moves:
    """What placement may change, and for what gain.

    Attributes:
        most: replicas that may be added per plan, over the plan before; None: no limit. A first plan has none.
        horizon_s: time over which a move must pay.
        keep: part by which a replica that is there seems worth more than it is.
        worth_s: gain below which no replica is added, in waiting request-seconds per second.
        sweeps: times that every site chooses at first; a better placement is looked for once.
    """

    most: int | None = 2000
    horizon_s: float = 3600.0
    keep: float = 0.25
    worth_s: float = 1e-4
    sweeps: int = 2


@dataclass(frozen=True, eq=False)
class Wide:
    """The possible places of every replica, for each origin and model, and what follows from them alone.

    Attributes:
        market: rows over the places that are cheapest without prices, of all that may hold their model: where replicas
            are looked for.
        search: the same with lists that follow prices.
    """

    market: Market
    search: Search

    @classmethod
    def of(cls, ground: Ground) -> "Wide":
        """Over everything that ``ground`` says is able."""
        search = Search(ground.costs, ground.queues, ground.near, ground.costs.able)
        market = search.market
        return cls(
            replace(market, place=market.place.copy(), cost_s=market.cost_s.copy(), work_s=market.work_s.copy()), search
        )

    def bound_s(self, ground: Ground, price_s: Floats) -> float:
        """No placement costs less; ``price_s`` (float64[S]) may be any prices of capacity, good ones make it tight."""
        return self.search.bound_at(price_s, LOOKED_AT)

    def within_memory_s(self, ground: Ground, cost_s: float) -> float:
        """No placement whose models fit costs less; -inf where memory is no limit, or the fleet is too large to say.

        ``cost_s`` is that of a plan.
        """
        return memory_bound_s(ground, self.search.best_s, cost_s) if is_scarce(ground.costs) else -np.inf


def place(ground: Ground, wide: Wide, moves: Moves, start_s: Floats) -> tuple[Truths, Floats]:
    """A first placement: bool[S, M], and prices of capacity as if all that may be placed were, from ``start_s``."""
    costs = ground.costs
    search, price_s = wide.search, start_s
    for heat in QUICK:
        price_s = settle(search.market, ground.queues, search.look(price_s, ROUGHLY_UNSEEN), (heat,))
    nothing = np.zeros_like(costs.able)
    sweep = Sweep(costs, ground.near, wide.market, scarce(ground, nothing), price_s)
    if sweep.placed.any():
        sweep.look_far()
    _rest(sweep, ground, _value(ground, moves), moves.sweeps)
    return at_least(ground, _not_too_many(sweep, ground), nothing), price_s


def improved(
    ground: Ground, wide: Wide, routing: Routing, placed: Truths, moves: Moves, before: Truths | None
) -> tuple[Truths, float]:
    """A placement that looks better than ``placed`` at the prices that ``routing`` over it found.

    Args:
        before: bool[S, M] of the plan in force, whose replicas stay more easily than others come; None at start.

    Returns:
        bool[S, M], and what it promises: at these prices it saves that much. No routing over it saves more.
    """
    sweep = Sweep(ground.costs, ground.near, wide.market, placed, routing.price_s)
    sweep.look_far()
    paid_s = sweep.paid_s
    _rest(sweep, ground, _value(ground, moves, before, losses(routing, placed.shape)[1]), 1)
    promised_s = paid_s - sweep.paid_s
    return at_least(ground, _not_too_many(sweep, ground), placed), promised_s


def _value(ground: Ground, moves: Moves, before: Truths | None = None, work: Floats | None = None) -> Value:
    problem, able = ground.costs.problem, ground.costs.able
    return Value(
        np.where(problem.warm, 0.0, problem.move_s) / moves.horizon_s,
        moves.worth_s,
        moves.keep,
        problem.warm & able if before is None else before,
        problem.pinned & able,
        np.zeros_like(problem.demand_per_s) if work is None else work,
    )


def _not_too_many(sweep: Sweep, ground: Ground) -> Truths:
    if (sweep.placed.sum(axis=0) <= ground.costs.problem.most).all():
        return sweep.placed
    return at_most(ground, sweep.placed, sweep.gains(ground.queues.room))


def standing(ground: Ground, previous: Truths) -> Truths:
    """bool[S, M]: of the placement before what rules, health and memory allow still, with what they ask for besides."""
    problem = ground.costs.problem
    before, must = previous & ground.costs.able, problem.pinned & ground.costs.able
    flat = np.where(before, problem.footprint_bytes, 0.0)  # alike per byte: as much as fits
    held = fill(flat, problem.footprint_bytes, problem.memory_bytes, must, ground.costs.able)
    return at_least(ground, at_most(ground, held, flat), before)


def _rest(sweep: Sweep, ground: Ground, value: Value, sweeps: int) -> None:
    """Sweeps until hardly anything changes."""
    for turn in range(sweeps):
        changes = sweep.turn(ground.queues.room, value)
        if changes <= 0.002 * sweep.placed.sum():
            break
        if turn + 1 < sweeps:
            sweep.look_far()
