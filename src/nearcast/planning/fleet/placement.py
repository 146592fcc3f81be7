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
from nearcast.planning.fleet.market import Market
from nearcast.planning.fleet.number import at_least, at_most, limited, scarce
from nearcast.planning.fleet.prices import QUICK, settle
from nearcast.planning.fleet.problem import FleetPlan, Floats, Truths
from nearcast.planning.fleet.sweep import Sweep, Value

WIDTH: Final = 24
"""Possible places of a replica that are looked at for each origin and model."""


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


def place(ground: Ground, previous: FleetPlan | None, moves: Moves) -> tuple[Truths, float, Floats | None]:
    """The placement.

    Returns:
        bool[S, M]; a bound below the cost of every placement; prices of capacity to start routing from.
    """
    costs = ground.costs
    problem, able = costs.problem, costs.able
    models = np.arange(len(problem.models))
    before = previous.placed & able if previous else np.zeros_like(able)
    wide = cheapest(costs, ground.near, able, min(WIDTH, len(able)))
    market = Market.of(costs, wide, models)
    value = Value(
        np.where(problem.warm, 0.0, problem.move_s) / moves.horizon_s,
        moves.worth_s,
        moves.keep,
        before | problem.warm if previous is None else before,
        problem.pinned & able,
        able,
    )
    price_s = settle(market, ground.queues, previous.price_s if previous else None, QUICK)
    sweep = Sweep(costs, ground.near, market, before | scarce(ground, before), price_s)
    if previous:
        sweep.look_far()
    _rest(sweep, ground, value, moves.sweeps)
    placed = at_least(ground, at_most(ground, sweep.placed, sweep.gains(ground.queues.room)), before)
    if previous and moves.most is not None:
        placed = limited(ground, placed, before, sweep.gains(ground.queues.room), moves.most)
        placed = at_least(ground, placed, before)
    bound_s = routing_bound_s(
        market, ground.queues, price_s, np.minimum(least_s(market, price_s), wide.tail_s.reshape(-1))
    )
    return placed, bound_s, previous.price_s if previous else price_s


def _rest(sweep: Sweep, ground: Ground, value: Value, sweeps: int) -> None:
    """Sweeps until hardly anything changes."""
    for turn in range(sweeps):
        changes = sweep.turn(ground.queues.room, value)
        if changes <= 0.002 * sweep.placed.sum():
            break
        if turn + 1 < sweeps:
            sweep.look_far()
