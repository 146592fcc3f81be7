"""What load costs at a place: the queue that forms there, its price, and the room that is left.

Decides: how much waiting the load of a place makes, as a convex function of the load alone, so that routing stays a
convex program. A place is a queue with ``c`` workers and steady service times (M/D/c). The number of requests that wait
is ``rho ** sqrt(2 (c + 1)) / (2 (1 - rho))`` at utilisation ``rho``: Sakasegawa's approximation of M/M/c (Annals of the
Institute of Statistical Mathematics 29, 1977), halved for service times that do not vary. It does not depend on the
service times themselves, so models that share a place share one queue without another term.

Beyond :data:`BEND` the price only doubles up to the ceiling: so near to full, a formula for the mean says little, and
prices that grow without measure serve nobody. That no place is planned beyond :data:`CEILING` does not rest on it.

A queue does not ask whose turn it is, so its waiting is weighted by the mean urgency of the fleet's demand.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from nearcast.planning.fleet.problem import Floats, Problem

CEILING: Final = 0.95
"""Utilisation that no place is planned beyond: the queue of a fuller one grows without measure at a surprise."""
BEND: Final = 0.85
"""Utilisation from which the price of one more worker-second grows in a straight line."""
_STEPS: Final = 7


@dataclass(frozen=True, eq=False)
class Queues:
    """The queues of all places.

    Attributes:
        workers: float64[S]: worker-seconds per second.
        weight: of a second in a queue.
        fixed: float64[S]: load that is there in any case; every other load here is on top of it.
        ceiling: utilisation that no place goes beyond.
    """

    workers: Floats
    weight: float
    fixed: Floats
    ceiling: float = CEILING

    @classmethod
    def of(cls, problem: Problem, fixed: Floats | None = None) -> "Queues":
        """The queues of a problem's places."""
        demand = problem.demand_per_s.sum(axis=0)
        total, weighted = float(demand.sum()), float(demand @ problem.urgency)
        weight = weighted / total if weighted > 0.0 else 1.0
        return cls(problem.workers, weight, np.zeros_like(problem.workers) if fixed is None else fixed)

    @property
    def room(self) -> Floats:
        """float64[S]: load in worker-seconds per second up to the ceiling."""
        return np.maximum(self.ceiling * self.workers - self.fixed, 0.0)

    @property
    def top_price_s(self) -> Floats:
        """float64[S]: the price of capacity at the ceiling."""
        return self._slope(np.full_like(self.workers, CEILING))

    def waiting_s(self, load: Floats) -> Floats:
        """float64[S]: weighted seconds of waiting per second that ``load`` adds; it is at most :attr:`room`."""
        found: Floats = self._curve(self._utilization(load)) - self._curve(self._utilization(np.zeros_like(load)))
        return found

    def price_s(self, load: Floats) -> Floats:
        """float64[S]: what one more worker-second per second adds to :meth:`waiting_s`; its derivative."""
        return self._slope(self._utilization(load))

    def load_at(self, price_s: Floats) -> Floats:
        """float64[S]: the load at which one more costs ``price_s``; :attr:`room` where nothing costs so much."""
        at_bend = self._slope(np.full_like(self.workers, BEND))
        beyond = BEND + (CEILING - BEND) * (price_s / np.maximum(at_bend, 1e-300) - 1.0)
        rho = np.where(price_s < at_bend, self._below_bend(price_s), np.minimum(beyond, CEILING))
        return np.clip(rho * self.workers - self.fixed, 0.0, self.room)

    def _below_bend(self, price_s: Floats) -> Floats:
        """float64[S]: the utilisation at which one more costs ``price_s``, where that is below the bend.

        Newton's method on logarithms, from the right: their curve is convex, so each step stays right of the root.
        """
        exponent = self._exponent()
        wanted = np.log(np.maximum(price_s * self._safe_workers() / self.weight, 1e-300))
        log_rho = np.minimum((wanted - np.log(0.5 * exponent)) / (exponent - 1.0), np.log(BEND))
        for _ in range(_STEPS):
            rho = np.exp(log_rho)
            free = 1.0 - rho
            inner = exponent + rho / free
            value = (exponent - 1.0) * log_rho + np.log(0.5 * inner / free)
            slope = exponent - 1.0 + rho / free + rho / (free * free * inner)
            log_rho = np.minimum(log_rho - (value - wanted) / slope, np.log(BEND))
        found: Floats = np.exp(log_rho)
        return found

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
        """float64[S]: expected seconds that each of ``requests_per_s`` waits; 0 where there are none."""
        waiting = self._curve(self._utilization(load)) / self.weight
        return np.divide(waiting, requests_per_s, out=np.zeros_like(load), where=requests_per_s > 0.0)

    def _curve(self, rho: Floats) -> Floats:
        bent = np.minimum(rho, BEND)
        curve = self.weight * bent ** self._exponent() / (2.0 * (1.0 - bent))
        over = rho - bent
        found: Floats = curve + self._slope(bent) * self.workers * over * (1.0 + 0.5 * over / (CEILING - BEND))
        return found

    def _slope(self, rho: Floats) -> Floats:
        bent, exponent = np.minimum(rho, BEND), self._exponent()
        lower = bent ** (exponent - 1.0)
        slope = (exponent * lower + lower * bent / (1.0 - bent)) / (2.0 * (1.0 - bent))
        found: Floats = self.weight * slope / self._safe_workers() * (1.0 + (rho - bent) / (CEILING - BEND))
        return found

    def _utilization(self, load: Floats) -> Floats:
        return np.clip((load + self.fixed) / self._safe_workers(), 0.0, max(self.ceiling, CEILING))

    def _exponent(self) -> Floats:
        found: Floats = np.sqrt(2.0 * (self.workers + 1.0))
        return found

    def _safe_workers(self) -> Floats:
        return np.where(self.workers > 0.0, self.workers, 1.0)
