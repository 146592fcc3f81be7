"""Better placements of small fleets, one exchange at a time, each tried out by routing over it.

Decides: whether a site should hold another model instead of one of its own, or one more, or two sites should trade.
Prices are right for small shifts only: where memory and capacity are scarce together, and a fleet so small that one
replica is much of it, nothing but trying tells. What prices do tell is which exchanges cannot save anything: those of
the routing before bound the cost over any placement from below. The others are tried, what may save most first, until
one does; then all are weighed again. Where none does, two are tried at once: memory that is nearly full has no single
exchange that helps. The number of trials is bounded, and large fleets get none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Final

import numpy as np

from nearcast.planning.fleet.assign import Ground, Routing, route
from nearcast.planning.fleet.bound import routing_bound_s
from nearcast.planning.fleet.cost import columns
from nearcast.planning.fleet.prices import FROM_NEAR
from nearcast.planning.fleet.problem import Floats, Truths

SMALL: Final = 512
"""Pairs of site and model up to which a fleet is small."""
TRIALS: Final = 100
PAIRED: Final = 64
"""Exchanges that are tried two at a time: those that may save most."""

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, order=True)
class Exchange:
    """Replicas that go and that come, as pairs of site and model. In order, those that may save most are first.

    Attributes:
        floor_s: the routing over it, together with the moves, costs no less.
        moves_s: what the moves cost; below 0 where what goes was to be paid for.
    """

    floor_s: float
    gone: Pairs
    come: Pairs
    moves_s: float

    def of(self, placed: Truths) -> Truths:
        """``placed`` after it."""
        found = placed.copy()
        for pair in self.gone:
            found[pair] = False
        for pair in self.come:
            found[pair] = True
        return found


def exchanged(
    ground: Ground, placed: Truths, routing: Routing, must: Truths, move_s: Floats, worth: float, trials: int = TRIALS
) -> tuple[Truths, Routing]:
    """A placement that costs no more than ``placed``, moves included, and its routing. For small fleets.

    Args:
        worth: part of the cost that an exchange must save.
        trials: placements that may be routed over.
        must: bool[S, M]: replicas that stay.
        move_s: float64[S, M]: price of having a replica there.
    """
    while trials > 0:
        target_s = (1.0 - worth) * routing.cost_s
        floors = Floors.of(ground, placed, routing)
        for each in islice(_promising(ground, placed, must, move_s, floors, target_s), trials):
            trials -= 1
            other = each.of(placed)
            tried = _tried(ground, other, routing, target_s - each.moves_s)
            if tried is not None:
                placed, routing = other, tried
                break
        else:
            break
    return placed, routing


def _promising(
    ground: Ground, placed: Truths, must: Truths, move_s: Floats, floors: "Floors", target_s: float
) -> Iterator[Exchange]:
    """Exchanges that may cost less than ``target_s``, those that may save most first; then two at once."""
    single = sorted(_possible(ground, placed, must, move_s, floors))
    yield from (each for each in single if each.floor_s < target_s)
    yield from sorted(each for each in _two(ground, placed, single[:PAIRED], floors) if each.floor_s < target_s)


def _tried(ground: Ground, other: Truths, before: Routing, target_s: float) -> Routing | None:
    """A routing over ``other`` that costs less than ``target_s``; None where none was found."""
    # The prices of before are near enough to tell, in most cases.
    quick = route(ground, other, before.price_s, FROM_NEAR)
    if quick.cost_s < target_s or quick.bound_s >= target_s:
        return quick if quick.cost_s < target_s else None
    tried = route(ground, other, before.price_s)
    return tried if tried.cost_s < target_s else None


@dataclass(frozen=True, eq=False)
class Floors:
    """What no routing costs less than: over a placement, and how a replica more or less changes that. Dense.

    It is what rows pay at their cheapest place at the prices of a routing.

    Attributes:
        base_s: over the placement.
        come_s, gone_s: float64[S, M]: changes by a replica that comes or goes.
        moved_s: by model, float64[S, S]: by one that goes from the first site to the second.
    """

    base_s: float
    come_s: Floats
    gone_s: Floats
    moved_s: tuple[Floats, ...]

    @classmethod
    def of(cls, ground: Ground, placed: Truths, routing: Routing) -> "Floors":
        """At the prices of ``routing`` over ``placed``."""
        costs, market = ground.costs, routing.market
        problem, origin = costs.problem, market.origin
        come_s, gone_s, least, moved_s = np.zeros(placed.shape), np.zeros(placed.shape), [], []
        for model in range(len(problem.models)):
            work_s = np.where(costs.able[:, model], problem.work_s[:, model], 0.0)
            paid = costs.between(model, origin[:, None], columns(np.arange(market.sites))).astype(np.float64)
            paid = np.minimum(paid + work_s * routing.price_s, costs.unserved_s[model])
            demand = problem.demand_per_s[origin, model]
            held = np.where(placed[:, model], paid, costs.unserved_s[model])
            every, holder = np.arange(len(origin)), held.argmin(axis=1)
            first = held[every, holder]
            held[every, holder] = costs.unserved_s[model]
            second = held.min(axis=1)
            better = np.minimum(first[:, None], paid)
            moved = np.zeros((len(placed), len(placed)))
            np.add.at(moved, holder, demand[:, None] * (np.minimum(second[:, None], paid) - better))
            come_s[:, model] = demand @ (better - first[:, None])
            gone_s[:, model] = np.bincount(holder, demand * (second - first), len(placed))
            moved_s.append(moved + come_s[:, model])
            least.append(first)
        floor = np.concatenate(least).astype(np.float32)
        return cls(routing_bound_s(market, ground.queues, routing.price_s, floor), come_s, gone_s, tuple(moved_s))

    def change_s(self, gone: Pairs, come: Pairs) -> float:
        """What all of it changes at the least. Changes of several models add up; of one model, replicas that come save
        at most what each would alone, and those that go cost at least that."""
        found = 0.0
        for model in sorted({model for _, model in (*gone, *come)}):
            out = [site for site, each in gone if each == model]
            into = [site for site, each in come if each == model]
            if len(out) == len(into) == 1:
                found += self.moved_s[model][out[0], into[0]]
            elif into:  # what goes besides saves nothing
                found += self.come_s[into, model].sum()
            else:
                found += self.gone_s[out, model].sum()
        return float(found)


def _possible(ground: Ground, placed: Truths, must: Truths, move_s: Floats, floors: Floors) -> Iterator[Exchange]:
    """Exchanges for which there is memory, and after which there are as many replicas as there may and must be: one
    comes to a site, up to two go there for it; or two sites trade."""
    problem = ground.costs.problem
    size, count = problem.footprint_bytes, placed.sum(axis=0)
    left = problem.memory_bytes - placed @ size
    spare, can = placed & ~must, ground.costs.able & ~placed
    for site, into in ((int(s), int(m)) for s, m in zip(*np.nonzero(can), strict=True)):
        held = [int(m) for m in np.flatnonzero(spare[site])]
        if count[into] < problem.most[into]:
            free = [m for m in held if count[m] > problem.least[m]]
            for outs in ((), *((m,) for m in free), *combinations(free, 2)):
                if size[into] <= left[site] + sum(size[out] for out in outs):
                    yield _weighed(floors, move_s, tuple((site, out) for out in outs), ((site, into),))
        for out in held:
            fits = (size[into] <= left[site] + size[out]) & (size[out] <= left + size[into])
            for other in (int(each) for each in np.flatnonzero(spare[:, into] & can[:, out] & fits) if each > site):
                yield _weighed(floors, move_s, ((site, out), (other, into)), ((site, into), (other, out)))


def _weighed(floors: Floors, move_s: Floats, gone: Pairs, come: Pairs) -> Exchange:
    moves_s = float(sum(move_s[pair] for pair in come) - sum(move_s[pair] for pair in gone))
    return Exchange(floors.base_s + floors.change_s(gone, come) + moves_s, gone, come, moves_s)


def _two(ground: Ground, placed: Truths, single: list[Exchange], floors: Floors) -> Iterator[Exchange]:
    """Pairs of ``single`` that touch no site in common, and after both of which there are as many replicas as there may
    and must be."""
    problem, count = ground.costs.problem, placed.sum(axis=0)
    sites = [{site for site, _ in (*each.gone, *each.come)} for each in single]
    more = [each.of(placed).sum(axis=0) - count for each in single]
    for (one, here, first), (other, there, second) in combinations(zip(single, sites, more, strict=True), 2):
        after = count + first + second
        if here & there or (after > np.maximum(problem.most, count)).any():
            continue
        if (after >= np.minimum(problem.least, count)).all():
            gone, come, moves_s = one.gone + other.gone, one.come + other.come, one.moves_s + other.moves_s
            yield Exchange(floors.base_s + floors.change_s(gone, come) + moves_s, gone, come, moves_s)
