"""Sites choosing in turn what their memory should hold, given what the others hold.

Decides: the order (sites that are near one another never choose at the same time), the gain of each model at each site,
and the choice. A row is the demand of one origin for one model, as in `market`; here its places are those that *might*
hold the model, and three figures stand for those that do: the least cost, whose it is, and the next.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.fleet.bound import priced
from nearcast.planning.fleet.candidates import Near
from nearcast.planning.fleet.cost import Costs, Floats32
from nearcast.planning.fleet.knapsack import fill
from nearcast.planning.fleet.market import Market
from nearcast.planning.fleet.problem import Floats, Indices, Truths

APART: Final = 12
"""Nearest places that must not choose together with a site."""
NOBODY: Final = -1
LEAST_WORTH_S: Final = 1e-9
"""Of a replica that answers requests: it goes only where its memory is needed."""

Ints = NDArray[np.intp]


class Sweep:
    """The state of the choosing: who holds what, and what every row pays. Changed in place by :meth:`turn`.

    Args:
        market: rows over all places that may hold their model.
        placed: bool[S, M], to start from.
        price_s: float64[S] of capacity.
    """

    def __init__(self, costs: Costs, near: Near, market: Market, placed: Truths, price_s: Floats) -> None:
        self.costs, self.market, self.placed = costs, market, placed.copy()
        self._colour = _colours(near, len(placed))
        self._batches = _batches(market, self._colour)
        self._price_s = price_s
        self._reduced = market.reduced_s(price_s)
        rows = market.demand_per_s.size
        self._first, self._second = market.unserved_s.copy(), market.unserved_s.copy()
        self._holder: Indices = np.full(rows, NOBODY, np.int32)
        self._far_s = market.unserved_s.copy()

    @property
    def paid_s(self) -> float:
        """What all demand pays at the least, with the prices of capacity."""
        return float(self._first.astype(np.float64) @ self.market.demand_per_s)

    def look_far(self) -> None:
        """What rows pay that have fewer than two holders among their places: the cheapest of all other holders."""
        every = np.arange(self.market.demand_per_s.size)
        held = self._held(every).sum(axis=0)
        few = np.flatnonzero((held < 2) & (self.market.demand_per_s > 0.0))
        where, cost_s, work_s, _ = priced(self.costs, self.market, self.placed, self._price_s, few, 2)
        paid = np.sort(cost_s + work_s * self._price_s.astype(np.float32)[where], axis=0)
        self._far_s = self.market.unserved_s.copy()
        self._far_s[few] = np.minimum(np.where(held[few] == 1, paid[1], paid[0]), self.market.unserved_s[few])
        self._refresh(every)

    def turn(self, room: Floats, value: "Value") -> int:
        """Every site chooses once; returns how many replicas came or went."""
        changes = 0
        for colour, entries in enumerate(self._batches):
            sites = np.flatnonzero(self._colour == colour)
            gain = self._gains(sites, entries, room)
            held = self.placed[sites]
            problem = self.costs.problem
            wanted = fill(
                value.net(sites, held, gain),
                problem.footprint_bytes,
                problem.memory_bytes[sites],
                value.must[sites],
                self.costs.able[sites],
            )
            wanted = self._ration(wanted, held, gain)
            changed = wanted != held
            if changed.any():
                changes += int(changed.sum())
                self.placed[sites] = wanted
                self._refresh(self._rows_of(sites, entries, changed))
        return changes

    def gains(self, room: Floats) -> Floats:
        """float64[S, M]: what each replica saves, or would."""
        found = np.zeros(self.placed.shape)
        for colour, entries in enumerate(self._batches):
            sites = np.flatnonzero(self._colour == colour)
            found[sites] = self._gains(sites, entries, room)
        return found

    def _gains(self, sites: Ints, entries: Ints, room: Floats) -> Floats:
        """float64[B, M]: what each model saves at each of ``sites``: the part that fits of what it might draw there."""
        rows, key = self._keys(sites, entries)
        where = self.market.place.reshape(-1)[entries]
        other = np.where(self._holder[rows] == where, self._second[rows], self._first[rows])
        saved = np.maximum(other - self._reduced.reshape(-1)[entries], np.float32(0.0)) * self.market.demand_per_s[rows]
        work = self.market.work_s.reshape(-1)[entries] * self.market.demand_per_s[rows] * (saved > 0.0)
        shape = (len(sites), self.placed.shape[1])
        size = shape[0] * shape[1]
        gain = np.bincount(key, saved, size).astype(np.float64, copy=False)
        load = np.bincount(key, work, size).astype(np.float64, copy=False)
        found: Floats = gain.reshape(shape) * np.minimum(
            1.0, room[sites][:, None] / np.maximum(load.reshape(shape), 1e-30)
        )
        return found

    def _keys(self, sites: Ints, entries: Ints) -> tuple[Ints, Ints]:
        local = np.zeros(self.market.sites, np.intp)
        local[sites] = np.arange(len(sites))
        rows = entries % self.market.demand_per_s.size
        key = local[self.market.place.reshape(-1)[entries]] * self.placed.shape[1] + self.market.models_of(rows)
        return rows, key

    def _rows_of(self, sites: Ints, entries: Ints, changed: Truths) -> Ints:
        rows, key = self._keys(sites, entries)
        touched = np.zeros(self.market.demand_per_s.size, dtype=np.bool_)
        touched[rows[changed.reshape(-1)[key]]] = True
        return np.flatnonzero(touched)

    def _ration(self, wanted: Truths, held: Truths, gain: Floats) -> Truths:
        """``wanted`` without the least useful of what is new, where a model would have too many replicas."""
        most = self.costs.problem.most
        count = self.placed.sum(axis=0) - held.sum(axis=0) + wanted.sum(axis=0)
        for model in np.flatnonzero(count > most):
            new = np.flatnonzero(wanted[:, model] & ~held[:, model])
            order = new[np.argsort(gain[new, model], kind="stable")]
            wanted[order[: count[model] - most[model]], model] = False
        return wanted

    def _held(self, rows: Ints) -> Truths:
        models = self.placed.shape[1]
        found: Truths = np.take(
            self.placed.reshape(-1), np.take(self.market.place, rows, axis=1) * models + self.market.models_of(rows)
        )
        return found & np.isfinite(np.take(self.market.cost_s, rows, axis=1))

    def _refresh(self, rows: Ints) -> None:
        paid: Floats32 = np.where(self._held(rows), np.take(self._reduced, rows, axis=1), np.float32(np.inf))
        best = paid.argmin(axis=0)
        every = np.arange(len(rows))
        first = paid[best, every]
        paid[best, every] = np.inf
        second, far = paid.min(axis=0), self._far_s[rows]
        self._holder[rows] = np.where(first <= far, self.market.place[best, rows], NOBODY)
        self._first[rows] = np.minimum(first, far)
        self._second[rows] = np.clip(far, first, second)


class Value:
    """What a replica is worth to keep or to add, beside what it saves.

    Args:
        move_s: float64[S, M]: price of having a replica where there is none now.
        worth_s: gain below which none is added; a fourth of it keeps one.
        keep: part by which one that was there before seems worth more.
        before: bool[S, M]: replicas of the plan before.
        must: bool[S, M].
        work: float64[S, M]: load of the replicas in worker-seconds per second; 0 where there is none.
    """

    def __init__(self, move_s: Floats, worth_s: float, keep: float, before: Truths, must: Truths, work: Floats) -> None:
        self.must, self._work = must, work
        self._price_s = np.where(before, 0.25 * worth_s, worth_s + move_s)
        self._factor = np.where(before, 1.0 + keep, 1.0)

    def net(self, sites: Ints, held: Truths, gain: Floats) -> Floats:
        """float64[B, M]: what is left of ``gain``; a little more for what is ``held``, so that sweeps come to rest.

        What answers requests now is worth something in any case: at prices that are right its requests would pay no
        more elsewhere, but only until elsewhere is full.
        """
        found: Floats = gain * self._factor[sites] * np.where(held, 1.01, 1.0) - self._price_s[sites]
        return np.where(self._work[sites] > 0.0, np.maximum(found, LEAST_WORTH_S), found)


def _colours(near: Near, sites: int) -> NDArray[np.int32]:
    """int32[S]: sites of one colour are not near one another; -1 of sites that are no origins: they do not choose."""
    close = near.nearest(min(APART, near.place.shape[1]))
    colour = np.full(sites, -1, np.int32)
    for at, site in enumerate(near.origin):
        taken = {int(c) for c in colour[close[at]]}
        free = 0
        while free in taken:
            free += 1
        colour[site] = free
    return colour


def _batches(market: Market, colour: NDArray[np.int32]) -> list[Ints]:
    """For each colour the entries (flat indices into [K, N]) at its sites that have demand."""
    live = np.flatnonzero((np.isfinite(market.cost_s) & (market.demand_per_s > 0.0)[None, :]).reshape(-1))
    kind = colour[market.place.reshape(-1)[live]]
    live, kind = live[kind >= 0], kind[kind >= 0].astype(np.uint16)
    order = live[np.argsort(kind, kind="stable")]
    ends = np.cumsum(np.bincount(kind, minlength=int(colour.max(initial=0)) + 1))
    return np.split(order, ends[:-1])
