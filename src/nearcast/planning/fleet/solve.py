"""The whole plan of a fleet: what runs where, and where requests go.

Decides: in which order placement and routing are decided, and what of the plan before is kept. Pure: no clock, no dice;
the same arguments give the same plan, bit by bit.
"""

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from nearcast.planning.fleet import exchange
from nearcast.planning.fleet.assign import Ground, Routing, losses, route, without
from nearcast.planning.fleet.congestion import Queues
from nearcast.planning.fleet.cost import Costs
from nearcast.planning.fleet.fill import SMALL, filled, used
from nearcast.planning.fleet.number import at_least, limited
from nearcast.planning.fleet.placement import Moves, Wide, improved, place, standing
from nearcast.planning.fleet.prices import FROM_NEAR, ROUGHLY
from nearcast.planning.fleet.problem import FleetPlan, Floats, Indices, Problem, Truths
from nearcast.planning.fleet.regions import regional_prices_s
from nearcast.planning.fleet.rescue import rescued
from nearcast.planning.fleet.steady import steadied

LEAST_UNSERVED_PER_S: Final = 1e-3
CLEAR: Final = 0.002
"""Part of the cost that another placement than the one before must save."""
LEAST_UNSERVED: Final = 1e-4
"""Part of all demand: what lacks room below this is left to the next plan."""
MUCH_UNSERVED: Final = 0.01
ROUNDS: Final = 4
"""Times that it then looks; so does every plan of a small fleet."""
MIDDLING: Final = 20_000
"""Pairs of site and model up to which a first plan looks for a better placement more than once; of a larger fleet,
the plans to come go on."""
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
    costs = ground.costs
    start_s = regional_prices_s(costs, ground.queues, costs.able) if previous is None else previous.price_s
    wide = Wide.of(ground)
    if previous is None:
        held = problem.warm & costs.able
        placed, start_s = place(ground, wide, limits.moves, start_s)
        rough = route(ground, placed, start_s, ROUGHLY, 0)
    else:
        held = placed = standing(ground, previous.placed)
        rough = route(ground, placed, start_s, FROM_NEAR)
    step = _Step(ground, held, previous is None, limits.moves)
    placed, routing = step.bettered(wide, placed, rough)
    if routing is rough and previous is None:
        routing = route(ground, placed, rough.price_s)
    placed, routing = step.with_room(placed, routing)
    # Any prices bound from below, and nothing costs less than nothing; at high load those from the start are better.
    bound_s = max(0.0, wide.bound_s(ground, routing.price_s), wide.bound_s(ground, start_s))
    if placed.size <= exchange.SMALL and routing.cost_s > (1.0 + WORTH) * bound_s:
        placed, routing = step.exchanged(wide, placed, routing)
    if routing.cost_s > (1.0 + WORTH) * bound_s:
        bound_s = max(bound_s, wide.within_memory_s(ground, routing.cost_s))
    placed, routing = step.limited(placed, routing)
    placed, routing = _without_idle(ground, placed, routing)
    if previous is not None:
        routing = steadied(ground, routing, placed, previous, limits.share_step)
    return _plan(ground, placed, routing, min(bound_s, routing.bound_s))


@dataclass(frozen=True, eq=False)
class _Step:
    """From one placement to a better one, each with its routing; what costs less after its moves is taken.

    Attributes:
        held: bool[S, M]: replicas that are there.
        first: whether there was no plan before: then as many may move as will.
    """

    ground: Ground
    held: Truths
    first: bool
    moves: Moves

    def bettered(self, wide: Wide, placed: Truths, routing: Routing) -> tuple[Truths, Routing]:
        """Another placement where prices promise, and routing then shows, that it saves clearly more than it costs."""
        rounds = ROUNDS if placed.size <= (MIDDLING if self.first else SMALL) else 1
        for _ in range(rounds):
            before = None if self.first else self.held
            other, promised_s = improved(self.ground, wide, routing, placed, self.moves, before)
            if promised_s < CLEAR * routing.cost_s:
                break
            other = self._fewer(other, routing)
            if (other == placed).all():
                break
            tried = route(self.ground, other, routing.price_s)
            if not self._saves(placed, routing, other, tried, CLEAR):
                break
            placed, routing = other, tried
        return placed, routing

    def with_room(self, placed: Truths, routing: Routing) -> tuple[Truths, Routing]:
        """More replicas for demand without room, where there is any."""
        ground, problem = self.ground, self.ground.costs.problem
        unserved, demand = _unserved(problem, routing), float(problem.demand_per_s.sum())
        if unserved.sum() > max(LEAST_UNSERVED_PER_S, LEAST_UNSERVED * demand):
            more = rescued(ground, placed, self.held, unserved, routing.load)
            if (more != placed).any():
                tried = route(ground, more, routing.price_s)
                if self._saves(placed, routing, more, tried, CLEAR):
                    placed, routing = more, tried
        if placed.size <= SMALL or _unserved(problem, routing).sum() > MUCH_UNSERVED * demand:
            placed, routing = self._filled(placed, routing)
        return placed, routing

    def _filled(self, placed: Truths, routing: Routing) -> tuple[Truths, Routing]:
        """A second opinion: the placement filled up, and what of that is used."""
        more = filled(self.ground, placed, _unserved(self.ground.costs.problem, routing))
        if not (more & ~placed).any():
            return placed, routing
        better = route(self.ground, more, None)  # prices of a placement that lacks room lead astray
        kept = used(self.ground, more, placed, better)
        if (kept != more).any():
            better = route(self.ground, kept, better.price_s)
        return (kept, better) if self._saves(placed, routing, kept, better, WORTH) else (placed, routing)

    def exchanged(self, wide: Wide, placed: Truths, routing: Routing) -> tuple[Truths, Routing]:
        """Exchanges of replicas, tried out one by one; then all sites look at what that led to, as they will for the
        next plan, which should find nothing to change."""
        must = self.ground.costs.problem.pinned & self.ground.costs.able
        worth, trials = (0.1 * WORTH, exchange.TRIALS) if self.first else (WORTH, exchange.TRIALS // 6)
        found = exchange.exchanged(self.ground, placed, routing, must, self._price_s, worth, trials)
        return replace(self, held=found[0], first=False).bettered(wide, *found) if found[1] is not routing else found

    def limited(self, placed: Truths, routing: Routing) -> tuple[Truths, Routing]:
        """With no more new replicas than may come at once."""
        fewer = self._fewer(placed, routing)
        if (fewer == placed).all():
            return placed, routing
        return fewer, route(self.ground, fewer, routing.price_s, FROM_NEAR)

    def _fewer(self, placed: Truths, routing: Routing) -> Truths:
        if self.first or self.moves.most is None:
            return placed
        return limited(self.ground, placed, self.held, losses(routing, placed.shape)[0], self.moves.most)

    @property
    def _price_s(self) -> Floats:
        """float64[S, M]: what having a replica costs where there is none."""
        problem = self.ground.costs.problem
        return np.where(problem.warm | self.held, 0.0, problem.move_s) / self.moves.horizon_s

    def _saves(self, placed: Truths, routing: Routing, other: Truths, tried: Routing, part: float) -> bool:
        """Whether ``other`` costs less than ``placed`` by more than ``part`` of the cost, after what moves cost."""
        move_s = float(self._price_s[other & ~placed].sum() - self._price_s[placed & ~other].sum())
        return tried.cost_s + move_s < (1.0 - part) * routing.cost_s


def _without_idle(ground: Ground, placed: Truths, routing: Routing) -> tuple[Truths, Routing]:
    """Without replicas that answer nothing and need not be; nobody's requests go elsewhere for it."""
    busy = (losses(routing, placed.shape)[1] > 0.0) | ground.costs.problem.pinned
    kept = at_least(ground, placed & busy, placed)
    if (kept & ~placed).any():  # what must be and was nowhere: whoever had no place may ask it now
        return kept, route(ground, kept, routing.price_s, FROM_NEAR)
    gone = placed & ~kept
    return (kept, without(ground, routing, kept, gone)) if gone.any() else (placed, routing)


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
