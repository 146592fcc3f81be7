"""The planner's program, solved exactly by HiGHS where it is small enough: what plans and bounds are measured against.

Queues are given as chords of their convex curves, so the optimum here is never below that of the curves themselves.
"""

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from nearcast.planning.fleet.congestion import CEILING, Queues
from nearcast.planning.fleet.cost import Costs
from nearcast.planning.fleet.problem import Problem

KNOTS = np.concatenate([np.linspace(0.0, 0.6, 7), np.linspace(0.63, 0.84, 8), np.linspace(0.85, CEILING, 6)])


def best_shares_s(problem: Problem, placed: NDArray[np.bool_]) -> float:
    """Least cost of any shares over ``placed``; all open places may be used."""
    return _solve(problem, placed, choose=False, limit_s=120.0)["cost_s"]


def best_placement_s(problem: Problem, limit_s: float = 60.0) -> tuple[float, float]:
    """Least cost of any placement, and a proven bound below it (equal where the solver finished)."""
    able = problem.eligible & np.isfinite(problem.service_s) & (problem.workers > 0.0)[:, None]
    found = _solve(problem, able, choose=True, limit_s=limit_s)
    return found["cost_s"], found["bound_s"]


def _solve(problem: Problem, holders: NDArray[np.bool_], *, choose: bool, limit_s: float) -> dict[str, float]:
    queues = Queues.of(problem)
    costs = Costs.of(problem, queues.top_price_s)
    sites, models = holders.shape
    every = np.arange(sites)
    cost = np.stack([costs.between(m, every[:, None], every[None]) for m in range(models)], axis=1).astype(float)
    origin, model, place = np.nonzero(np.isfinite(cost) & holders.T[None] & (problem.demand_per_s > 0.0)[:, :, None])
    rows, row = np.unique(origin * models + model, return_inverse=True)
    asked = np.flatnonzero(problem.demand_per_s.ravel() > 0.0)
    lost = float((problem.demand_per_s.ravel() * np.tile(costs.unserved_s, sites))[np.setdiff1d(asked, rows)].sum())
    demand = problem.demand_per_s[origin, model]
    n, u, steps = len(origin), len(rows), len(KNOTS) - 1
    heights = np.stack([queues.waiting_s(knot * problem.workers) for knot in KNOTS])
    widths = np.diff(KNOTS)[:, None] * problem.workers
    slopes = np.diff(heights, axis=0) / np.maximum(widths, 1e-30)
    pairs = sites * models if choose else 0
    price = [demand * cost[origin, model, place], problem.demand_per_s.ravel()[rows] * costs.unserved_s[rows % models]]
    c = np.concatenate([*price, slopes.ravel(), np.zeros(pairs)])
    upper = np.concatenate([np.ones(n + u), widths.ravel(), np.ones(pairs)])
    served = sp.hstack([_ones(row, n, u), sp.eye(u), sp.csr_matrix((u, steps * sites + pairs))])
    load = sp.csr_matrix((demand * problem.work_s[place, model], (place, np.arange(n))), (sites, n))
    filled = sp.hstack([load, sp.csr_matrix((sites, u)), *[-sp.eye(sites)] * steps, sp.csr_matrix((sites, pairs))])
    rules = [LinearConstraint(served, 1.0, 1.0), LinearConstraint(filled, -np.inf, 0.0)]
    if choose:
        rules += _choices(problem, holders, (origin, model, place), n + u + steps * sites)
    found: Any = milp(
        c,
        constraints=rules,
        bounds=Bounds(0.0, upper),
        integrality=np.concatenate([np.zeros(n + u + steps * sites), np.ones(pairs)]),
        options={"time_limit": limit_s, "mip_rel_gap": 1e-6},
    )
    bound = found.mip_dual_bound if choose and found.mip_dual_bound is not None else found.fun
    return {"cost_s": float(found.fun) + lost, "bound_s": float(bound) + lost}


def _choices(
    problem: Problem, able: NDArray[np.bool_], flows: tuple[NDArray[np.intp], ...], before: int
) -> list[LinearConstraint]:
    """Requests go only where a replica is; replicas fit into memory, and there are as many as there must be."""
    sites, models = able.shape
    _, model, place = flows
    n, pairs = len(model), sites * models
    none = sp.csr_matrix((n, before - n))
    there = sp.csr_matrix((np.ones(n), (np.arange(n), place * models + model)), (n, pairs))
    size = sp.csr_matrix(
        (np.tile(problem.footprint_bytes, sites), (np.repeat(np.arange(sites), models), np.arange(pairs)))
    )
    count = sp.csr_matrix((np.ones(pairs), (np.tile(np.arange(models), sites), np.arange(pairs))))
    y_only = [sp.hstack([sp.csr_matrix((k.shape[0], before)), k]) for k in (size, count, sp.eye(pairs))]
    return [
        LinearConstraint(sp.hstack([sp.eye(n), none, -there]), -np.inf, 0.0),
        LinearConstraint(y_only[0], -np.inf, problem.memory_bytes),
        LinearConstraint(y_only[1], problem.least, problem.most),
        LinearConstraint(y_only[2], (problem.pinned & able).ravel().astype(float), able.ravel().astype(float)),
    ]


def _ones(row: NDArray[np.intp], n: int, u: int) -> Any:
    return sp.csr_matrix((np.ones(n), (row, np.arange(n))), (u, n))
