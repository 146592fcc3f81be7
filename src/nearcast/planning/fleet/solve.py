"""The whole plan of a fleet: what runs where, and where requests go.

Decides: in which order placement and routing are decided, and what of the plan before is kept. Pure: no clock, no dice;
the same arguments give the same plan, bit by bit.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from nearcast.planning.fleet import exchange
from nearcast.planning.fleet.assign import Ground, Routing, route
from nearcast.planning.fleet.congestion import Queues
from nearcast.planning.fleet.cost import Costs
from nearcast.planning.fleet.exchange import losses
from nearcast.planning.fleet.fill import SMALL, filled, used
from nearcast.planning.fleet.number import at_least, limited
from nearcast.planning.fleet.placement import Moves, place, standing
from nearcast.planning.fleet.problem import FleetPlan, Floats, Indices, Problem, Truths
from nearcast.planning.fleet.rescue import rescued
from nearcast.planning.fleet.steady import steadied

LEAST_UNSERVED_PER_S: Final = 1e-3
CLEAR: Final = 0.002
"""Part of the cost that another placement than the one before must save."""
LEAST_UNSERVED: Final = 1e-4
"""Part of all demand: what lacks room below this is left to the next plan."""
MUCH_UNSERVED: Final = 0.01
WORTH: Final = 0.01
"""Part of the cost that a second opinion must save to be taken."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a plan may differ from the one before, and how hard it tries.

    Attributes:
        share_step: of each origin's requests for a model, the part that may go elsewhere than before. Shares of places
            that are no longer open, and what a full place has no room for, move at once.
        moves: what placement may change.
    """

    share_step: float = 0.5
    moves: Moves = field(default_factory=Moves)


DEFAULT: Final = Limits()


def plan_fleet(
    problem: Problem,
    previous: FleetPlan | None = None,
    *,
    limits: Limits = DEFAULT,
    fixed_load: Floats | None = None,
    origins: Indices | None = None,
) -> FleetPlan:
    """Placement and shares.

    Args:
        problem: what the plan rests on.
        previous: the plan in force, from which shares and replicas move by limited steps; None at start.
        limits: of these steps.
        fixed_load: float64[S] in worker-seconds per second that places carry in any case; none by default.
        origins: int32[O], rising: sites whose requests are planned, and which choose what they hold; all by default.
            At other sites there is no demand, and what they may hold is pinned.
    """
    if not (problem.sites and problem.models):
        return _nothing(problem)
    ground = _ground(problem, fixed_load, origins)
    if previous is None:
        before = np.zeros_like(ground.costs.able)
        placed, wide_s, start_s = place(ground, None, None, limits.moves)
        routing = route(ground, placed, start_s)
    else:
        before = standing(ground, previous.placed)
        placed, routing, wide_s = _moved(ground, before, previous, limits.moves)
    unserved = _unserved(problem, routing)
    lacking = unserved.sum() > max(LEAST_UNSERVED_PER_S, LEAST_UNSERVED * float(problem.demand_per_s.sum()))
    if lacking:
        more = rescued(ground, placed, before, unserved, routing.load)
        if (more != placed).any():
            placed, routing = more, route(ground, more, routing.price_s)
    if placed.size <= SMALL or unserved.sum() > MUCH_UNSERVED * problem.demand_per_s.sum():
        placed, routing = _second_opinion(ground, placed, routing, limits.moves)
    if placed.size <= exchange.SMALL and routing.cost_s > (1.0 + WORTH) * wide_s:
        placed, routing = _exchanged(ground, placed, routing, previous, limits.moves)
    if previous is not None and limits.moves.most is not None:
        fewer = limited(ground, placed, before, losses(routing, placed.shape)[0], limits.moves.most)
        if (fewer != placed).any():
            placed, routing = fewer, route(ground, fewer, routing.price_s)
    if previous is not None:
        routing = steadied(ground, routing, placed, previous, limits.share_step)
    return _plan(ground, placed, routing, min(wide_s, routing.bound_s))


def _moved(ground: Ground, before: Truths, previous: FleetPlan, moves: Moves) -> tuple[Truths, Routing, float]:
    """Another placement than ``before`` where that saves clearly more than its moves cost; else what of it works."""
    problem = ground.costs.problem
    stays = route(ground, before, previous.price_s)
    other, wide_s, _ = place(ground, before, stays.price_s, moves)
    idle = before & ~other & (losses(stays, before.shape)[1] <= 0.0)
    if moves.most is not None:
        other = limited(ground, other, before, losses(stays, before.shape)[0], moves.most)
    if (other == before).all():
        return before, stays, wide_s
    goes = route(ground, other, stays.price_s)
    move_s = float(np.where(problem.warm, 0.0, problem.move_s)[other & ~before].sum()) / moves.horizon_s
    if goes.cost_s + move_s < (1.0 - CLEAR) * stays.cost_s or not (other & ~before).any():
        return other, goes, wide_s
    fewer = at_least(ground, before & ~idle, before)
    return (fewer, route(ground, fewer, stays.price_s), wide_s) if idle.any() else (before, stays, wide_s)


def _exchanged(
    ground: Ground, placed: Truths, routing: Routing, previous: FleetPlan | None, moves: Moves
) -> tuple[Truths, Routing]:
    problem = ground.costs.problem
    move_s = np.where(problem.warm | (previous.placed if previous else False), 0.0, problem.move_s) / moves.horizon_s
    must = problem.pinned & ground.costs.able
    if previous is None:
        return exchange.exchanged(ground, placed, routing, must, move_s, 0.1 * WORTH)
    return exchange.exchanged(ground, placed, routing, must, move_s, WORTH, exchange.TRIALS // 6)


def _second_opinion(ground: Ground, placed: Truths, routing: Routing, moves: Moves) -> tuple[Truths, Routing]:
    """The placement filled up, and its routing, where that saves more than the moves cost."""
    problem = ground.costs.problem
    more = filled(ground, placed, _unserved(problem, routing))
    if not (more & ~placed).any():
        return placed, routing
    better = route(ground, more, None)  # prices of a placement that lacks room lead astray
    kept = used(ground, more, placed, better)
    if (kept != more).any():
        better = route(ground, kept, better.price_s)
    move_s = np.where(problem.warm, 0.0, problem.move_s)[kept & ~placed].sum() / moves.horizon_s
    gain_s = (1.0 - WORTH) * routing.cost_s - better.cost_s - float(move_s)
    return (kept, better) if gain_s > 0.0 else (placed, routing)


def route_fleet(
    problem: Problem, placed: Truths, previous: FleetPlan | None = None, *, limits: Limits = DEFAULT
) -> FleetPlan:
    """Shares over ``placed`` (bool[S, M]) as far as it is eligible and alive; both bounds are of this placement."""
    if not (problem.sites and problem.models):
        return _nothing(problem)
    ground = _ground(problem)
    placed = placed & ground.costs.able
    routing = route(ground, placed, previous.price_s if previous else None)
    if previous is not None:
        routing = steadied(ground, routing, placed, previous, limits.share_step)
    return _plan(ground, placed, routing, routing.bound_s)


def _ground(problem: Problem, fixed_load: Floats | None = None, origins: Indices | None = None) -> Ground:
    queues = Queues.of(problem, fixed_load)
    origin = np.arange(len(problem.sites)) if origins is None else origins.astype(np.intp)
    return Ground.of(Costs.of(problem, queues.top_price_s), queues, origin)


def _nothing(problem: Problem) -> FleetPlan:
    """The plan of a fleet without sites, or without models."""
    shape = (len(problem.sites), len(problem.models))
    none, idle = np.zeros(0, np.int32), np.zeros(shape[0])
    return FleetPlan(
        np.zeros(shape, dtype=np.bool_), none, none, none, np.zeros(0), idle, idle, idle, np.zeros(shape), 0.0, 0.0, 0.0
    )


def _plan(ground: Ground, placed: Truths, routing: Routing, placement_bound_s: float) -> FleetPlan:
    problem, queues = ground.costs.problem, ground.queues
    market = routing.market
    rank, row = np.nonzero(routing.share > 0.0)
    share = routing.share[rank, row].astype(np.float64)
    share /= np.bincount(row, share, minlength=market.demand_per_s.size)[row]
    model, origin, where = market.models_of(row), market.origins_of(row), market.place[rank, row]
    order = np.lexsort((where, -share, model, origin))
    requests = market.at_places(routing.share * (routing.served * market.demand_per_s))
    workers = np.where(problem.workers > 0.0, problem.workers, 1.0)
    return FleetPlan(
        placed=placed,
        origin=origin[order].astype(np.int32),
        model=model[order].astype(np.int32),
        place=where[order].astype(np.int32),
        share=share[order],
        utilization=(routing.load + queues.fixed) / workers,
        wait_s=queues.wait_s(routing.load, requests),
        price_s=routing.price_s,
        unserved_per_s=_unserved(problem, routing),
        cost_s=routing.cost_s,
        routing_bound_s=routing.bound_s,
        placement_bound_s=placement_bound_s,
    )


def _unserved(problem: Problem, routing: Routing) -> Floats:
    market = routing.market
    found = np.zeros_like(problem.demand_per_s)
    unserved = (1.0 - routing.served.astype(np.float64)) * market.demand_per_s
    found[market.origin] = unserved.reshape(len(problem.models), len(market.origin)).T
    return found
