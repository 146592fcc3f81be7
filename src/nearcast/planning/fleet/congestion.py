"""What load costs at a place: the queue that forms there, batches that grow, their price, and the room that is left.

Decides: how many seconds of waiting the load of a place makes, as a convex function of the load alone, so that routing
stays a convex program. It has two parts.

* **The queue.** A place is a queue with ``c`` workers and steady service times (M/D/c). At utilisation ``rho`` the
  number of requests that wait is ``C rho / (1 - rho) / 2``: Erlang's C formula (the Post Office Electrical Engineers'
  Journal 10, 1917) for ``c`` workers, halved for service times that do not vary. It does not depend on the service
  times themselves, so models that share a place share one queue without another term. Beyond :data:`BEND` its price
  only doubles up to the ceiling: so near to full, a formula for the mean says little, and prices that grow without
  measure serve nobody. That no place is planned beyond :data:`CEILING` does not rest on it.
* **The batches.** A request in an idle place is computed alone, in a full one within a full batch, which lasts longer.
  Between the two, service grows with a power of the utilisation (:func:`served_s`): a low one where batches pay much,
  since such a place computes in batches long before it is full. Nothing that is known says which power; it was fitted
  to places whose batches are whatever has come meanwhile, as the twin has them (a test holds it to them).

A place does not ask whose turn it is, so waiting is weighted by the mean weight of the fleet's demand, and growth by
that of the place's likely mix of models (:func:`growth_of`).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincc, gammaln

from nearcast.planning.fleet.problem import Floats, Problem

CEILING: Final = 0.95
"""Utilisation that no place is planned beyond: the queue of a fuller one grows without measure at a surprise."""
BEND: Final = 0.85
"""Utilisation from which the price of one more worker-second in the queue grows in a straight line."""
CELLS: Final = 68
"""Between 0 and the bend; in each of them prices rise in a straight line."""
STEEP: Final = 4.0
"""Power by which service grows where batches do not pay; where a batch pays four times, it is 1."""
_STEP: Final = BEND / CELLS
_KNOTS: Final = np.r_[np.linspace(0.0, BEND, CELLS + 1), CEILING]


@dataclass(frozen=True, eq=False)
class Growth:
    """By how much batches make service longer: of a place with ``c`` workers, ``c * extra * rho ** power`` requests,
    weighted, are in service beyond those that would be if each were computed alone.

    Attributes:
        extra: float64[S].
        power: float64[S]: at least 2.
    """

    extra: Floats
    power: Floats


@dataclass(frozen=True, eq=False)
class Queues:
    """The queues and batches of all places; made by :meth:`over` or :meth:`of`.

    Attributes:
        workers: float64[S]: worker-seconds per second.
        weight: of a second in a queue.
        fixed: float64[S]: load that is there in any case; every other load here is on top of it.
        growth: of service.
        prices: float64[S, CELLS + 2]: of one more worker-second at each knot of utilisation, rising.
        totals: float64[S, CELLS + 2]: weighted requests that wait at each knot: the prices added up.
        ceiling: utilisation that no place goes beyond.
    """

    workers: Floats
    weight: float
    fixed: Floats
    growth: Growth
    prices: Floats
    totals: Floats
    ceiling: float = CEILING

    @classmethod
    def over(cls, workers: Floats, weight: float, fixed: Floats, growth: Growth | None = None) -> "Queues":
        """The queues of places with so many ``workers``; without ``growth`` none is batched."""
        if growth is None:
            growth = Growth(np.zeros_like(workers), np.full_like(workers, 2.0))
        kinds, row = np.unique(np.where(workers > 0.0, workers, 1.0), return_inverse=True)
        prices = weight * _slopes(kinds)[row]
        some = np.flatnonzero(growth.extra)
        power = growth.power[some, None]
        prices[some] += growth.extra[some, None] * power * _KNOTS ** (power - 1.0)
        steps = 0.5 * (prices[:, 1:] + prices[:, :-1]) * np.diff(_KNOTS) * workers[:, None]
        totals = np.concatenate([np.zeros((len(steps), 1)), np.cumsum(steps, axis=1)], axis=1)
        return cls(workers, weight, fixed, growth, prices, totals)

    @classmethod
    def of(cls, problem: Problem, fixed: Floats | None = None) -> "Queues":
        """The queues of a problem's places."""
        demand = problem.demand_per_s.sum(axis=0)
        total, weighted = float(demand.sum()), float(demand @ problem.weight)
        weight = weighted / total if weighted > 0.0 else 1.0
        fixed = np.zeros_like(problem.workers) if fixed is None else fixed
        return cls.over(problem.workers, weight, fixed, growth_of(problem))

    @property
    def room(self) -> Floats:
        """float64[S]: load in worker-seconds per second up to the ceiling."""
        return np.maximum(self.ceiling * self.workers - self.fixed, 0.0)

    @property
    def top_price_s(self) -> Floats:
        """float64[S]: the price of capacity at the ceiling."""
        return self.prices[:, -1]

    def waiting_s(self, load: Floats) -> Floats:
        """float64[S]: weighted seconds of waiting per second that ``load`` adds; it is at most :attr:`room`."""
        found: Floats = self._total(self._utilization(load)) - self._total(self._utilization(np.zeros_like(load)))
        return found

    def price_s(self, load: Floats) -> Floats:
        """float64[S]: what one more worker-second per second adds to :meth:`waiting_s`; its derivative."""
        rho = self._utilization(load)
        cell, low, slope = self._cell(rho)
        found: Floats = low + slope * (rho - _KNOTS[cell])
        return found

    def load_at(self, price_s: Floats) -> Floats:
        """float64[S]: the load at which one more costs ``price_s``; :attr:`room` where nothing costs so much."""
        cell = np.clip((self.prices < price_s[:, None]).sum(axis=1) - 1, 0, CELLS)
        every = np.arange(len(cell))
        low, high = self.prices[every, cell], self.prices[every, cell + 1]
        inside = np.clip(price_s, low, high)
        part = np.divide(inside - low, high - low, out=np.ones_like(low), where=high > low)
        rho: Floats = _KNOTS[cell] + part * (_KNOTS[cell + 1] - _KNOTS[cell])
        return np.clip(rho * self.workers - self.fixed, 0.0, self.room)

    def worth_s(self, price_s: Floats) -> Floats:
        """float64[S]: the conjugate: the most that ``price_s * load - waiting_s(load)`` can be, from above.

        An upper bound although :meth:`load_at` is rounded: the tangent at any load bounds a convex function from below.
        """
        load = self.load_at(price_s)
        slope = self.price_s(load)
        rest = price_s - slope
        best = np.where(rest > 0.0, rest * self.room, 0.0)
        found: Floats = slope * load - self.waiting_s(load) + best
        return found

    def wait_s(self, load: Floats, requests_per_s: Floats) -> Floats:
        """float64[S]: expected seconds that each of ``requests_per_s`` waits in the queue; 0 where there are none."""
        rho = self._utilization(load)
        waiting = (self._total(rho) - self.growth.extra * self.workers * rho**self.growth.power) / self.weight
        found = np.divide(waiting, requests_per_s, out=np.zeros_like(load), where=requests_per_s > 0.0)
        return np.maximum(found, 0.0)

    def _total(self, rho: Floats) -> Floats:
        cell, low, slope = self._cell(rho)
        over = rho - _KNOTS[cell]
        found: Floats = self.totals[np.arange(len(cell)), cell] + self.workers * over * (low + 0.5 * slope * over)
        return found

    def _cell(self, rho: Floats) -> tuple[NDArray[np.intp], Floats, Floats]:
        """The cell of each utilisation, the price where it begins, and by how much it rises per utilisation."""
        cell = np.minimum((rho / _STEP).astype(np.intp), CELLS)
        every = np.arange(len(cell))
        low, high = self.prices[every, cell], self.prices[every, cell + 1]
        return cell, low, (high - low) / (_KNOTS[cell + 1] - _KNOTS[cell])

    def _utilization(self, load: Floats) -> Floats:
        return np.clip((load + self.fixed) / self._safe_workers(), 0.0, max(self.ceiling, CEILING))

    def _safe_workers(self) -> Floats:
        return np.where(self.workers > 0.0, self.workers, 1.0)


def _slopes(workers: Floats) -> Floats:
    """float64[W, CELLS + 2]: what one more worker-second adds to the requests that wait in each kind's queue."""
    count, rho = workers[:, None], _KNOTS[1:-1]
    load = count * rho
    lost = np.exp(count * np.log(load) - load - gammaln(count + 1.0)) / gammaincc(count + 1.0, load)  # Erlang's B
    lost_rise = lost * (count / load - 1.0 + lost)
    part = 1.0 - rho + rho * lost
    waits = lost / part  # Erlang's C: the part of requests that wait
    waits_rise = (lost_rise * part - lost * ((lost - 1.0) / count + rho * lost_rise)) / part**2
    slope = 0.5 * (waits_rise * rho / (1.0 - rho) + waits / (count * (1.0 - rho) ** 2))
    slope = np.maximum.accumulate(np.maximum(slope, 0.0), axis=1)
    return np.concatenate([np.zeros_like(count), slope, 2.0 * slope[:, -1:]], axis=1)


def growth_of(problem: Problem) -> Growth:
    """The growth of service at each place.

    Which models a place computes is what the plan decides, and cannot stand in its price. So it is taken as if the
    demand for each model were spread over all places that may hold it, as far as they can serve it.
    """
    able = problem.eligible & np.isfinite(problem.service_s) & (problem.workers > 0.0)[:, None]
    service_s, work_s, longer_s = (np.where(able, each, 1.0) for each in _times(problem))
    rate = np.where(able, problem.workers[:, None] / work_s, 0.0)
    total = rate.sum(axis=0)
    demand = problem.demand_per_s.sum(axis=0)
    load = rate * np.divide(demand, total, out=np.zeros_like(total), where=total > 0.0) * work_s
    # Of each worker-second of a model, the requests in service beyond those that its work alone would make.
    extra = np.where(able, load * problem.weight * longer_s / work_s, 0.0)
    summed, busy = extra.sum(axis=1), load.sum(axis=1)
    power = (extra * (1.0 + _power(service_s, work_s))).sum(axis=1)
    return Growth(
        np.divide(summed, busy, out=np.zeros_like(summed), where=busy > 0.0),
        np.divide(power, summed, out=np.full_like(summed, 2.0), where=summed > 0.0),
    )


def served_s(problem: Problem, utilization: Floats) -> Floats:
    """float64[S, M]: expected service of a request at places that are so busy; inf where they cannot run the model."""
    service_s, work_s, longer_s = _times(problem)
    rho = np.clip(utilization, 0.0, 1.0)[:, None]
    found: Floats = problem.service_s + longer_s * rho ** _power(service_s, work_s)
    return found


def _times(problem: Problem) -> tuple[Floats, Floats, Floats]:
    """float64[S, M] each: service alone, work, and by how much service in a full batch is longer; 1, 1, 0 where a place
    cannot run the model."""
    able = np.isfinite(problem.service_s)
    service_s, work_s = np.where(able, problem.service_s, 1.0), np.where(able, problem.work_s, 1.0)
    return service_s, work_s, np.maximum(np.where(able, problem.full_s, 1.0) - service_s, 0.0)


def _power(service_s: Floats, work_s: Floats) -> Floats:
    return np.clip(STEEP * work_s / service_s, 1.0, STEEP)
