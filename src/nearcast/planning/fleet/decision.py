"""From plan to guidance: what of a fleet's plan is asked of sites, and when a difference is worth asking for.

Decides: sites of ``auto`` placements (added at once, taken back only after ``hold_s`` without need), shares in steps,
which (site, model) needs shares at all, and who is near to sites without a location. Does not decide the plan
(`solve`), nor when to look again (`control.planner`). Everything it rests on comes in and stands in the record, so that
it can be repeated.

Shares are asked for only where the plan sends requests elsewhere than to the place that answers soonest, and only where
every node of the site understands them; everything else is routed by cost alone, which says the same.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final
from zlib import crc32

import numpy as np

from nearcast.planning.fleet.congestion import served_s
from nearcast.planning.fleet.gather import Gathered, gather
from nearcast.planning.fleet.guidance import Guidance, Shares
from nearcast.planning.fleet.problem import FleetPlan, Indices, Problem, Truths
from nearcast.planning.fleet.record import EVERYTHING, Pace, PlanRecord, Record, Scope, Unwanted, carried, packed
from nearcast.planning.fleet.scope import planned
from nearcast.planning.fleet.snapshot import Snapshot
from nearcast.planning.nearness import near_sites
from nearcast.resources.plan import PlannedShare

LEAST_DEMAND_PER_S: Final = 0.01
MAX_REASONS: Final = 20
BLOCK: Final = 256
"""Origins at a time: bounds memory."""
SHARE_DIGITS: Final = 4
TINY: Final = 1e-9


@dataclass(frozen=True, eq=False)
class Decided:
    """One pass of planning. ``reason`` is empty where the guidance is the one before."""

    gathered: Gathered
    plan: FleetPlan
    guidance: Guidance
    unwanted: tuple[Unwanted, ...]
    reason: tuple[str, ...]

    @property
    def record(self) -> PlanRecord:
        """The plan as it is kept."""
        return packed(self.gathered.problem, self.plan)


def decide(
    snapshot: Snapshot,
    before: PlanRecord | None,
    guided: Guidance,
    unwanted: Iterable[Unwanted],
    pace: Pace,
    elapsed_s: float = 0.0,
    scope: Scope = EVERYTHING,
    gathered: Gathered | None = None,
) -> Decided:
    """Plan for ``snapshot``, and say what to ask of sites.

    Args:
        snapshot: the observations.
        before: the plan before.
        guided: the guidance before.
        unwanted: sites that are held although plans no longer ask for them, and for how long as of ``elapsed_s`` ago.
        pace: how eagerly guidance follows.
        elapsed_s: since the pass before.
        scope: how much to plan anew (`scope.Basis` says it); less than everything needs a plan before, of the same
            sites and models.
        gathered: the problem of the snapshot, where the caller has it already; it is costly.
    """
    gathered = gathered or gather(snapshot)
    earlier = carried(before, gathered.problem)
    plan = planned(gathered.problem, earlier, scope)
    held = {(item.deployment, item.site): item.for_s + elapsed_s for item in unwanted}
    placements, still = _placements(gathered, plan, guided.placements, held, pace)
    near, able = guided.near, _able(snapshot)
    if scope.planned == "none":
        routes = {site: models for site, models in guided.routes.items() if site in able}
    else:
        touched = _others(earlier, plan) if earlier is not None and scope.planned == "part" else None
        routes = _routes(gathered.problem, plan, guided.routes, able, pace, touched)
    if scope.planned == "whole":
        near = near_sites(gathered.state.sites, gathered.estimate_s, snapshot.learned, guided.near)
    guidance = Guidance(placements=placements, routes=routes, near=near)
    return Decided(gathered, plan, guidance, still, tuple(_reasons(guided, guidance))[:MAX_REASONS])


def _others(before: FleetPlan, plan: FleetPlan) -> Truths:
    """bool[S]: origins whose requests go in any other way than before."""
    sites = len(plan.placed)
    counts = [np.bincount(each.origin, minlength=sites) for each in (before, plan)]
    found: Truths = counts[0] != counts[1]
    rows = [~found[each.origin] for each in (before, plan)]
    apart = np.zeros(int(rows[0].sum()), dtype=np.bool_)
    for name in ("model", "place", "share"):
        apart |= getattr(before, name)[rows[0]] != getattr(plan, name)[rows[1]]
    found[plan.origin[rows[1]][apart]] = True
    return found


def replayed(record: Record) -> Decided:
    """What this release decides on the inputs of ``record``."""
    return decide(record.snapshot, record.before, record.guided, record.unwanted, record.pace, scope=record.scope)


def differences(record: Record, decided: Decided) -> tuple[str, ...]:
    """How a replay differs from what was recorded; empty where it is the same to the last bit."""
    found = []
    again = decided.record
    for name in PlanRecord.__struct_fields__:
        if getattr(again, name) != getattr(record.plan, name):
            found.append(f"plan.{name}")
    for name in Guidance.__struct_fields__:
        if getattr(decided.guidance, name) != getattr(record.guidance, name):
            found.append(f"guidance.{name}")
    return tuple(found)


# --- placements -------------------------------------------------------------------------------------------------------


def _placements(
    gathered: Gathered,
    plan: FleetPlan,
    before: Mapping[str, tuple[str, ...]],
    held: Mapping[tuple[str, str], float],
    pace: Pace,
) -> tuple[dict[str, tuple[str, ...]], tuple[Unwanted, ...]]:
    """Sites of ``auto`` placements: what the plan places, and what it placed a while ago and no rule closed since."""
    problem = gathered.problem
    found: dict[str, tuple[str, ...]] = {}
    still: list[Unwanted] = []
    names = {item.name for item in gathered.state.deployments if item.spec.placement.auto is not None}
    for column, item in enumerate(gathered.deployments):
        if item.name not in names or not problem.eligible[:, column].any():
            continue  # where no site may hold it, there is nothing to choose: rules say so, and not a plan
        wanted = {problem.sites[n] for n in np.flatnonzero(plan.placed[:, column] & problem.eligible[:, column])}
        # A site that nobody hears of keeps its own as well: once it is back, it shall not have to load it anew.
        able = {
            problem.sites[n]
            for n in np.flatnonzero(problem.eligible[:, column] & np.isfinite(problem.service_s[:, column]))
        }
        room = int(problem.most[column]) - len(wanted)
        for site in before.get(item.name, ()):
            for_s = held.get((item.name, site), 0.0)
            if site in wanted or site not in able or room <= 0 or for_s >= pace.hold_s:
                continue
            room -= 1
            still.append(Unwanted(item.name, site, for_s))
        found[item.name] = tuple(sorted(wanted | {each.site for each in still if each.deployment == item.name}))
    known = {item.name for item in gathered.deployments}
    kept = {name: sites for name, sites in before.items() if name in names and name not in known}
    return found | kept, tuple(still)


# --- shares -----------------------------------------------------------------------------------------------------------


def _able(snapshot: Snapshot) -> frozenset[str]:
    """Sites all of whose nodes tell their capacity: nodes of an older release would refuse a plan with shares."""
    told = {node.site for node in snapshot.nodes if node.workers > 0.0}
    return frozenset(told - {node.site for node in snapshot.nodes if node.workers <= 0.0})


def _routes(
    problem: Problem,
    plan: FleetPlan,
    before: Mapping[str, Mapping[str, Shares]],
    able: frozenset[str],
    pace: Pace,
    touched: Truths | None = None,
) -> dict[str, dict[str, Shares]]:
    """Shares of every site; where ``touched`` (bool[S]) says so, of some, and of the others those before."""
    found: dict[str, dict[str, Shares]] = {}
    if touched is not None:
        looked_at = {problem.sites[n] for n in np.flatnonzero(touched)}
        found = {site: dict(models) for site, models in before.items() if site in able and site not in looked_at}
        able &= looked_at
    for pair in _pairs(problem, plan, before, able):
        old = before.get(pair.site, {}).get(pair.model)
        was = {share.site: share.share for share in old} if old else {pair.soonest: 1.0}
        moved = sum(abs(pair.exact.get(each, 0.0) - was.get(each, 0.0)) for each in {*pair.exact, *was}) / 2
        # Who can have all at home again has it: what is sent away without need pays for the way with every request.
        home = pair.exact.get(pair.soonest, 0.0) > 1.0 - pace.step / 2
        least = pace.step if home else pace.least_change
        if moved < least - TINY and all(pair.is_open(each) for each in was):
            shares = old or ()
        else:
            shares = stepped(pair.exact, pace.step, pair.expected_s, pair.site)
            if len(shares) == 1 and shares[0].site == pair.soonest:
                shares = ()
        if shares:
            found.setdefault(pair.site, {})[pair.model] = shares
    return found


@dataclass(frozen=True, slots=True)
class _Pair:
    """Requests for one model that enter at one site: exact shares, the place that answers soonest, which ones may."""

    site: str
    model: str
    exact: Mapping[str, float]
    soonest: str
    is_open: Callable[[str], bool]
    expected_s: Mapping[str, float]


def _pairs(
    problem: Problem, plan: FleetPlan, before: Mapping[str, Mapping[str, Shares]], able: frozenset[str]
) -> Iterator[_Pair]:
    """Pairs with demand at sites that understand shares, less those that go to the soonest place and did before."""
    if not len(plan.origin):
        return
    key = plan.origin.astype(np.int64) * len(problem.models) + plan.model
    starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    ends = np.r_[starts[1:], len(key)]
    origin, model = plan.origin[starts], plan.model[starts]
    shown = problem.demand_per_s[origin, model] >= LEAST_DEMAND_PER_S
    shown &= np.array([site in able for site in problem.sites])[origin]
    soonest = np.zeros(len(starts), dtype=np.int32)
    for each in np.unique(model[shown]):
        chosen = np.flatnonzero(shown & (model == each))
        soonest[chosen] = _soonest(problem, plan, int(each), origin[chosen])
    guided = np.zeros(len(starts), dtype=np.bool_)
    known = {(site, name) for site, models in before.items() for name in models}
    if known:
        guided = np.array([(problem.sites[o], problem.models[m]) in known for o, m in zip(origin, model, strict=True)])
    index = {site: n for n, site in enumerate(problem.sites)}
    alone = (ends - starts == 1) & (plan.place[starts] == soonest)
    expected_s = served_s(problem, plan.utilization) + plan.wait_s[:, None]
    for at in np.flatnonzero(shown & (guided | ~alone)):
        site, name = int(origin[at]), int(model[at])
        yield _Pair(
            site=problem.sites[site],
            model=problem.models[name],
            exact={problem.sites[int(plan.place[n])]: float(plan.share[n]) for n in range(starts[at], ends[at])},
            soonest=problem.sites[int(soonest[at])],
            is_open=partial(_is_open, problem, plan, index, site, name),
            expected_s={
                problem.sites[n]: round(float(expected_s[n, name]), SHARE_DIGITS)
                for n in (int(place) for place in plan.place[starts[at] : ends[at]])
            },
        )


def _is_open(problem: Problem, plan: FleetPlan, index: Mapping[str, int], origin: int, model: int, place: str) -> bool:
    at = index.get(place)
    return at is not None and bool(plan.placed[at, model]) and problem.is_open(origin, at, model)


def _soonest(problem: Problem, plan: FleetPlan, model: int, origins: Indices) -> Indices:
    """Where cost alone would send a request for ``model``, by origin. O(origins x holders), in blocks."""
    holders = np.flatnonzero(plan.placed[:, model] & problem.eligible[:, model] & (problem.workers > 0.0))
    if not len(holders):
        return origins
    may = problem.may[problem.rule_set[model]]
    found = np.empty(len(origins), dtype=np.int32)
    for start in range(0, len(origins), BLOCK):
        rows = origins[start : start + BLOCK, None]
        rate = np.minimum(problem.bytes_per_s[rows], problem.bytes_per_s[holders])
        time_s = problem.round_trip_s[rows, holders] + problem.service_s[holders, model]
        time_s = time_s + np.where(rows == holders, 0.0, problem.payload_bytes[model] / rate)
        closed = ~may[problem.site_class[rows], problem.site_class[holders]]
        found[start : start + BLOCK] = holders[np.argmin(np.where(closed, np.inf, time_s), axis=1)]
    return found


def stepped(shares: Mapping[str, float], step: float, expected_s: Mapping[str, float], origin: str = "") -> Shares:
    """``shares`` as multiples of ``step`` that add up to 1 (largest remainder), the greatest first, none of them 0.

    Equal remainders go to other places at each ``origin``: places that come first by name would be overrun by all.
    """
    parts = round(1.0 / step)
    total = sum(shares.values())
    exact = {name: parts * share / total for name, share in shares.items()}
    whole = {name: int(value + 1e-9) for name, value in exact.items()}
    rest = parts - sum(whole.values())
    for name in sorted(
        exact, key=lambda name: (round(whole[name] - exact[name], 6), crc32(f"{origin}/{name}".encode()), name)
    )[:rest]:
        whole[name] += 1
    ordered = sorted((name for name in whole if whole[name]), key=lambda name: (-whole[name], name))
    return tuple(
        PlannedShare(site=name, share=round(whole[name] / parts, SHARE_DIGITS), expected_s=expected_s.get(name, 0.0))
        for name in ordered
    )


# --- reasons ----------------------------------------------------------------------------------------------------------


def _reasons(before: Guidance, after: Guidance) -> Iterator[str]:
    """What changed, one line each: placements first."""
    for name in sorted({*before.placements, *after.placements}):
        was, now = before.placements.get(name), after.placements.get(name)
        if was is None and now is not None:
            yield f"{name}: placed on {', '.join(now[:8]) or 'no site'}"
        elif was is not None and now is None:
            yield f"{name}: no longer placed by the planner"
        elif was is not None and now is not None and was != now:
            yield f"{name}: {_difference(was, now)}"
    for site in sorted({*before.routes, *after.routes}):
        was_at, now_at = before.routes.get(site, {}), after.routes.get(site, {})
        for model in sorted({*was_at, *now_at}):
            if was_at.get(model) != now_at.get(model):
                yield f"{model} asked at {site}: {_spoken(now_at.get(model))}"
    moved = sum(before.near.get(site) != after.near.get(site) for site in {*before.near, *after.near})
    if moved:
        yield f"{moved} sites without a location have other sites near them"


def _difference(was: tuple[str, ...], now: tuple[str, ...]) -> str:
    more = [f"+{site}" for site in sorted(set(now) - set(was))]
    less = [f"-{site}" for site in sorted(set(was) - set(now))]
    return " ".join([*more, *less][:8])


def _spoken(shares: Shares | None) -> str:
    return ", ".join(f"{share.share:.0%} {share.site}" for share in shares) if shares else "by cost alone"
