"""The route table of one site: for each model, which places are asked, in which shares and in which order.

Decides: candidates (residency, tenancy and licences first, as hard rules), their cost in seconds, shares, failover
order. Does not decide how shares move (`shares`), what runs where and with which shares to begin (the plan), nor
retries and ejection inside a second (Envoy does).

Invariants, held by property tests:
* a place that a rule closes is in no share and in no order, whatever the load, and whatever the plan says it holds;
* shares are positive, sum to 100, and each order names a place once;
* between two tables at most `shares.MAX_SHIFT_PER_S` of a model's traffic moves per second from one standing place to
  another (a stale crowd would stampede an idle place otherwise); a place that is gone loses its share at once;
* an order changes only where the gain is clear, since a new order is a new cluster for Envoy.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal

from nearcast.planning.cost import Terms
from nearcast.planning.holding import barred
from nearcast.planning.residency import refusals
from nearcast.planning.shares import GAP_S, Base, site_of, step
from nearcast.planning.waits import longest_waits_ms
from nearcast.resources.load import LoadReport, ModelLoad
from nearcast.resources.plan import SiteFacts, SitePlan, place_of, siblings
from nearcast.resources.status import Share

MAX_ORDER: Final = 5
MAX_SIBLINGS: Final = 2
"""Nodes of the own site in one order: a site that is full or broken must leave room for other sites."""
MAX_STEP_S: Final = 2.0
"""A table made after a pause moves no more than this many seconds' worth."""
STALE_S: Final = 10.0
"""Load reports older than this are not believed; round trips are, they change slowly."""
REORDER_RATIO: Final = 1.25

Verdict = Literal["routed", "residency_refused", "no_place_ready"]
State = Literal["ready", "unreachable", "not_ready"]


@dataclass(frozen=True, slots=True)
class Observation:
    """What was last measured of a place: the own node, a sibling, or a peer. ``load`` is None where none was told."""

    measured_at_s: float
    reachable: bool
    round_trip_s: float = 0.0
    load: LoadReport | None = None


@dataclass(frozen=True, slots=True)
class PlaceCost:
    """A candidate: what its answer would cost, and how much of the traffic it gets first.

    ``weight`` is the exact share, 0 to 1; `Share.percent` is its rounding. ``base`` is the share of its site in the
    fleet's plan; None where the model is routed by cost alone.
    """

    site: str
    state: State
    terms: Terms
    weight: float
    base: float | None = None


@dataclass(frozen=True, slots=True)
class RefusedPlace:
    """A place that has the model and may not answer, and the policies that say so."""

    site: str
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelRoute:
    """Where requests for one model go. ``shares`` is empty unless the verdict is ``routed``.

    ``longest_ms``: of each share how long a request may wait at each place of its order (`waits`).
    """

    verdict: Verdict
    shares: tuple[Share, ...] = ()
    places: tuple[PlaceCost, ...] = ()
    refused: tuple[RefusedPlace, ...] = ()
    longest_ms: tuple[tuple[int, ...], ...] = ()

    @property
    def policies(self) -> tuple[str, ...]:
        """All policies that refused a place, sorted."""
        return tuple(sorted({policy for place in self.refused for policy in place.policies}))


@dataclass(frozen=True, slots=True)
class RouteTable:
    """One site's routes at one moment, for every model of the plan's catalog."""

    made_at_s: float = 0.0
    models: Mapping[str, ModelRoute] = field(default_factory=dict)


def route_table(
    plan: SitePlan,
    local_ready: frozenset[str],
    observations: Mapping[str, Observation],
    previous: RouteTable | None,
    now_s: float,
    node: str = "",
    *,
    guided: bool = True,
    payload_bytes: Mapping[str, float] = MappingProxyType({}),
) -> RouteTable:
    """The next route table of a node of the site that ``plan`` is for.

    Args:
        plan: the verified plan.
        local_ready: models that the node's own engine serves now.
        observations: place -> last measurement, the own node's load among them by the name of the site.
        previous: the table in force, from which shares move by limited steps; None at start.
        now_s: seconds on any clock that does not go back, the one of ``measured_at_s``.
        node: name of the node; without it the site's other nodes are no places.
        guided: whether the plan's shares are believed; without contact to the control plane for long, they are not,
            and every model is routed by cost alone among the places that can be reached.
        payload_bytes: model -> mean bytes of a request and its answer.

    Returns:
        A table with one entry per model of ``plan.catalog``. Cost: O(models x places).
    """
    before = previous.models if previous else {}
    elapsed_s = min(MAX_STEP_S, max(0.0, now_s - previous.made_at_s)) if previous else 0.0
    names = sorted({*plan.catalog, *(planned.model for planned in plan.models)})
    return RouteTable(
        made_at_s=now_s,
        models={
            name: _route(
                _Asked(name, name in local_ready, payload_bytes.get(name, 0.0), guided),
                plan,
                node,
                observations,
                before.get(name),
                now_s,
                elapsed_s,
            )
            for name in names
        },
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """One model: whether the own engine serves it, how much a request carries, whether its planned shares count."""

    model: str
    local: bool
    payload_bytes: float
    guided: bool


def _route(
    asked: _Asked,
    plan: SitePlan,
    node: str,
    observations: Mapping[str, Observation],
    before: ModelRoute | None,
    now_s: float,
    elapsed_s: float,
) -> ModelRoute:
    model = asked.model
    allowed, refused = _allowed(asked, plan, node)
    if not allowed:
        closed = bool(refused) or model in plan.closed
        return ModelRoute("residency_refused" if closed else "no_place_ready", refused=refused)
    candidates = {
        name: _candidate(name, plan.site.name, model, prior, observations.get(name), now_s)
        for name, prior in allowed.items()
    }
    standing = [name for name, (state, _) in candidates.items() if state == "ready"] or list(candidates)
    base = Base.of(plan.routes.get(model, ()) if asked.guided else (), standing)
    held = {place.site: place.weight for place in before.places} if before else {}
    ranking = _ranking(candidates, before, place_of(plan.site.name, node))
    standing_terms = {name: terms for name, (state, terms) in candidates.items() if state == "ready"}
    target_s, urgent = plan.targets_s.get(model, 0.0), model in plan.urgent
    expected_s = {name: base.expected_s.get(site_of(name), 0.0) for name in standing_terms}
    weighed = {name: terms for name, (_, terms) in candidates.items()}
    if (own := plan.site.name) in weighed:
        waits_ms = longest_waits_ms(_order(own, ranking), standing_terms, target_s, expected_s)
        weighed[own] = _judged_here(weighed[own], waits_ms)
    weights = step(weighed, standing, held, base, elapsed_s)
    places = tuple(
        PlaceCost(name, *candidates[name], weights.get(name, 0.0), base.share.get(name, 0.0) if base.share else None)
        for name in ranking
    )
    shares = tuple(Share(percent=percent, order=_order(name, ranking)) for name, percent in _percents(weights))
    longest_ms = tuple(
        longest_waits_ms(share.order, standing_terms, target_s, expected_s, urgent=urgent) for share in shares
    )
    return ModelRoute("routed", shares, places, refused, longest_ms)


def _allowed(asked: _Asked, plan: SitePlan, node: str) -> tuple[dict[str, Terms], tuple[RefusedPlace, ...]]:
    """Places that hold the model: those that may answer, each with what its way is expected to cost, and the others."""
    holders = _holders(plan, node, asked.model, asked.local)
    verdicts = {name: refusals(plan.residency, asked.model, plan.site, site) for name, site, _, _ in holders}
    refused = tuple(RefusedPlace(name, policies) for name, policies in sorted(verdicts.items()) if policies)
    allowed = {
        name: Terms(prior_s, asked.payload_bytes / rate if rate else 0.0)
        for name, _, prior_s, rate in holders
        if not verdicts[name]
    }
    return allowed, refused


def _judged_here(terms: Terms, longest_ms: tuple[int, ...]) -> Terms:
    """The own place without the wait up to which it takes requests: being sent on from home costs no way, so each
    request finds out by itself, and shares need not follow a queue that comes and goes."""
    taken_s = longest_ms[0] / 1000.0 if longest_ms else 0.0
    return replace(terms, wait_s=max(0.0, terms.wait_s - taken_s))


def _holders(plan: SitePlan, node: str, model: str, local: bool) -> list[tuple[str, SiteFacts, float, float]]:
    """Places that have the model and may, each with its site, the expected round trip and the rate of the link (0: no
    limit): the own node (by the name of the site) only while its engine serves it."""
    others = [*siblings(plan, node).items(), *((peer.site.name, peer) for peer in plan.peers)]
    found = [
        (name, peer.site, peer.round_trip_s, peer.bytes_per_s)
        for name, peer in others
        if peer.addresses and any(served.model == model for served in peer.models)
    ]
    own = [(plan.site.name, plan.site, 0.0, 0.0)] if local else []
    return [holder for holder in (*own, *found) if not barred(plan, model, holder[1])]


def _order(first: str, ranking: list[str]) -> tuple[str, ...]:
    """``first``, then the others as they rank, at most :data:`MAX_ORDER`; siblings beyond their number come last."""
    names = [first, *(other for other in ranking if other != first)]
    spare = [name for name in names if _is_sibling(name)][MAX_SIBLINGS:]
    return tuple([*(name for name in names if name not in spare), *spare][:MAX_ORDER])


def _is_sibling(place: str) -> bool:
    return "/" in place


def _candidate(
    name: str, own: str, model: str, prior: Terms, seen: Observation | None, now_s: float
) -> tuple[State, Terms]:
    """The state and cost of one place, from what was measured, or from the plan's expectation where nothing was."""
    if seen is None:
        return "ready", prior
    load = seen.load.of(model) if seen.load else None
    is_stale = now_s - seen.measured_at_s > STALE_S
    if name == own:
        return "ready", prior if load is None or is_stale else _loaded(prior, load)
    way = replace(prior, round_trip_s=seen.round_trip_s or prior.round_trip_s)
    if not seen.reachable:
        return "unreachable", way
    if is_stale or seen.load is None:
        return "ready", way
    return ("not_ready", way) if load is None else ("ready", _loaded(way, load))


def _loaded(way: Terms, load: ModelLoad) -> Terms:
    return replace(way, wait_s=load.wait_s, service_s=load.service_s)


def _ranking(candidates: Mapping[str, tuple[State, Terms]], before: ModelRoute | None, own: str) -> list[str]:
    """All candidates, best first: those that stand, by cost, then the doubtful; the old order where gains are small.

    Siblings that cost the same come in a ring that begins after ``own``, so that not all nodes spill to the same one.
    """
    cost = {name: terms.total_s for name, (_, terms) in candidates.items()}

    def settle(names: Iterable[str]) -> list[str]:
        held = [place.site for place in before.places] if before else []
        fresh = sorted(names, key=lambda name: (cost[name], _is_sibling(name) and name < own, name))
        kept = [name for name in held if name in set(fresh)]
        for name in fresh:
            if name not in kept:
                spot = next((i for i, other in enumerate(kept) if cost[name] < cost[other]), len(kept))
                kept.insert(spot, name)
        for _ in kept:
            for i in range(len(kept) - 1):
                if cost[kept[i]] > cost[kept[i + 1]] * REORDER_RATIO + GAP_S:
                    kept[i], kept[i + 1] = kept[i + 1], kept[i]
        return kept

    standing = [name for name, (state, _) in candidates.items() if state == "ready"]
    return settle(standing) + settle(set(candidates) - set(standing))


def _percents(weights: Mapping[str, float]) -> list[tuple[str, int]]:
    """``weights`` as whole percent that sum to 100 (largest remainder), the greatest first; zeros are left out."""
    total = sum(weights.values())
    exact = {name: 100.0 * weight / total for name, weight in weights.items()}
    whole = {name: int(value) for name, value in exact.items()}
    rest = 100 - sum(whole.values())
    for name in sorted(exact, key=lambda name: (whole[name] - exact[name], name))[:rest]:
        whole[name] += 1
    return [(name, percent) for name, percent in sorted(whole.items(), key=lambda item: (-item[1], item[0])) if percent]
