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
        service_s: float32[M, S]: inf where the place is not able.
        slowness: float32[S]: seconds per byte of the site's link.
        far: whether a way that is open may take longer than :data:`FAR_S`.
    """

    problem: Problem
    able: Truths
    unserved_s: NDArray[np.float64]
    service_s: Floats32
    slowness: Floats32
    far: bool

    @classmethod
    def of(cls, problem: Problem, top_price_s: NDArray[np.float64]) -> "Costs":
        """Prepared for ``problem``; ``top_price_s`` is float64[S], the price of capacity at the ceiling."""
        able = problem.eligible & np.isfinite(problem.service_s) & (problem.workers > 0.0)[:, None]
        way_s = _longest_s(problem.round_trip_s)
        rate = float(problem.bytes_per_s.min(initial=np.inf))
        idle_s = np.where(able, problem.service_s, 0.0).max(axis=0, initial=0.0)
        longest_s = idle_s + way_s + problem.payload_bytes / max(rate, 1e-6)
        idle_s = np.minimum(longest_s, FAR_S)
        queue_s = np.where(able, problem.work_s, 0.0) * top_price_s[:, None]
        extra_s = np.where(able, problem.extra_s, 0.0).max(axis=0, initial=0.0)
        unserved_s = problem.weight * idle_s + problem.urgency * (UNSERVED_S + LATE * idle_s)
        unserved_s += queue_s.max(axis=0, initial=0.0) + extra_s
        service_s = np.where(able, problem.service_s, np.inf).T.astype(np.float32, order="C")
        slowness = (1.0 / np.maximum(problem.bytes_per_s, 1e-6)).astype(np.float32)
        return cls(problem, able, unserved_s, service_s, slowness, bool((longest_s > 0.99 * FAR_S).any()))

    def round_trip_s(self, origins: NDArray[np.intp], places: NDArray[np.intp]) -> Floats32:
        """float32 of each pair of sites (shapes that broadcast); the matrix itself is never copied."""
        matrix = self.problem.round_trip_s
        return np.take(matrix.reshape(-1), origins * len(matrix) + places).astype(np.float32)

    def link_s(self, origins: NDArray[np.intp], places: NDArray[np.intp]) -> Floats32:
        """float32 seconds per byte of each pair: by the slower of the two links; 0 from a site to itself."""
        found: Floats32 = np.maximum(np.take(self.slowness, origins), np.take(self.slowness, places))
        found[np.broadcast_to(origins == places, found.shape)] = 0.0
        return found

    def between(
        self,
        model: int,
        origins: NDArray[np.intp],
        places: NDArray[np.intp],
        way: tuple[Floats32, Floats32] | None = None,
        service_s: Floats32 | None = None,
    ) -> Floats32:
        """float32 cost of each pair of ``origins`` and ``places`` (shapes that broadcast); inf where it is not open.

        Args:
            way: :meth:`round_trip_s` and :meth:`link_s` of these pairs, where the caller has looked them up already.
            service_s: float32[S] of the model, where not all places are to be looked at: inf at the others.
        """
        problem = self.problem
        round_trip_s, link_s = way or (self.round_trip_s(origins, places), self.link_s(origins, places))
        idle_s = link_s * np.float32(problem.payload_bytes[model])
        idle_s += round_trip_s
        idle_s += np.take(self.service_s[model] if service_s is None else service_s, places)
        weight, late = np.float32(problem.weight[model]), np.float32(LATE * problem.urgency[model])
        closed = None
        if self.far or not (weight > 0.0 and late > 0.0):  # else what is closed stays infinite by itself
            closed = np.isinf(idle_s)
            np.minimum(idle_s, np.float32(FAR_S), out=idle_s)
        cost: Floats32 = idle_s - np.float32(problem.target_s[model])
        np.maximum(cost, np.float32(0.0), out=cost)
        cost *= late
        idle_s *= weight
        cost += idle_s
        if problem.extra_s[:, model].any():
            cost += np.take(problem.extra_s[:, model].astype(np.float32), places)
        if closed is not None:
            np.copyto(cost, np.float32(np.inf), where=closed)
        rule = problem.may[problem.rule_set[model]]
        if not rule.all():
            may = np.take(rule[:, problem.site_class], problem.site_class[origins] * len(self.able) + places)
            np.copyto(cost, np.float32(np.inf), where=~may)
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
