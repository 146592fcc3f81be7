"""Lists of places that are made anew while prices settle.

Decides: which few places each row may use at the prices of the moment, how many, and from which prices to go on. New
places are found by prices, and prices by places: where capacity is scarce that swings. Of a place in nobody's list the
price falls to nothing, then everybody lists it, and its price shoots up. Three things calm it. What was cheap stays.
Each row lists some places of its own that are ever dearer, so that prices need not rise beyond what these cost. And new
places come as prices say that lie between those of the moment and the best so far, which are those with the highest
bound (as column generation is stabilised by smoothing: Wentges, International Transactions in Operational Research 4,
1997).

Bounds hold whatever is listed: they are over all open places.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.fleet.bound import UNSEEN, Cheaper, beyond_s, least_s, priced, routing_bound_s, unsure
from nearcast.planning.fleet.candidates import Near, cheapest
from nearcast.planning.fleet.congestion import Queues
from nearcast.planning.fleet.cost import Costs, Floats32
from nearcast.planning.fleet.least import smallest
from nearcast.planning.fleet.market import Market
from nearcast.planning.fleet.problem import MAX_CANDIDATES, Floats, Truths

ROUGHLY_UNSEEN: Final = 0.01
"""Part of the cost that places outside of the lists may save while prices are rough."""
WORTH_A_LOOK: Final = 5e-4
"""Part of the cost that new lists must have saved for yet others to be made."""
WORTH_A_ROUGH_LOOK: Final = 2e-3
"""The same while prices are rough."""
CALM: Final = 0.005
"""Part of the cost that new lists save where prices may go on as they are."""
CAUTION: Final = 0.5
"""How far prices go back to the best ones otherwise."""
SHORT: Final = 0.03
"""Part of the cost that new lists save where they are far too short."""
DEEP: Final = 192
"""Places that are looked at for new ones, where many may be needed."""
MUCH: Final = 1.2
"""Times its cost without prices, above which a row pays much for capacity."""
_ROWS: Final = 4096
"""At a time: bounds memory."""
_GOLDEN: Final = 0.6180339887
"""Its multiples spread evenly between whole numbers."""

Ints = NDArray[np.intp]


class Search:
    """Lists over a placement, changed in place, and the best prices so far.

    Attributes:
        market: rows over the lists of the moment.
        bound_s: what no shares cost less than; -inf before the first look.
    """

    def __init__(self, costs: Costs, queues: Queues, near: Near, placed: Truths) -> None:
        self.costs, self.queues, self.near, self.placed = costs, queues, near, placed
        self.bound_s = -np.inf
        self._best_s: Floats | None = None
        self._gain, self._unseen = np.inf, np.inf
        self._start(MAX_CANDIDATES)

    @property
    def best_s(self) -> Floats:
        """float64[S]: the prices of the highest bound so far; none before the first look."""
        return np.zeros(len(self.placed)) if self._best_s is None else self._best_s

    def look(self, price_s: Floats, unseen: float = UNSEEN) -> Floats:
        """float64[S], the prices to go on from: ``price_s``, or nearer to the best. Lists are made anew for them where
        the last time was worth it, and twice as long where they prove far too short."""
        first = self._best_s is None
        if unseen >= self._unseen and self._gain <= (WORTH_A_LOOK if unseen <= UNSEEN else WORTH_A_ROUGH_LOOK):
            return price_s
        if self._best_s is not None and self._gain > CALM:
            price_s = (1.0 - CAUTION) * price_s + CAUTION * self._best_s
        self._unseen = unseen
        self._judge(price_s, self._renew(price_s, unseen, first))
        if self._gain > SHORT and len(self.market.place) < min(2 * MAX_CANDIDATES, len(self.placed)):
            self._start(2 * MAX_CANDIDATES)
            self._renew(price_s, unseen, True)
        return price_s

    def bound_at(self, price_s: Floats, most: int | None = None) -> float:
        """The best bound, that of ``price_s`` among them; lists stay as they are.

        ``most`` is how many pairs of a row and a place may be looked at where lists are not enough; None: as many as
        there are.
        """
        listed = least_s(self.market, price_s)
        if routing_bound_s(self.market, self.queues, price_s, listed) <= self.bound_s:
            return self.bound_s  # other places only make it lower
        beyond = self._beyond_s(price_s)
        rows = unsure(self.market, beyond, listed)
        least = np.minimum(listed, beyond)
        cheaper = Cheaper.of(self.costs, self.market, self.placed, price_s, rows, listed[rows])
        chosen = cheaper.within(self.market.demand_per_s[rows] * (listed[rows] - least[rows]), most)
        found = np.minimum(listed[rows], cheaper.least_s(self.costs, self.market, chosen))
        least[rows] = np.where(chosen, found, least[rows])
        self._judge(price_s, least)
        return self.bound_s

    def _beyond_s(self, price_s: Floats) -> Floats32:
        """float32[N]: no open place outside of a row's list costs less, with its price."""
        return beyond_s(self.costs, self.market, self.tail_s, self.placed, price_s)

    def _start(self, width: int) -> None:
        """Lists of the places that are cheapest without prices."""
        lists = cheapest(self.costs, self.near, self.placed, min(width, len(self.placed)))
        self.market = Market.of(self.costs, lists, self.near.origin)
        self.tail_s: Floats32 = lists.tail_s.reshape(-1)

    def _judge(self, price_s: Floats, least: Floats32) -> None:
        bound_s = routing_bound_s(self.market, self.queues, price_s, least)
        if bound_s > self.bound_s:
            self.bound_s, self._best_s = bound_s, price_s

    def _renew(self, price_s: Floats, unseen: float, pressed: bool) -> Floats32:
        """Other places in the lists of rows for which a place outside of them might be cheaper.

        Args:
            unseen: part of the cost that places outside of the lists may save without being looked at.
            pressed: whether rows that pay much for capacity get new lists in any case.

        Returns:
            float32[N]: below what any open place costs each row with its price.
        """
        market = self.market
        before, beyond = least_s(market, price_s), self._beyond_s(price_s)
        rows = unsure(market, beyond, before, unseen)
        if pressed:
            rows = np.union1d(rows, self._pressed(before, unseen))
        deep = DEEP if pressed or len(market.place) > MAX_CANDIDATES else 2 * len(market.place)
        least = np.minimum(before, beyond)
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            least[part] = self._relist(part, price_s, deep)
        demand = market.demand_per_s.astype(np.float64)
        saved_s = float(demand[rows] @ np.maximum(before[rows] - least[rows], 0.0))
        self._gain = saved_s / max(float(demand @ before), 1e-30)
        return least

    def _pressed(self, least: Floats32, unseen: float) -> Ints:
        """Rows that pay much for capacity at their cheapest place and do not list all there are, less those that all
        together hardly cost anything."""
        cost_s = self.market.cost_s[0]
        paid_s = self.market.demand_per_s.astype(np.float64) * least
        much = (least > np.float32(MUCH) * cost_s) & np.isfinite(cost_s) & np.isfinite(self.tail_s)
        rows = np.flatnonzero(much & (paid_s > 0.0))
        order = rows[np.argsort(-paid_s[rows], kind="stable")]
        left = paid_s[order].sum() - np.cumsum(paid_s[order])
        return order[: int(np.searchsorted(-left, -unseen * float(paid_s.sum()))) + 1]

    def _relist(self, rows: Ints, price_s: Floats, deep: int) -> Floats32:
        """New lists for ``rows`` (rising): of four quarters, one are the places that are cheapest without prices
        (prices may fall again), one the best of the old others, one the best of the rest, old and new, and one are ever
        dearer new ones; old ones where there are not so many.

        Returns:
            float32[n]: the least cost of each row with prices, over all open places.
        """
        market, width = self.market, len(self.market.place)
        few, part = width // 4, market.take(rows)
        place, cost_s, work_s, least = priced(
            self.costs, market, self.placed, price_s, rows, min(deep, len(self.placed))
        )
        paid_s = cost_s + work_s * price_s.astype(np.float32)[place]
        for known, finite in zip(part.place, np.isfinite(part.cost_s), strict=True):
            paid_s[(place == known) & finite] = np.inf
        best, spread = _various(paid_s, rows, few, width - 3 * few)
        old_s = part.reduced_s(price_s)
        old_s[:few] = -1.0
        old = _taken((part.place, part.cost_s, part.work_s, old_s), np.argsort(old_s, axis=0, kind="stable"))
        new = place, cost_s, work_s, paid_s
        rest = [np.concatenate(pair) for pair in zip([each[2 * few :] for each in old], _taken(new, best), strict=True)]
        order = np.argsort(rest[3], axis=0, kind="stable")
        last, spare = _taken(new, spread), _taken(rest, order[few : few + len(spread)])
        there = np.isfinite(last[3])
        gone = np.where(there, spare[1], np.float32(np.inf)).min(axis=0, initial=np.float32(np.inf))
        gone = np.minimum(gone, _taken(rest, order[few + len(spread) :])[1].min(axis=0, initial=np.float32(np.inf)))
        self.tail_s[rows] = np.minimum(self.tail_s[rows], gone)
        last = [np.where(there, fresh, kept) for fresh, kept in zip(last, spare, strict=True)]
        lists = [
            np.concatenate([each[: 2 * few], some, more])
            for each, some, more in zip(old, _taken(rest, order[:few]), last, strict=True)
        ]
        _put(market, rows, lists)
        return least


def _put(market: Market, rows: Ints, lists: list[NDArray[Any]]) -> None:
    """``lists`` (places, costs, work, and what is paid) as those of ``rows``."""
    there, count = np.isfinite(lists[1]) & np.isfinite(lists[3]), len(lists[0])
    market.place[:, rows], market.cost_s[:, rows], market.work_s[:, rows] = 0, np.inf, 0.0
    market.place[:count, rows] = np.where(there, lists[0], 0)
    market.cost_s[:count, rows] = np.where(there, lists[1], np.float32(np.inf))
    market.work_s[:count, rows] = np.where(there, lists[2], np.float32(0.0))


def _taken(values: Sequence[NDArray[Any]], order: Ints) -> list[NDArray[Any]]:
    """Each of ``values`` ([K, n]) in ``order`` (intp[k, n])."""
    return [np.take_along_axis(each, order, axis=0) for each in values]


def _various(paid_s: Floats32, rows: Ints, count: int, more: int) -> tuple[Ints, Ints]:
    """Ranks in ``paid_s`` (float32[K, n]): intp[count, n] of the least, and intp[more, n] of ever dearer ones, spread
    over the others by their logarithm, elsewhere for each row; fewer where there are not so many."""
    width = len(paid_s)
    order: Ints = np.ascontiguousarray(smallest(np.ascontiguousarray(paid_s.T), np.arange(width), width)[1].T)
    best, rest = order[:count], order[count:]
    if not len(rest):
        return best, rest
    turn = (rows * _GOLDEN % 1.0)[None, :]
    steps = np.arange(min(more, len(rest)))[:, None]
    grown = (len(rest) + 1.0) ** ((steps + turn) / more)
    spread = np.minimum(grown.astype(np.intp) - 1 + steps, len(rest) - len(steps) + steps)
    return best, np.take_along_axis(rest, spread, axis=0)
