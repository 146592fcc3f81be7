"""The site plan: what one site shall run now and whom it may ask, chosen out of releases, signed by the control plane.

A plan holds choices and facts, never bytes to execute. The site applies residency, tenancy and licences to it again
(`planning.residency`, `planning.holding`), so a plan that names a forbidden peer changes nothing. ``version`` rises
fleet-wide; ``revision`` is the content hash of the plan without both, so that a change elsewhere in the fleet is none
here.
"""

from typing import Final, Literal

import msgspec

from nearcast.resources.revision import canonical_json

SCHEMA: Final = "nearcast.dev/site-plan/v1alpha1"

SIBLING_ROUND_TRIP_S: Final = 0.0005
"""Between nodes of one site, until it was measured."""

Objective = Literal["realtime", "interactive", "batch"]
Tier = Literal["device", "edge", "regional", "cloud"]


class SiteFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What rules and routing need to know of a site. ``jurisdictions`` holds the country's groups too (``EU``)."""

    name: str
    tier: Tier
    country: str
    jurisdictions: tuple[str, ...] = ()


class PlannedModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model version that this site shall serve. ``release`` is the digest of its manifest."""

    model: str
    version: str
    release: str
    deployment: str
    objective: Objective = "interactive"


class ServedModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that a peer serves."""

    model: str
    version: str


class Peer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A site that this site may ask.

    Attributes:
        site: its facts.
        addresses: ``host:port`` of the peer listeners of its nodes; empty while none has reported.
        server_name: DNS name that its certificate must carry; also the SNI.
        nodes: names of the nodes behind ``addresses``; only their certificates are honoured there. Empty: any node's.
        round_trip_s: expected round trip, until the agent has measured it.
        models: what it serves.
        bytes_per_s: rate of the link between the sites, the lesser of the two ends; 0 where it is no limit.
    """

    site: SiteFacts
    addresses: tuple[str, ...]
    server_name: str
    round_trip_s: float
    models: tuple[ServedModel, ...] = ()
    nodes: tuple[str, ...] = ()
    bytes_per_s: float = 0.0


class PlannedShare(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The part (0 to 1) of a site's requests for one model that the fleet's plan sends to ``site`` first.

    ``expected_s`` is the time that the plan expects a request to take at the place, queue and service; 0: not known.
    """

    site: str
    share: float
    expected_s: float = 0.0


class SiteNode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node of the site itself. ``address`` is that of its peer listener, empty while it has reported none.

    A node that is ``draining`` serves no model; its gateway goes on answering, through others.
    """

    name: str
    address: str = ""
    draining: bool = False


class ResidencyRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A compiled residency policy: requests for ``models`` that enter at ``origins`` stay where ``allow_*`` says.

    Empty ``models`` means every model; origins are all sites when every ``origin_*`` is empty. A place is allowed
    when one of the ``allow_*`` names it.
    """

    policy: str
    models: tuple[str, ...] = ()
    origin_sites: tuple[str, ...] = ()
    origin_countries: tuple[str, ...] = ()
    origin_jurisdictions: tuple[str, ...] = ()
    allow_sites: tuple[str, ...] = ()
    allow_countries: tuple[str, ...] = ()
    allow_jurisdictions: tuple[str, ...] = ()


class HoldingRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which sites may hold a model, besides residency.

    Attributes:
        tenant: whose deployment it is; a site that takes some tenants only must take this one.
        tiers: the only tiers that its licence allows; empty: all.
    """

    tenant: str = ""
    tiers: tuple[Tier, ...] = ()


class SitePlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one site shall do.

    Defaults are left out of its bytes: an agent that does not know a new field yet refuses only plans that use it.

    Attributes:
        fleet: trust domain of the fleet (``<fleet>`` in ``spiffe://<fleet>/site/<site>/node/<node>``).
        site: the facts of the site that this plan is for; a plan for another site must be refused.
        version: rises fleet-wide with every publication.
        revision: content hash of everything else in the plan; equal revisions ask for the same.
        models: what to serve here.
        peers: whom to ask, at most K of them.
        callers: sites that may ask us; the site itself where it has several nodes.
        nodes: the nodes of the site, all of which share this plan.
        residency: all rules that could matter here.
        holding: model -> its rule; a model that is not named has neither tenant nor licence.
        tenants: site of this plan -> the only tenants whose deployments it takes; who is not named takes everybody's.
        catalog: every model of the fleet that may be asked for here, so that an unknown one is a 404 and one with no
            allowed place a 403.
        closed: model -> the policies that close every site of its placement: a 403 although nobody holds the model.
        revoked_nodes: SPIFFE ids whose certificates are no longer honoured.
        routes: model -> shares of the fleet's plan, which add up to 1: where the site's own second-by-second shares
            start from, and return to. A model that is not named here is routed by cost alone.
        targets_s: model -> how soon its deployment wants answers, where it says so (``latencyTarget``).
        urgent: those of them that are `realtime`: an answer that comes too late is worth nothing.
        emulated_round_trip_s: extra delay for requests from each caller, in seconds: only in fleets on one machine.
    """

    fleet: str
    site: SiteFacts
    version: int
    revision: str
    models: tuple[PlannedModel, ...] = ()
    peers: tuple[Peer, ...] = ()
    callers: tuple[SiteFacts, ...] = ()
    nodes: tuple[SiteNode, ...] = ()
    residency: tuple[ResidencyRule, ...] = ()
    catalog: tuple[str, ...] = ()
    closed: dict[str, tuple[str, ...]] = {}
    revoked_nodes: tuple[str, ...] = ()
    routes: dict[str, tuple[PlannedShare, ...]] = {}
    targets_s: dict[str, float] = {}
    urgent: tuple[str, ...] = ()
    emulated_round_trip_s: dict[str, float] = {}
    holding: dict[str, HoldingRule] = {}
    tenants: dict[str, tuple[str, ...]] = {}
    schema: str = msgspec.field(default_factory=lambda: SCHEMA)  # a value, so that it is never left out


def node_id(fleet: str, site: str, node: str) -> str:
    """The SPIFFE id of a node's certificate."""
    return f"{site_id_prefix(fleet, site)}{node}"


def site_id_prefix(fleet: str, site: str) -> str:
    """What the SPIFFE ids of all nodes of ``site`` begin with."""
    return f"spiffe://{fleet}/site/{site}/node/"


def server_name(fleet: str, site: str) -> str:
    """The DNS name of a site's peer listener: SNI and SAN."""
    return f"{site}.{fleet}"


def place_of(site: str, node: str) -> str:
    """The name of a sibling node among places, beside the names of sites: no site's name has a slash."""
    return f"{site}/{node}"


def siblings(plan: SitePlan, node: str) -> dict[str, Peer]:
    """The other nodes of the site that ``node`` may ask, as peers of one node each, by the names of their places.

    Empty for the empty ``node``: whoever is no node has no siblings.
    """
    models = tuple(ServedModel(model=planned.model, version=planned.version) for planned in plan.models)
    return {
        place_of(plan.site.name, other.name): Peer(
            site=plan.site,
            addresses=(other.address,),
            server_name=server_name(plan.fleet, plan.site.name),
            round_trip_s=SIBLING_ROUND_TRIP_S,
            models=models,
            nodes=(other.name,),
        )
        for other in plan.nodes
        if node and other.name != node and other.address and not other.draining
    }


def drains(plan: SitePlan, node: str) -> bool:
    """Whether ``node`` shall serve no model of its own."""
    return any(other.name == node and other.draining for other in plan.nodes)


def plan_target_path(site: str) -> str:
    """Path of a site's plan among the targets of that site's plan repository."""
    return f"{site}.json"


def encode_plan(plan: SitePlan) -> bytes:
    """The bytes that are signed."""
    return canonical_json(plan)


_decoder = msgspec.json.Decoder(SitePlan, strict=True)


def decode_plan(data: bytes) -> SitePlan:
    """The plan in ``data``.

    Raises:
        msgspec.ValidationError: it is not a plan of :data:`SCHEMA`; the message names the field.
    """
    plan = _decoder.decode(data)
    if plan.schema != SCHEMA:
        raise msgspec.ValidationError(f"expected schema {SCHEMA!r}, got {plan.schema!r}")
    return plan
