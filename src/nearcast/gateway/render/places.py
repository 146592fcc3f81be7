"""Which places may answer for each model, as the gateway will have them. The last word on the rules before Envoy.

The route table proposes; here every site of every order is held against the policies, tenants, licences, the plan's
peers and the local sockets once more, and what does not pass is left out. What is left out for a policy is never put
back for another reason: a model without an allowed place is refused, not sent elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from nearcast.gateway.render.inputs import GatewayInputs
from nearcast.planning.holding import barred
from nearcast.planning.residency import refusals
from nearcast.planning.routes import ModelRoute
from nearcast.resources.plan import Peer, SiteFacts
from nearcast.resources.status import Share
from nearcast.resources.wire import model_at

PATIENCE_STEPS_S: Final = (15, 30, 60, 120)
"""After so long without a byte the next place is asked as well. Coarse, so that routes change seldom for it."""
PATIENCE_RATIO: Final = 10
"""How many times the expected time an answer may take before that: no honest one shall be asked for twice."""
MAX_NODES_TRIED: Final = 2
"""Nodes of one peer site that a request tries before it goes to another site."""


@dataclass(frozen=True, slots=True)
class Routed:
    """Requests go to ``shares``: each order holds usable, allowed places, each once; percents are positive.

    ``longest_ms``: of each share, how long a request may wait at places of its order; those left out take whatever they
    have room for.
    """

    shares: tuple[Share, ...]
    longest_ms: tuple[tuple[tuple[str, int], ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """Policies leave no place."""

    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NotReady:
    """A place may answer, but none can now."""


Decision = Routed | Refused | NotReady


def decisions(inputs: GatewayInputs) -> dict[str, Decision]:
    """The decision for every model that may be asked for here, by name in order."""
    plan = inputs.plan
    names = {*plan.catalog, *(planned.model for planned in plan.models), *inputs.routes.models}
    others = inputs.others()
    return {name: _decision(inputs, name, others) for name in sorted(names)}


def _decision(inputs: GatewayInputs, model: str, others: Mapping[str, Peer]) -> Decision:
    route = inputs.routes.models.get(model)
    merged: dict[tuple[str, ...], int] = {}
    longest_ms: dict[tuple[str, ...], tuple[tuple[str, int], ...]] = {}
    for number, share in enumerate(route.shares if route else ()):
        order = _usable(inputs, model, share.order, others)
        if order and share.percent > 0:
            merged[order] = merged.get(order, 0) + share.percent
            longest_ms.setdefault(order, _longest_ms(route, number, order))
    if merged:
        shares = tuple(Share(percent=percent, order=order) for order, percent in merged.items())
        return Routed(shares, tuple(longest_ms[order] for order in merged))
    holders = _holders(inputs, model)
    verdicts = [refusals(inputs.plan.residency, model, inputs.plan.site, site) for site in holders]
    if holders and all(verdicts):
        return Refused(tuple(sorted({policy for verdict in verdicts for policy in verdict})))
    if not holders and route and route.policies:
        return Refused(route.policies)
    if not holders and model in inputs.plan.closed:
        return Refused(inputs.plan.closed[model])
    return NotReady()


def _longest_ms(route: ModelRoute | None, number: int, order: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """How long requests of a share may wait at places of ``order``, what is usable of the share's own. If its last
    place was left out, the one before it is the last, and takes what it has room for."""
    if route is None or number >= len(route.longest_ms):
        return ()
    share = route.shares[number]
    waits_ms = dict(zip(share.order, route.longest_ms[number], strict=False))
    bounded = order if order[-1] == share.order[-1] else order[:-1]
    return tuple((place, waits_ms[place]) for place in bounded if place in waits_ms)


def _usable(inputs: GatewayInputs, model: str, order: tuple[str, ...], others: Mapping[str, Peer]) -> tuple[str, ...]:
    """The places of ``order`` that can be reached and that no rule closes, in that order, each once."""
    own = inputs.plan.site
    usable: list[str] = []
    for name in order:
        if name == own.name:
            site, reachable = own, inputs.serving(model) is not None
        elif name in others:
            site, reachable = others[name].site, bool(others[name].addresses)
            reachable = reachable and not barred(inputs.plan, model, site)
        else:
            continue
        if reachable and name not in usable and not refusals(inputs.plan.residency, model, own, site):
            usable.append(name)
    return tuple(usable)


def _holders(inputs: GatewayInputs, model: str) -> list[SiteFacts]:
    """Sites that have the model, or shall have it, as far as the plan tells, and may."""
    plan = inputs.plan
    here = inputs.serving(model) is not None or any(planned.model == model for planned in plan.models)
    peers = [peer.site for peer in plan.peers if any(served.model == model for served in peer.models)]
    return [site for site in ([plan.site, *peers] if here else peers) if not barred(plan, model, site)]


def callers_of(inputs: GatewayInputs, model: str) -> tuple[SiteFacts, ...]:
    """Sites that may have ``model`` computed here: callers of the plan whose requests no policy keeps away."""
    plan = inputs.plan
    return tuple(
        caller for caller in plan.callers if not refusals(plan.residency, model, origin=caller, place=plan.site)
    )


def engine_cluster(model: str, version: str) -> str:
    """Name of the cluster of a local model version."""
    return f"engine:{model_at(model, version)}"


def site_cluster(place: str) -> str:
    """Name of the cluster of a peer site, or of a sibling."""
    return f"site:{place}"


def place_cluster(inputs: GatewayInputs, model: str, site: str) -> str:
    """Name of the cluster by which this gateway reaches ``model`` at ``site``, one of a decision's orders."""
    serving = inputs.serving(model)
    if site == inputs.plan.site.name and serving is not None:
        return engine_cluster(model, serving.version)
    return site_cluster(site)


def turn_cluster(inputs: GatewayInputs, model: str, turn: tuple[str, ...]) -> str:
    """Name of the cluster whose attempts go to the places of ``turn`` (:func:`turns`): the place itself where there is
    only one, else a composite.

    The name holds everything that the composite consists of, the local version too, so that a composite never changes:
    another turn is another cluster, and routes move from one to the other.
    """
    if len(set(turn)) == 1:
        return place_cluster(inputs, model, turn[0])
    serving = inputs.serving(model)
    own = inputs.plan.site.name
    counted = ((place, len(list(times))) for place, times in groupby(turn))
    named = (
        (model_at(place, serving.version) if place == own and serving else place, times) for place, times in counted
    )
    return f"order:{model}:{'>'.join(name if times == 1 else f'{name}*{times}' for name, times in named)}"


def patience_s(inputs: GatewayInputs, model: str, shares: tuple[Share, ...]) -> int | None:
    """How long an attempt may be silent before the next place is asked as well (ADR 006); None for as long as it takes.

    It follows from what the slowest place of the orders is expected to take, its queue included. A place that has told
    no times gets the longest.
    """
    asked = {place for share in shares for place in share.order}
    route = inputs.routes.models.get(model)
    known = {place.site: place.terms for place in route.places} if route else {}
    expected_s = PATIENCE_RATIO * max((known[place].total_s for place in asked if place in known), default=0.0)
    least_s = 0 if all(place in known and known[place].is_measured for place in asked) else PATIENCE_STEPS_S[-1]
    return next((step for step in PATIENCE_STEPS_S if step >= expected_s and step >= least_s), None)


def turns(inputs: GatewayInputs, decision: Routed) -> tuple[tuple[str, ...], ...]:
    """Of each share, the place of every attempt: those of its order, then who is asked again when all have been.

    That is the first: places that a request left because of its wait may be all that there is, where those after them
    have just died. And this site itself, if it is another one: it is always reached, so what the client hears at last
    is that queues are full, where that is so, and not that some other place is broken. How many attempts there are is
    said once for all shares, so the last place of a shorter turn is repeated: an attempt beyond the last would fail
    with words of Envoy.
    """
    own = inputs.plan.site.name
    found = []
    for share in decision.shares:
        order, tries = share.order, attempts(inputs, share.order)
        again = (order[0], *(place for place in order[1:] if place == own)) if len(order) > 1 else ()
        found.append((*(place for place in order for _ in range(tries[place])), *again))
    longest = max(map(len, found))
    return tuple((*turn, *(longest - len(turn)) * turn[-1:]) if len(set(turn)) > 1 else turn for turn in found)


def attempts(inputs: GatewayInputs, order: tuple[str, ...]) -> dict[str, int]:
    """How often each place of ``order`` is tried: twice a site of several nodes, so that one of them may be lost."""
    others = inputs.others()
    return {name: min(MAX_NODES_TRIED, max(1, len(others[name].addresses))) if name in others else 1 for name in order}
