"""What one request costs, in weighted seconds, before any queue: the coefficients of the program.

Decides: the terms of a request's cost that do not depend on load, and which pairs are open at all (the hard rules,
exactly as `Problem.open_from` has them). Does not decide what waiting costs (`congestion`).

A second above the objective's target counts :data:`LATE` times its urgency more. Waiting is not part of that: how late
a request is would depend on everybody's choices, and the program would not be convex.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nearcast.planning.fleet.problem import Indices, Problem, Truths

Floats32 = NDArray[np.float32]

LATE: Final = 4.0
FAR_S: Final = 1e5
"""A way that takes longer is as good as this: costs stay finite where a place is open."""
UNSERVED_S: Final = 10.0
"""Price of a request that no place has room for, above the dearest place and the longest queue."""


@dataclass(frozen=True, eq=False)
class Costs:
    """A problem, prepared to give the costs of any pairs of sites quickly.

    Attributes:
        able: bool[S, M]: places that run the model, by everything but residency and reach.
        unserved_s: float64[M]: cost of a request that is not served; more than that of any that is.
    """

    problem: Problem
    able: Truths
    unserved_s: NDArray[np.float64]

    @classmethod
    def of(cls, problem: Problem, top_price_s: NDArray[np.float64]) -> "Costs":
        """Prepared for ``problem``; ``top_price_s`` is float64[S], the price of capacity at the ceiling."""
        able = problem.eligible & np.isfinite(problem.service_s) & (problem.workers > 0.0)[:, None]
        way_s = _longest_s(problem.round_trip_s)
        rate = float(problem.bytes_per_s.min(initial=np.inf))
        idle_s = np.where(able, problem.service_s, 0.0).max(axis=0, initial=0.0)
        idle_s = np.minimum(idle_s + way_s + problem.payload_bytes / max(rate, 1e-6), FAR_S)
        queue_s = np.where(able, problem.work_s, 0.0) * top_price_s[:, None]
        extra_s = np.where(able, problem.extra_s, 0.0).max(axis=0, initial=0.0)
        unserved_s = problem.weight * idle_s + problem.urgency * (UNSERVED_S + LATE * idle_s)
        unserved_s += queue_s.max(axis=0, initial=0.0) + extra_s
        return cls(problem, able, unserved_s)

    def round_trip_s(self, origins: NDArray[np.intp], places: NDArray[np.intp]) -> Floats32:
        """float32 of each pair of sites (shapes that broadcast); the matrix itself is never copied."""
        matrix = self.problem.round_trip_s
        return np.take(matrix.reshape(-1), origins * len(matrix) + places).astype(np.float32)

    def between(
        self,
        model: int,
        origins: NDArray[np.intp],
        places: NDArray[np.intp],
        round_trip_s: Floats32 | None = None,
    ) -> Floats32:
        """float32 cost of each pair of ``origins`` and ``places`` (shapes that broadcast); inf where it is not open.

        Args:
            round_trip_s: of these pairs, where the caller has looked them up already.
        """
        problem = self.problem
        slowness = problem.payload_bytes[model] / np.maximum(problem.bytes_per_s, 1e-6)
        slowness = np.minimum(slowness, FAR_S).astype(np.float32)
        service_s = np.where(self.able[:, model], problem.service_s[:, model], np.inf).astype(np.float32)
        if round_trip_s is None:
            round_trip_s = self.round_trip_s(origins, places)
        idle_s = np.maximum(slowness[origins], np.take(slowness, places))
        idle_s[np.broadcast_to(origins == places, idle_s.shape)] = 0.0
        idle_s += round_trip_s
        idle_s += np.take(service_s, places)
        closed = np.isinf(idle_s)
        np.minimum(idle_s, np.float32(FAR_S), out=idle_s)
        late_s = np.maximum(idle_s - np.float32(problem.target_s[model]), np.float32(0.0))
        late_s *= np.float32(LATE * problem.urgency[model])
        cost: Floats32 = np.float32(problem.weight[model]) * idle_s + late_s
        if problem.extra_s[:, model].any():
            cost += np.take(problem.extra_s[:, model].astype(np.float32), places)
        rule = problem.may[problem.rule_set[model]]
        if not rule.all():
            closed |= ~rule[problem.site_class[origins], problem.site_class[places]]
        cost[closed] = np.inf
        return cost


def _longest_s(round_trip_s: NDArray[np.float64]) -> float:
    """The longest round trip that is one."""
    longest = float(round_trip_s.max(initial=0.0))
    if np.isfinite(longest):
        return longest
    return max(float(row.max(initial=0.0, where=np.isfinite(row))) for row in round_trip_s)


def columns(indices: Indices | NDArray[np.intp]) -> NDArray[np.intp]:
    """``indices`` as a row that broadcasts against a column of origins."""
    return np.asarray(indices, dtype=np.intp)[None, :]
