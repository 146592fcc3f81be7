"""The site plan as agents of release 0.2.0 read it: its structs, field by field, as that release had them.

They refuse what they do not know. Never changed: whoever publishes for such an agent must keep to it.
"""

import msgspec

SCHEMA = "nearcast.dev/site-plan/v1alpha1"


class Old(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all structs of that release share."""


class SiteFacts(Old, frozen=True, kw_only=True):
    name: str
    tier: str
    country: str
    jurisdictions: tuple[str, ...] = ()


class PlannedModel(Old, frozen=True, kw_only=True):
    model: str
    version: str
    release: str
    deployment: str
    objective: str = "interactive"


class ServedModel(Old, frozen=True, kw_only=True):
    model: str
    version: str


class Peer(Old, frozen=True, kw_only=True):
    site: SiteFacts
    addresses: tuple[str, ...]
    server_name: str
    round_trip_s: float
    models: tuple[ServedModel, ...] = ()
    nodes: tuple[str, ...] = ()


class SiteNode(Old, frozen=True, kw_only=True):
    name: str
    address: str = ""
    draining: bool = False


class ResidencyRule(Old, frozen=True, kw_only=True):
    policy: str
    models: tuple[str, ...] = ()
    origin_sites: tuple[str, ...] = ()
    origin_countries: tuple[str, ...] = ()
    origin_jurisdictions: tuple[str, ...] = ()
    allow_sites: tuple[str, ...] = ()
    allow_countries: tuple[str, ...] = ()
    allow_jurisdictions: tuple[str, ...] = ()


class SitePlan(Old, frozen=True, kw_only=True):
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
    emulated_round_trip_s: dict[str, float] = {}
    schema: str = SCHEMA


_decoder = msgspec.json.Decoder(SitePlan, strict=True)


def read(data: bytes) -> SitePlan:
    """The plan in ``data``; raises `msgspec.ValidationError` as an agent of 0.2.0 would."""
    plan = _decoder.decode(data)
    if plan.schema != SCHEMA:
        raise msgspec.ValidationError(f"expected schema {SCHEMA!r}, got {plan.schema!r}")
    return plan
