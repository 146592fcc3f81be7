"""Lower bounds: no shares, and no placement, cost less. What a plan's gap is measured against.

Any prices of capacity bound the cost of routing from below (weak duality): every request pays at least its cheapest
place with the price of the capacity that it takes, and a place earns by its prices at most what its queue's conjugate
says. `prices` finds prices that make this tight; here they are only trusted to be prices. The minimum is over *all*
places: a list of a few is believed only where its tail shows that no other place can be cheaper.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.fleet.candidates import least_cost_s
from nearcast.planning.fleet.congestion import Queues
from nearcast.planning.fleet.cost import Costs, Floats32, columns
from nearcast.planning.fleet.least import smallest
from nearcast.planning.fleet.market import Market
from nearcast.planning.fleet.problem import Floats, Truths

ROUNDING: Final = 2e-6
"""Costs are float32: bounds give way by this part."""
UNSEEN: Final = 2e-4
"""Part of the cost that places outside of the lists may save without being looked at."""
_ROWS: Final = 256
_FEW_ROWS: Final = 64
"""At a time where hundreds of places are looked at: what is worked on stays in the processor's cache."""

Ints = NDArray[np.intp]


def least_s(market: Market, price_s: Floats) -> Floats32:
    """float32[N]: what each row's cheapest listed place costs with its price, or not being served."""
    found: Floats32 = np.minimum(market.reduced_s(price_s).min(axis=0), market.unserved_s)
    return found


def beyond_s(costs: Costs, market: Market, tail_s: Floats32, allowed: Truths, price_s: Floats) -> Floats32:
    """float32[N]: what no place outside of a row's list costs less than, with its price: of the allowed ones none takes
    capacity that is worth less than the least that is taken anywhere.

    Args:
        tail_s: float32[N]: the same without prices.
        allowed: bool[S, M].
    """
    may = allowed & costs.able
    paid_s = np.where(may, costs.problem.work_s, np.inf) * np.where(may, price_s[:, None], 1.0)
    least = np.where(may.any(axis=0), paid_s.min(axis=0, initial=np.inf), 0.0).astype(np.float32)
    found: Floats32 = tail_s + np.repeat(least * np.float32(1.0 - 1e-6), len(market.origin))
    return found


def unsure(market: Market, tail_s: Floats32, least: Floats32, unseen: float = UNSEEN) -> Ints:
    """Rows for which a place outside of their list might be cheaper than ``least``; without those for which all of
    that together is no more than the part ``unseen`` of the cost.

    Args:
        tail_s: float32[N]: no open place outside of a row's list costs less.
    """
    may = np.flatnonzero((market.demand_per_s > 0.0) & (tail_s < least))
    demand = market.demand_per_s.astype(np.float64)
    stake = demand[may] * np.maximum(least[may] - np.maximum(tail_s[may], np.float32(0.0)), np.float32(0.0))
    order = np.argsort(-stake, kind="stable")
    left = float(stake.sum()) - np.cumsum(stake[order])
    enough = int(np.searchsorted(-left, -unseen * float(demand @ least)))
    return np.sort(may[order[: enough + 1]])


def priced(
    costs: Costs, market: Market, allowed: Truths, price_s: Floats, rows: Ints, width: int
) -> tuple[Ints, Floats32, Floats32, Floats32]:
    """For ``rows`` the ``width`` cheapest of all allowed places at ``price_s``, the price included, in this order.

    Args:
        market: whose rows they are.
        rows: sorted.

    Returns:
        intp[width, n] places, float32[width, n] costs without the price (inf where there are fewer), float32[width, n]
        work, float32[n] the least cost with the price over all allowed places.
    """
    place = np.zeros((width, len(rows)), np.intp)
    cost_s = np.full((width, len(rows)), np.inf, np.float32)
    work_s = np.zeros((width, len(rows)), np.float32)
    cheapest_s = np.full(len(rows), np.inf, np.float32)
    every, origin = market.models_of(rows), market.origins_of(rows)
    for model in np.unique(every).tolist():
        holders = np.flatnonzero(allowed[:, model] & costs.able[:, model])
        mine = np.flatnonzero(every == model)
        if not len(holders):
            continue
        work = costs.problem.work_s[holders, model].astype(np.float32)
        paid = work * price_s[holders].astype(np.float32)
        for start in range(0, len(mine), _ROWS):
            part = mine[start : start + _ROWS]
            cost = costs.between(model, origin[part, None], columns(holders))
            reduced, chosen, _ = smallest(cost + paid, np.arange(len(holders)), width)
            found = np.take_along_axis(cost, chosen, axis=1)
            count, open_to = found.shape[1], np.isfinite(found)
            place[:count, part] = np.where(open_to, holders[chosen], 0).T
            cost_s[:count, part] = found.T
            work_s[:count, part] = np.where(open_to, work[chosen], 0.0).T
            cheapest_s[part] = reduced[:, 0]
    return place, cost_s, work_s, cheapest_s


@dataclass(frozen=True, eq=False)
class Cheaper:
    """For each of some rows the places that may cost less, with their prices, than what it knows.

    A place whose service and price alone cost as much as that is not among them, from wherever a request comes. So few
    of thousands of places are left, and a bound over all of them costs little more than one over lists.

    Attributes:
        rows: intp[n].
        count: intp[n]: how many places may be cheaper.
        holders: by model, all allowed places as intp[H], those first that may cost least, and the price of a request's
            capacity there as float32[H].
    """

    rows: Ints
    count: Ints
    holders: dict[int, tuple[Ints, Floats32]]

    @classmethod
    def of(
        cls, costs: Costs, market: Market, allowed: Truths, price_s: Floats, rows: Ints, known_s: Floats32
    ) -> "Cheaper":
        """``known_s`` (float32[n]) is a cost that each of ``rows`` knows, with the price."""
        every, count = market.models_of(rows), np.zeros(len(rows), np.intp)
        holders: dict[int, tuple[Ints, Floats32]] = {}
        for model in np.unique(every).tolist():
            places = np.flatnonzero(allowed[:, model] & costs.able[:, model])
            paid_s = costs.problem.work_s[places, model].astype(np.float32) * price_s[places].astype(np.float32)
            floor_s = (least_cost_s(costs, model, places) + paid_s) * np.float32(1.0 - 1e-6)
            order = np.argsort(floor_s, kind="stable")
            holders[model] = places[order], paid_s[order]
            mine = every == model
            count[mine] = np.searchsorted(floor_s[order], known_s[mine])
        return cls(rows, count, holders)

    def within(self, stake_s: Floats32, most: int | None) -> Truths:
        """bool[n]: rows of which ``most`` pairs of a row and a place can be looked at, for the most of ``stake_s``
        (float32[n]) together; None: of all."""
        found = np.ones(len(self.rows), dtype=np.bool_)
        if most is not None and self.count.sum() > most:
            order = np.argsort(-stake_s / np.maximum(self.count, 1), kind="stable")
            found[order[int(np.searchsorted(np.cumsum(self.count[order]), most, side="right")) :]] = False
        return found

    def least_s(self, costs: Costs, market: Market, chosen: Truths) -> Floats32:
        """float32[n]: what the cheapest of these places costs each ``chosen`` row, with its price; else inf."""
        every, origin = market.models_of(self.rows), market.origins_of(self.rows)
        found = np.full(len(self.rows), np.inf, np.float32)
        for model, (places, paid_s) in self.holders.items():
            mine = np.flatnonzero((every == model) & chosen & (self.count > 0))
            mine = mine[np.argsort(self.count[mine], kind="stable")]
            for start in range(0, len(mine), _FEW_ROWS):
                part = mine[start : start + _FEW_ROWS]
                most = int(self.count[part[-1]])
                cost = costs.between(model, origin[part, None], columns(places[:most]))
                cost += paid_s[:most]
                found[part] = cost.min(axis=1)
        return found


def routing_bound_s(market: Market, queues: Queues, price_s: Floats, least: Floats32) -> float:
    """No shares cost less, where ``least`` (float32[N]) is below what any open place costs each row with its price."""
    demand = market.demand_per_s.astype(np.float64)
    paid = float(demand @ np.minimum(least, market.unserved_s).astype(np.float64))
    earned = float(queues.worth_s(price_s).sum())
    return paid - earned - ROUNDING * (abs(paid) + abs(earned))
