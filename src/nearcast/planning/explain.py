"""Why requests go where they go: every candidate place with its cost by cause, every refusal with its rule.

Pure: it runs the very functions that made the route table, on what the site last reported, and lays the shares that
its gateway has in force beside them.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from nearcast.planning.explanation import Explanation, PlaceExplanation, Standing
from nearcast.planning.fleet.guidance import UNGUIDED, Guidance
from nearcast.planning.grounds import Chosen, grounds_of, placed
from nearcast.planning.holding import left_out
from nearcast.planning.residency import refusals
from nearcast.planning.routes import ModelRoute, Observation, PlaceCost, route_table
from nearcast.resources.plan import SitePlan
from nearcast.resources.state import DesiredState
from nearcast.resources.status import NodeStatus

MAX_LISTED: Final = 50
"""Sites without the model are listed up to this many; the rest is counted."""


def explain(
    state: DesiredState,
    plan: SitePlan,
    status: NodeStatus | None,
    model: str,
    guidance: Guidance = UNGUIDED,
    load_s: float = 0.0,
) -> Explanation:
    """Explain the routes of ``model`` at the site that ``plan`` is for.

    Args:
        state: desired state, for the sites that were never candidates.
        plan: the site's plan.
        status: what the site's node reported last, or None.
        model: a model of the plan's catalog.
        guidance: what was decided for the fleet as a whole.
        load_s: how long nodes take to load the model, for places that have not finished.
    """
    route = _route(plan, status, model)
    candidates = _candidates(plan, status, route, model, load_s)
    named = {place.site for place in candidates}
    refused = {place.site: _rule(place.policies) for place in route.refused}
    refused |= _refused(state, plan, model, guidance.placements)
    refused |= {item.site: item.why for item in left_out(plan) if item.model == model}
    closed = [
        PlaceExplanation(site=name, standing="refused", rule=rule)
        for name, rule in sorted(refused.items())
        if name not in named
    ]
    others = [
        PlaceExplanation(site=site.name, standing="not_placed", rule=_absence(plan, model, site.name))
        for site in state.sites
        if site.name not in named and site.name not in refused
    ]
    return Explanation(
        model=model,
        site=plan.site.name,
        verdict=route.verdict,
        reported=status is not None,
        places=(*candidates, *closed, *others[:MAX_LISTED]),
        unlisted=max(0, len(others) - MAX_LISTED),
        outside=_outside(state, plan, model, guidance.placements),
        node=status.node if status else "",
    )


def _route(plan: SitePlan, status: NodeStatus | None, model: str) -> ModelRoute:
    """The route that the site's gateway makes of what its node reported."""
    if status is None:
        return route_table(plan, frozenset(), {}, None, 0.0).models[model]
    ready = frozenset(item.model for item in status.models if item.state == "ready")
    demand = status.demand.get(model)
    payload_bytes = {model: demand.request_bytes + demand.answer_bytes} if demand else {}
    table = route_table(plan, ready, _observations(status), None, 0.0, status.node, payload_bytes=payload_bytes)
    return table.models[model]


def _candidates(
    plan: SitePlan, status: NodeStatus | None, route: ModelRoute, model: str, load_s: float
) -> list[PlaceExplanation]:
    """The places of ``route``, the cheapest first, with the shares in force."""
    expected_s = {share.site: share.expected_s for share in plan.routes.get(model, ())}
    shares = _shares_in_force(status, route, model)
    return [
        _candidate(place, shares.get(place.site, 0), expected_s.get(place.site, 0.0), load_s)
        for place in _by_cost(route)
    ]


def _observations(status: NodeStatus) -> dict[str, Observation]:
    """What the node measured, on a clock where the moment of its report is 0."""
    seen = {peer.site: Observation(-peer.age_s, peer.reachable, peer.round_trip_s, peer.load) for peer in status.peers}
    seen[status.site] = Observation(0.0, reachable=True, load=status.load)
    return seen


def _shares_in_force(status: NodeStatus | None, route: ModelRoute, model: str) -> Mapping[str, int]:
    shares = status.routes.get(model, ()) if status else route.shares
    return {share.order[0]: share.percent for share in shares}


def _by_cost(route: ModelRoute) -> list[PlaceCost]:
    return sorted(route.places, key=lambda place: (place.state != "ready", place.terms.total_s, place.site))


def _candidate(place: PlaceCost, share_percent: int, expected_s: float, load_s: float) -> PlaceExplanation:
    terms = replace(place.terms, cold_s=load_s) if place.state == "not_ready" else place.terms
    standing: Standing = ("serving" if share_percent else "standby") if place.state == "ready" else place.state
    return PlaceExplanation(
        site=place.site,
        standing=standing,
        share_percent=share_percent,
        base_percent=None if place.base is None else round(100.0 * place.base, 2),
        expected_ms=_ms(expected_s) if expected_s else None,
        total_ms=_ms(terms.total_s),
        round_trip_ms=_ms(terms.round_trip_s),
        transfer_ms=_ms(terms.transfer_s),
        wait_ms=_ms(terms.wait_s),
        service_ms=_ms(terms.service_s),
        cold_ms=_ms(terms.cold_s),
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000.0, 3)


def _refused(state: DesiredState, plan: SitePlan, model: str, chosen: Chosen) -> dict[str, str]:
    """Sites that a deployment of ``model`` asks for and rules close: to all requests, or to those from here."""
    grounds = grounds_of(state)
    found: dict[str, tuple[str, ...]] = {}
    barred: dict[str, str] = {}
    for deployment in state.deployments:
        if deployment.spec.model == model:
            where = placed(deployment, grounds, chosen)
            found |= {name: refusals(plan.residency, model, plan.site, grounds.sites[name]) for name in where.sites}
            found |= where.refused
            barred |= where.barred
    return barred | {name: _rule(policies) for name, policies in found.items() if policies}


def _outside(state: DesiredState, plan: SitePlan, model: str, chosen: Chosen) -> tuple[str, ...]:
    """Sites that hold ``model`` by ``plan`` although the placement or a rule leaves them out."""
    grounds = grounds_of(state)
    mine = [deployment for deployment in state.deployments if deployment.spec.model == model]
    there = {name for deployment in mine for name in placed(deployment, grounds, chosen).open}
    holding = {peer.site.name for peer in plan.peers if any(served.model == model for served in peer.models)}
    if any(planned.model == model for planned in plan.models):
        holding.add(plan.site.name)
    return tuple(sorted(holding - there))


def _rule(policies: tuple[str, ...]) -> str:
    return ", ".join(f"policy/{name}" for name in policies)


def _absence(plan: SitePlan, model: str, site: str) -> str:
    """Why a site that no policy refuses is no candidate."""
    planned_here = site == plan.site.name and any(planned.model == model for planned in plan.models)
    holds = any(peer.site.name == site and any(m.model == model for m in peer.models) for peer in plan.peers)
    if planned_here:
        return "its engine does not serve the model yet"
    if holds:
        return "its gateway has not reported an address yet"
    return "the deployment does not place the model there"
