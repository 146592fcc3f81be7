"""Which sites hold which models.

Decides: the set of replicas, within memory, eligibility and the bounds on their number. Every site in turn chooses what
its memory should hold, given what the others hold: the gain of a model there is what requests of all origins near by
save over their best other place, at the prices of capacity that routing found (Gauss-Seidel over sites; those that are
near one another never choose at the same time). A full place's price makes a second replica near it worth having, so
replicas follow demand.

A replica costs as much as moving it takes, spread over :attr:`Moves.horizon_s`, and one that is there is given up only
where it has become clearly worth less: between the two lies the hysteresis. What must be is not asked for its worth:
pinned models, and the least number of replicas.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from nearcast.planning.fleet.assign import Ground
from nearcast.planning.fleet.bound import least_s, routing_bound_s
from nearcast.planning.fleet.candidates import cheapest
from nearcast.planning.fleet.knapsack import fill
from nearcast.planning.fleet.market import Market
from nearcast.planning.fleet.number import at_least, at_most, scarce
from nearcast.planning.fleet.prices import QUICK, settle
from nearcast.planning.fleet.problem import Floats, Truths
from nearcast.planning.fleet.sweep import Sweep, Value

WIDTH: Final = 24
"""Possible places of a replica that are looked at for each origin and model."""
PRICED: Final = 12
"""Of these, the ones that prices are found with."""


@dataclass(frozen=True, slots=True)
class Moves:
    """What placement may change, and for what gain.

    Attributes:
        most: replicas that may be added per plan, over the plan before; None: no limit. A first plan has none.
        horizon_s: time over which a move must pay.
        keep: part by which a replica that is there seems worth more than it is.
        worth_s: gain below which no replica is added, in waiting request-seconds per second.
        sweeps: times that every site chooses.
    """

    most: int | None = 2000
    horizon_s: float = 3600.0
    keep: float = 0.25
    worth_s: float = 1e-4
    sweeps: int = 3


def place(
    ground: Ground, standing: Truths | None, price_s: Floats | None, moves: Moves
) -> tuple[Truths, float, Floats]:
    """The placement.

    Args:
        standing: bool[S, M]: what is placed now, within all rules; None at start.
        price_s: float64[S] of capacity over ``standing``.

    Returns:
        bool[S, M]; a bound below the cost of every placement; prices of capacity to start routing from.
    """
    costs = ground.costs
    problem, able = costs.problem, costs.able
    before = np.zeros_like(able) if standing is None else standing
    wide = cheapest(costs, ground.near, able, min(WIDTH, len(able)))
    market = Market.of(costs, wide, ground.near.origin)
    value = Value(
        np.where(problem.warm, 0.0, problem.move_s) / moves.horizon_s,
        moves.worth_s,
        moves.keep,
        problem.warm & able if standing is None else before,
        problem.pinned & able,
        able,
    )
    wide_s = settle(market.top(PRICED), ground.queues, price_s, QUICK)
    bound_s = routing_bound_s(
        market, ground.queues, wide_s, np.minimum(least_s(market, wide_s), wide.tail_s.reshape(-1))
    )
    if price_s is None:
        price_s = wide_s
    sweep = Sweep(costs, ground.near, market, before | scarce(ground, before), price_s)
    if sweep.placed.any():
        sweep.look_far()
    _rest(sweep, ground, value, moves.sweeps)
    placed = at_least(ground, at_most(ground, sweep.placed, sweep.gains(ground.queues.room)), before)
    return placed, bound_s, price_s


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
