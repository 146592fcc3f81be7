"""How good a run was, in figures: times, objectives, traffic, use, cost, and how restless its routes were.

Only requests that entered after the warm-up count. Percentiles of the time to answer are over all of
them: what was refused, lost or closed is never answered, and counts as outside its objective.
"""

from typing import Final

import msgspec
import numpy as np

from nearcast.twin.outcome import CLOSED, LOST, REFUSED, Outcome
from nearcast.twin.scenario import ScenarioSpec
from nearcast.twin.workload import Workload
from nearcast.twin.world import Floats, Truths, World

QUANTILES: Final = (50, 95, 99)
CURVE: Final = 200
SLICE_S: Final = 5.0


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Mean of what was answered and percentiles of all, in milliseconds; 0 where nothing was asked.

    A percentile is None where so many requests were never answered that it has no end.
    """

    mean_ms: float = 0.0
    p50_ms: float | None = 0.0
    p95_ms: float | None = 0.0
    p99_ms: float | None = 0.0


class ClassFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Of one objective: requests, and the share of them that was answered in its model's target."""

    requests: int
    within: float
    answer: Times


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one policy achieved.

    Attributes:
        answer: time to answer, from the gateway where the request entered.
        network: its part on the way, with all hops and tries.
        within: share of all requests that was answered in the target of its model.
        refused, lost, closed: shares: every place was full; a place died; no place may or can answer.
        wan_bytes: between sites, of all measured requests, per answer: who refuses saves no traffic by it.
        spilled: share of requests that asked more than one place.
        utilization_mean, utilization_most: of the workers of all sites together, and of the busiest site.
        cost_per_million: of a million answers: machines in use and traffic, in the scenario's currency.
        moved_mean, moved_most: part of the traffic per second whose first place changed.
        undone: part of the traffic per second that moved and moved back within half a minute.
    """

    policy: str
    requests: int
    answered: int
    answer: Times
    network: Times
    within: float
    by_class: dict[str, ClassFigures]
    refused: float
    lost: float
    closed: float
    wan_bytes: float
    spilled: float
    utilization_mean: float
    utilization_most: float
    cost_per_million: float
    moved_mean: float
    moved_most: float
    undone: float
    violations: int
    """Answers from a place that residency forbids; anything but 0 is a defect."""


class Curves(msgspec.Struct, frozen=True, kw_only=True):
    """For plots: times to answer at evenly spaced quantiles, use of each site, and the story by slices of 5 s."""

    policy: str
    quantiles_ms: tuple[float, ...]
    utilization: tuple[float, ...]
    at_s: tuple[float, ...]
    p95_ms: tuple[float, ...]
    within: tuple[float, ...]
    moved: tuple[float, ...]


def figures(outcome: Outcome, world: World, workload: Workload, spec: ScenarioSpec) -> Figures:
    """The figures of ``outcome``; ``world`` is the one that it ran in."""
    measured = workload.at_s >= spec.warm_up_s
    answered = measured & (outcome.place >= 0)
    count = int(measured.sum())
    whole = max(1, count)
    inside = _within(outcome, workload, world)
    utilization = _utilization(outcome, world, spec)
    use = float(outcome.busy_s.sum() / max(1e-9, (world.problem.workers * spec.duration_s).sum()))
    wan = float(outcome.wan_bytes[measured].sum())
    moved = outcome.moved_per_s[int(spec.warm_up_s) :]
    return Figures(
        policy=outcome.policy,
        requests=count,
        answered=int(answered.sum()),
        answer=times(outcome.time_s[answered], count),
        network=times(outcome.network_s[answered]),
        within=float(inside[measured].sum() / whole),
        by_class=_by_class(outcome, workload, world, measured, inside),
        refused=float((outcome.place[measured] == REFUSED).sum() / whole),
        lost=float((outcome.place[measured] == LOST).sum() / whole),
        closed=float((outcome.place[measured] == CLOSED).sum() / whole),
        wan_bytes=wan / max(1, int(answered.sum())),
        spilled=float((outcome.attempts[measured] > 1).sum() / whole),
        utilization_mean=use,
        utilization_most=float(utilization.max(initial=0.0)),
        cost_per_million=_cost(outcome, world, wan, answered),
        moved_mean=float(moved.mean()) if len(moved) else 0.0,
        moved_most=float(moved.max(initial=0.0)),
        undone=outcome.undone_per_s,
        violations=violations(outcome, world, workload),
    )


def times(found_s: Floats, asked: int | None = None) -> Times:
    """Mean of times in seconds, and percentiles of ``asked`` requests (by default as many as times)."""
    count = len(found_s) if asked is None else asked
    if not count:
        return Times()
    never = np.full(count - len(found_s), np.inf)
    p50, p95, p99 = (
        float(value) * 1000.0 if np.isfinite(value) else None
        for value in np.quantile(np.r_[found_s, never], [q / 100.0 for q in QUANTILES], method="inverted_cdf")
    )
    mean_ms = float(found_s.mean()) * 1000.0 if len(found_s) else 0.0
    return Times(mean_ms=mean_ms, p50_ms=p50, p95_ms=p95, p99_ms=p99)


def violations(outcome: Outcome, world: World, workload: Workload) -> int:
    """Answers from places that residency forbids to the site where the request entered."""
    problem = world.problem
    done = outcome.place >= 0
    rule = problem.rule_set[workload.model[done]]
    origin, place = problem.site_class[outcome.entered[done]], problem.site_class[outcome.place[done]]
    return int((~problem.may[rule, origin, place]).sum())


def _within(outcome: Outcome, workload: Workload, world: World) -> Truths:
    target_s = world.problem.target_s[workload.model]
    return np.asarray((outcome.place >= 0) & (outcome.time_s <= target_s))


def _by_class(
    outcome: Outcome, workload: Workload, world: World, measured: Truths, inside: Truths
) -> dict[str, ClassFigures]:
    objectives = [model.objective for model in world.models]
    found: dict[str, ClassFigures] = {}
    for objective in dict.fromkeys(objectives):
        mine = measured & np.array([one == objective for one in objectives])[workload.model]
        count = int(mine.sum())
        found[objective] = ClassFigures(
            requests=count,
            within=float(inside[mine].sum() / max(1, count)),
            answer=times(outcome.time_s[mine & (outcome.place >= 0)], count),
        )
    return found


def _utilization(outcome: Outcome, world: World, spec: ScenarioSpec) -> Floats:
    """float64[S]: worker-seconds in use over those there were; what was computed after the end counts, too."""
    return np.asarray(outcome.busy_s / np.maximum(1e-9, world.problem.workers * spec.duration_s))


def _cost(outcome: Outcome, world: World, wan_bytes: float, answered: Truths) -> float:
    """Busy workers at their price and traffic at its own; idle machines cost every policy the same."""
    share = float(answered.sum()) / max(1, int((outcome.place >= 0).sum()))
    machines = float((outcome.busy_s * world.price_per_worker_s).sum()) * share
    return 1e6 * (machines + wan_bytes * world.price_per_byte) / max(1, int(answered.sum()))


def curves(outcome: Outcome, world: World, workload: Workload, spec: ScenarioSpec) -> Curves:
    """What is drawn of ``outcome``."""
    measured = workload.at_s >= spec.warm_up_s
    answered = measured & (outcome.place >= 0)
    found = outcome.time_s[answered] * 1000.0
    points = np.quantile(found, np.linspace(0, 1, CURVE)) if len(found) else np.zeros(0)
    inside = _within(outcome, workload, world)
    edges = np.arange(0.0, spec.duration_s + SLICE_S, SLICE_S)
    cuts = np.searchsorted(workload.at_s, edges)
    at, p95, within = [], [], []
    for start, first, last in zip(edges, cuts, cuts[1:], strict=False):
        if last > first:
            done = outcome.time_s[first:last][outcome.place[first:last] >= 0]
            at.append(float(start))
            p95.append(float(np.percentile(done, 95)) * 1000.0 if len(done) else 0.0)
            within.append(float(inside[first:last].mean()))
    return Curves(
        policy=outcome.policy,
        quantiles_ms=tuple(points.tolist()),
        utilization=tuple(_utilization(outcome, world, spec).tolist()),
        at_s=tuple(at),
        p95_ms=tuple(p95),
        within=tuple(within),
        moved=tuple(outcome.moved_per_s.tolist()),
    )
