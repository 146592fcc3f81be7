"""Site plans out of desired state: what each site shall run, and whom it may ask.

Decides: where a deployment runs (its placement, less the sites that residency closes to everybody), which peers a
site gets (near ones, some for every model, and scouts, which it only measures), and what stays until its successor
stands (make before break). Does not decide shares (`routes`), nor when a plan is published.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from nearcast.planning.fleet.guidance import UNGUIDED, Guidance
from nearcast.planning.fleet.problem import Floats
from nearcast.planning.fleet.ways import expected
from nearcast.planning.grounds import Grounds, Placed, grounds_of, placed
from nearcast.planning.nearness import told
from nearcast.planning.network.scouts import SCOUTS
from nearcast.planning.peers import chosen_peers
from nearcast.planning.residency import refusals
from nearcast.resources.kinds import Deployment, Site
from nearcast.resources.plan import (
    HoldingRule,
    Peer,
    PlannedModel,
    PlannedShare,
    ResidencyRule,
    ServedModel,
    SiteFacts,
    SiteNode,
    SitePlan,
    server_name,
)
from nearcast.resources.revision import revision_of
from nearcast.resources.state import DesiredState

SHARE_DIGITS: Final = 4


@dataclass(frozen=True, slots=True)
class FleetFacts:
    """What the control plane knows besides what users asked for.

    Attributes:
        releases: (model, version) -> digest of its signed manifest.
        addresses: site -> ``host:port`` of the peer listeners of its nodes that may be asked.
        serving: site -> the (model, version) pairs that it reported as ready, kept across restarts.
        connected: sites whose reports are recent; a successor there is waited for, one elsewhere is not.
        revoked_nodes: SPIFFE ids that are no longer honoured.
        nodes: site -> all of its nodes, those that drain among them.
        scouts: site -> other sites that it shall measure, for the map of the network only.
        older: sites with a node of a release before 0.3, which refuses plans with fields that it does not know.
    """

    releases: Mapping[tuple[str, str], str] = field(default_factory=dict)
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    serving: Mapping[str, frozenset[tuple[str, str]]] = field(default_factory=dict)
    connected: frozenset[str] = frozenset()
    revoked_nodes: tuple[str, ...] = ()
    nodes: Mapping[str, tuple[SiteNode, ...]] = field(default_factory=dict)
    scouts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    older: frozenset[str] = frozenset()


def _refusing(
    rules: tuple[ResidencyRule, ...],
    model: str,
    origin: SiteFacts,
    places: Iterable[str],
    known: Mapping[str, SiteFacts],
) -> tuple[str, ...]:
    """The policies that refuse any of ``places`` to requests for ``model`` that enter at ``origin``."""
    return tuple(sorted({policy for place in places for policy in refusals(rules, model, origin, known[place])}))


def site_plans(
    state: DesiredState, facts: FleetFacts, fleet: str, version: int, guidance: Guidance = UNGUIDED
) -> dict[str, SitePlan]:
    """The plan of every site.

    Args:
        state: what users asked for.
        facts: what is known.
        fleet: trust domain.
        version: fleet-wide version that the plans carry; it is not part of their revision, so a caller compares
            revisions and publishes only the plans that changed.
        guidance: what was decided for the fleet as a whole: sites of ``auto`` placements, and shares.

    Returns:
        Site -> plan, each with ``revision`` set. Deterministic.
    """
    drawn = _Fleet.of(state, facts, fleet, guidance)
    plans = {}
    for name in drawn.sites:
        plan = drawn.plan(name)
        plans[name] = msgspec.structs.replace(plan, version=version, revision=revision_of(plan))
    return plans


@dataclass(frozen=True, slots=True)
class _Fleet:
    """What plans rest on, worked out once for the whole fleet, since each plan names what others say.

    Attributes:
        facts, domain: as given.
        models, served: site -> what it shall serve, and how its peers are told of it.
        closed: model -> the sites that rules close to a deployment of it which may run nowhere.
        routes: site -> its part of the guidance's shares.
        peers, scouted: site -> its peers, and those among them that it only measures.
        callers: site -> the sites that have it as a peer.
        index, round_trip_s: site -> row of the expected round trips in seconds, float64[S, S].
    """

    facts: FleetFacts
    domain: str
    sites: Mapping[str, Site]
    grounds: Grounds
    models: Mapping[str, tuple[PlannedModel, ...]]
    served: Mapping[str, tuple[ServedModel, ...]]
    closed: Mapping[str, Mapping[str, tuple[str, ...]]]
    routes: Mapping[str, dict[str, tuple[PlannedShare, ...]]]
    peers: Mapping[str, tuple[str, ...]]
    scouted: Mapping[str, set[str]]
    callers: Mapping[str, list[str]]
    index: Mapping[str, int]
    round_trip_s: Floats
    catalog: tuple[str, ...]
    targets_s: dict[str, float]
    urgent: tuple[str, ...]
    emulated: Mapping[str, dict[str, float]]
    holding: Mapping[str, HoldingRule]

    @classmethod
    def of(cls, state: DesiredState, facts: FleetFacts, domain: str, guidance: Guidance) -> "_Fleet":
        sites = {site.name: site for site in state.sites}
        grounds = grounds_of(state)
        placements = {item.name: placed(item, grounds, guidance.placements) for item in state.deployments}
        models = _models_by_site(state, grounds, facts, placements)
        routes = {n: {} if n in facts.older else _routes(n, models, grounds, facts, guidance) for n in sites}
        round_trip_s, index = expected(state.sites), {name: n for n, name in enumerate(grounds.sites)}
        needed = {name: (_shared_with(routes[name]) & grounds.sites.keys()) - {name} for name in sites}
        asked = chosen_peers(grounds, models, told(round_trip_s, index, guidance.near), needed)
        scouted = {name: _scouted(name, grounds.sites, facts) - {*asked[name]} for name in sites}
        peers = {name: tuple(sorted({*asked[name], *scouted[name]})) for name in sites}
        return cls(
            facts=facts,
            domain=domain,
            sites=sites,
            grounds=grounds,
            models=models,
            served={name: _served(models[name]) for name in sites},
            closed=_closed(state, placements),
            routes=routes,
            peers=peers,
            scouted=scouted,
            callers=_callers(peers, facts),
            index=index,
            round_trip_s=round_trip_s,
            catalog=tuple(sorted({item.spec.model for item in state.deployments})),
            targets_s=_targets_s(state),
            urgent=_urgent(state),
            emulated=_emulated(sites),
            holding=_holding(state, grounds),
        )

    def plan(self, name: str) -> SitePlan:
        """The plan of one site, without version and revision; one that nodes of older releases read has less in it."""
        known, rules, is_older = self.grounds.sites, self.grounds.rules, name in self.facts.older
        plan = SitePlan(
            fleet=self.domain,
            site=known[name],
            version=0,
            revision="",
            models=self.models[name],
            peers=tuple(self._peer(name, other) for other in self.peers[name]),
            callers=tuple(known[caller] for caller in self.callers[name]),
            nodes=self.facts.nodes.get(name, ()),
            residency=rules,
            catalog=self.catalog,
            closed={
                model: _refusing(rules, model, known[name], refused, known) for model, refused in self.closed.items()
            },
            revoked_nodes=self.facts.revoked_nodes,
            routes=self.routes[name],
            targets_s={} if is_older else self.targets_s,
            urgent=() if is_older else self.urgent,
            emulated_round_trip_s=dict(sorted(self.emulated[name].items())),
        )
        return plan if is_older else _with_rules(plan, self.holding, self.grounds)

    def _peer(self, name: str, other: str) -> Peer:
        """``other``, as the plan of ``name`` tells of it."""
        asked = (node for node in self.facts.nodes.get(other, ()) if node.address and not node.draining)
        peer = Peer(
            site=self.grounds.sites[other],
            nodes=tuple(sorted(node.name for node in asked)),
            addresses=tuple(sorted(self.facts.addresses.get(other, ()))),
            server_name=server_name(self.domain, other),
            round_trip_s=float(self.round_trip_s[self.index[name], self.index[other]]),
            models=() if other in self.scouted[name] else self.served[other],
        )
        rate = 0.0 if name in self.facts.older else _rate(self.sites[name], self.sites[other])
        # A number is left out of the bytes only where it is the very default, and older agents know nothing of rates.
        return msgspec.structs.replace(peer, bytes_per_s=rate) if rate else peer


def _closed(state: DesiredState, placements: Mapping[str, Placed]) -> dict[str, Mapping[str, tuple[str, ...]]]:
    """Model -> the sites that rules close to a deployment of it which may run nowhere."""
    return {
        item.spec.model: where.refused
        for item in state.deployments
        if (where := placements[item.name]).refused and not where.open
    }


def _holding(state: DesiredState, grounds: Grounds) -> dict[str, HoldingRule]:
    """Model -> its tenant and licence; models that have neither are left out."""
    rules = {deployment.spec.model: grounds.rule(deployment) for deployment in state.deployments}
    return {model: rule for model, rule in sorted(rules.items()) if rule != HoldingRule()}


def _with_rules(plan: SitePlan, holding: Mapping[str, HoldingRule], grounds: Grounds) -> SitePlan:
    """``plan`` with what its site needs to hold places against tenancy and licences by itself. Whose a deployment is
    matters only where a site of the plan takes some tenants only."""
    named = sorted({plan.site.name, *(peer.site.name for peer in plan.peers)})
    tenants = {name: grounds.tenants[name] for name in named if name in grounds.tenants}
    rules = holding if tenants else {model: HoldingRule(tiers=rule.tiers) for model, rule in holding.items()}
    rules = {model: rule for model, rule in rules.items() if rule != HoldingRule()}
    return msgspec.structs.replace(plan, holding=rules, tenants=tenants)


def _targets_s(state: DesiredState) -> dict[str, float]:
    """Model -> the soonest answer that a deployment of it asks for by name, in seconds."""
    found: dict[str, float] = {}
    for spec in (deployment.spec for deployment in state.deployments):
        if spec.latency_target is not None:
            found[spec.model] = min(spec.target_s, found.get(spec.model, spec.target_s))
    return dict(sorted(found.items()))


def _urgent(state: DesiredState) -> tuple[str, ...]:
    """Models of `realtime` deployments that name a target."""
    specs = (deployment.spec for deployment in state.deployments)
    return tuple(sorted({spec.model for spec in specs if spec.latency_target and spec.objective == "realtime"}))


def _callers(peers: Mapping[str, tuple[str, ...]], facts: FleetFacts) -> dict[str, list[str]]:
    """Site -> the sites that have it as a peer; itself too where it has several nodes."""
    found: dict[str, set[str]] = {name: {name} if len(facts.nodes.get(name, ())) > 1 else set() for name in peers}
    for name, theirs in peers.items():
        for other in theirs:
            found[other].add(name)
    return {name: sorted(callers) for name, callers in found.items()}


def _models_by_site(
    state: DesiredState, grounds: Grounds, facts: FleetFacts, placements: Mapping[str, Placed]
) -> dict[str, tuple[PlannedModel, ...]]:
    """Site -> what it shall serve: its deployments, and what it must not drop before the successor stands elsewhere."""
    planned: dict[str, list[PlannedModel]] = {name: [] for name in grounds.sites}
    for deployment in state.deployments:
        spec = deployment.spec
        digest = facts.releases.get((spec.model, spec.version))
        where = placements[deployment.name]
        if digest is not None:
            for name in where.sites:
                planned[name].append(_planned(deployment, spec.version, digest))
        successors = [name for name in where.sites if name in facts.connected]
        standing = digest is not None and bool(successors)
        if standing and all((spec.model, spec.version) in facts.serving.get(name, ()) for name in successors):
            continue
        for name, version in _incumbents(deployment, where, grounds, facts):
            planned[name].append(_planned(deployment, version, facts.releases[spec.model, version]))
    return {name: tuple(sorted(models, key=lambda planned: planned.model)) for name, models in planned.items()}


def _incumbents(deployment: Deployment, where: Placed, grounds: Grounds, facts: FleetFacts) -> list[tuple[str, str]]:
    """(site, version) that serve the model now, are not placed any more, and are still allowed to."""
    model = deployment.spec.model
    placed_now = set(where.sites) if (model, deployment.spec.version) in facts.releases else set()
    found = []
    for name in sorted(facts.serving.keys() & grounds.sites.keys() - placed_now):
        versions = sorted(v for m, v in facts.serving[name] if m == model and (m, v) in facts.releases)
        if versions and grounds.is_open(deployment, name):
            found.append((name, versions[-1]))
    return found


def _routes(
    name: str, models: Mapping[str, tuple[PlannedModel, ...]], grounds: Grounds, facts: FleetFacts, guidance: Guidance
) -> dict[str, tuple[PlannedShare, ...]]:
    """The guidance's shares of one site, less the places that do not hold the model in these plans, that a policy
    refuses, or that are not connected; a model of which nothing is left is routed by cost alone."""
    found = {}
    for model, shares in sorted(guidance.routes.get(name, {}).items()):
        kept = [
            share
            for share in shares
            if share.site in facts.connected
            and any(planned.model == model for planned in models.get(share.site, ()))
            and not refusals(grounds.rules, model, grounds.sites[name], grounds.sites[share.site])
        ]
        total = sum(share.share for share in kept)
        if total > 0.0:
            found[model] = tuple(
                msgspec.structs.replace(share, share=round(share.share / total, SHARE_DIGITS)) for share in kept
            )
    return found


def _shared_with(routes: Mapping[str, tuple[PlannedShare, ...]]) -> frozenset[str]:
    return frozenset(share.site for shares in routes.values() for share in shares)


def _planned(deployment: Deployment, version: str, digest: str) -> PlannedModel:
    spec = deployment.spec
    return PlannedModel(
        model=spec.model, version=version, release=digest, deployment=deployment.name, objective=spec.objective
    )


def _emulated(sites: Mapping[str, Site]) -> dict[str, dict[str, float]]:
    """Site -> other site -> emulated round trip in seconds; either site of a pair may name it, the own one wins."""
    named = {name: site.spec.emulate.round_trip_ms for name, site in sites.items() if site.spec.emulate}
    found: dict[str, dict[str, float]] = {name: {} for name in sites}
    for name, theirs in named.items():
        for other, ms in theirs.items():
            if other in sites and other != name:
                found[other][name] = ms / 1000.0
    for name, theirs in named.items():
        found[name] |= {other: ms / 1000.0 for other, ms in theirs.items() if other in sites and other != name}
    return found


def _scouted(name: str, known: Mapping[str, SiteFacts], facts: FleetFacts) -> set[str]:
    """The scouts of ``name`` that are there; at most :data:`SCOUTS`, whatever the facts say."""
    return {other for other in facts.scouts.get(name, ())[:SCOUTS] if other in known and other != name}


def _rate(site: Site, other: Site) -> float:
    """Bytes per second between two sites: the lesser of their links; 0 where neither has one."""
    return min((link.mbps * 1e6 / 8 for link in (site.spec.link, other.spec.link) if link), default=0.0)


def _served(models: tuple[PlannedModel, ...]) -> tuple[ServedModel, ...]:
    found = {ServedModel(model=planned.model, version=planned.version) for planned in models}
    return tuple(sorted(found, key=lambda served: (served.model, served.version)))
