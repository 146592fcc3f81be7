"""What users write: the kinds of ``nearcast.dev/v1alpha1``. Strict, frozen; unknown fields are refused.

A resource is ``apiVersion``, ``kind``, ``metadata``, ``spec``, and a ``status`` that only the control plane writes.
Field names are camelCase in manifests and snake_case here.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from nearcast.resources.jurisdiction import GROUPS, groups_of
from nearcast.resources.names import NAME_PATTERN, NAME_RULE, SITE_PATTERN, VERSION_PATTERN
from nearcast.resources.plan import Objective, ResidencyRule, SiteFacts, Tier
from nearcast.resources.revision import revision_of

API_VERSION: Final = "nearcast.dev/v1alpha1"

Name = Annotated[str, Field(pattern=NAME_PATTERN, description=NAME_RULE)]
SiteRef = Annotated[str, Field(pattern=SITE_PATTERN, description="name of a Site")]
VersionRef = Annotated[str, Field(pattern=VERSION_PATTERN, description="version of a model; quote it in YAML")]
Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$", description="ISO 3166-1 alpha-2 code of a country, upper case")]
Group = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9-]{1,31}$", description="group of states, such as EU")]
LabelValue = Annotated[str, Field(max_length=256)]
Tenant = Annotated[str, Field(pattern=NAME_PATTERN, description=NAME_RULE)]
Duration = Annotated[
    str, Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,3})?(ms|s)$", description="a duration such as 50ms or 1.5s")
]

TARGET_S: Final[dict[Objective, float]] = {"realtime": 0.05, "interactive": 0.2, "batch": 5.0}
"""The time to answer that each objective stands for, where a deployment names no ``latencyTarget``."""


LEAST_TARGET_S: Final = 0.001
MOST_TARGET_S: Final = 3600.0


def seconds_of(duration: str) -> float:
    """The seconds that a :data:`Duration` says."""
    return float(duration[:-2]) / 1000.0 if duration.endswith("ms") else float(duration[:-1])


class Part(BaseModel):
    """Shared rules of every part of a resource: frozen, strict, camelCase outside."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel, populate_by_name=True)


class Metadata(Part):
    """Who the resource is."""

    name: Name
    labels: dict[str, LabelValue] = Field(default_factory=dict, description="free labels for selectors and people")


class Location(Part):
    """Where on earth, in degrees (WGS 84)."""

    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)


class Emulate(Part):
    """Conditions that a fleet on one machine pretends to have. Never set this on a real site."""

    round_trip_ms: dict[SiteRef, Annotated[float, Field(ge=0, le=10_000)]] = Field(
        default_factory=dict,
        description="other site -> round trip in milliseconds, added to its requests (either side may name the pair)",
    )


class Link(Part):
    """The site's way to the rest of the fleet."""

    mbps: float = Field(gt=0, le=10_000_000, description="rate in each direction, in megabits per second")


class Rates(Part):
    """What work at a site takes besides time. A deployment's weights turn it into seconds."""

    price: float = Field(default=0.0, ge=0, le=1_000_000, description="of one worker-hour, in any unit of money")
    energy: float = Field(default=0.0, ge=0, le=1_000_000, description="watts that a worker takes while it computes")
    carbon: float = Field(default=0.0, ge=0, le=10_000, description="grams of CO2 per kilowatt-hour")


class SiteSpec(Part):
    """One location: a PoP, a store, a factory, a cloud region."""

    country: Country
    tier: Tier = Field(default="edge", description="what kind of place it is, for placement by tier")
    location: Location | None = None
    jurisdictions: tuple[Group, ...] = Field(
        default=(), strict=False, description="groups beyond those that follow from the country (EU and EEA do)"
    )
    link: Link | None = Field(default=None, description="without it, payloads are taken to cost no time")
    tenants: tuple[Tenant, ...] = Field(
        default=(), strict=False, description="whose deployments may run here; empty: everybody's"
    )
    rates: Rates = Rates()
    emulate: Emulate | None = None

    @field_validator("jurisdictions")
    @classmethod
    def _only_own_groups(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        for group in groups:
            if group in GROUPS:
                raise ValueError(f"{group} follows from the country and cannot be claimed: leave it out")
        return groups


class ModelSpec(Part):
    """A named model. Its releases come from ``nearcast model push``."""

    task: str | None = Field(default=None, max_length=64, description="Hugging Face pipeline tag, or tensor")
    description: str = Field(default="", max_length=2000, description="for people")
    tiers: tuple[Tier, ...] = Field(
        default=(), strict=False, description="the only tiers that its licence lets it run on; empty: all"
    )


class AutoPlacement(Part):
    """Sites among which the planner chooses, by demand: those that match every field that is given."""

    sites: tuple[SiteRef, ...] | None = Field(default=None, strict=False, min_length=1, description="only these")
    tiers: tuple[Tier, ...] | None = Field(default=None, strict=False, min_length=1, description="only of these tiers")
    countries: tuple[Country, ...] | None = Field(
        default=None, strict=False, min_length=1, description="only in these countries"
    )
    min_sites: int = Field(default=1, ge=1, le=100_000, description="on so many sites, demand or not")
    max_sites: int | None = Field(default=None, ge=1, le=100_000, description="on so many sites at most")

    @model_validator(mode="after")
    def _bounds(self) -> "AutoPlacement":
        if self.max_sites is not None and self.max_sites < self.min_sites:
            raise ValueError(
                f"expected maxSites to be minSites ({self.min_sites}) or more; got maxSites {self.max_sites}"
            )
        if self.sites is not None:
            _once(self.sites)
            if self.min_sites > len(self.sites):
                raise ValueError(f"expected minSites of at most the {len(self.sites)} sites; got {self.min_sites}")
        return self

    def matches(self, site: SiteFacts) -> bool:
        """Whether the planner may choose ``site``."""
        return (
            (self.sites is None or site.name in self.sites)
            and (self.tiers is None or site.tier in self.tiers)
            and (self.countries is None or site.country in self.countries)
        )


class Placement(Part):
    """Where a deployment runs: exactly one of the fields."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    sites: tuple[SiteRef, ...] | None = Field(default=None, strict=False, min_length=1, description="by name")
    everywhere: Literal[True] | None = Field(default=None, description="on every site")
    tiers: tuple[Tier, ...] | None = Field(
        default=None, strict=False, min_length=1, description="on all sites of a tier"
    )
    auto: AutoPlacement | None = Field(default=None, description="where the planner finds best; {} is: anywhere")

    @model_validator(mode="after")
    def _exactly_one(self) -> "Placement":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of {', '.join(type(self).model_fields)}; got {', '.join(given) or 'none'}"
            )
        if self.sites is not None:
            _once(self.sites)
        return self

    @property
    def named_sites(self) -> tuple[str, ...]:
        """The sites that it names, pinned or to choose from."""
        return self.sites or (self.auto.sites if self.auto is not None else None) or ()


def _once(sites: tuple[str, ...]) -> None:
    if len(set(sites)) != len(sites):
        raise ValueError(f"a site is named twice: {', '.join(sites)}")


class Weights(Part):
    """How many seconds of waiting are worth as much as one unit of something else. 0: it does not matter."""

    price: float = Field(default=0.0, ge=0, le=1_000_000_000, description="seconds per unit of money")
    energy: float = Field(default=0.0, ge=0, le=1_000_000_000, description="seconds per joule")
    carbon: float = Field(default=0.0, ge=0, le=1_000_000_000, description="seconds per gram of CO2")


class DeploymentSpec(Part):
    """Which version of a model runs where, and how soon answers are wanted."""

    model: Name
    version: VersionRef
    placement: Placement
    objective: Objective = Field(default="interactive", description="latency class")
    latency_target: Duration | None = Field(
        default=None,
        description="a duration such as 50ms or 1.5s, within which answers are wanted; by default that of the "
        f"objective: realtime {TARGET_S['realtime'] * 1000:.0f}ms, interactive {TARGET_S['interactive'] * 1000:.0f}ms, "
        f"batch {TARGET_S['batch']:.0f}s. With one, `realtime` requests that are much too late everywhere are refused",
    )
    weights: Weights = Weights()
    tenant: Tenant | None = Field(default=None, description="whose it is; sites may be open to some tenants only")

    @field_validator("latency_target")
    @classmethod
    def _is_a_time(cls, text: str | None) -> str | None:
        if text is not None and not LEAST_TARGET_S <= seconds_of(text) <= MOST_TARGET_S:
            raise ValueError(
                f"expected a duration from {LEAST_TARGET_S * 1000:.0f}ms to {MOST_TARGET_S:.0f}s; got {text}"
            )
        return text

    @property
    def target_s(self) -> float:
        """Time to answer that is wanted, in seconds."""
        return TARGET_S[self.objective] if self.latency_target is None else seconds_of(self.latency_target)


class PolicyMatch(Part):
    """Which requests a policy is for. What is left out matches all."""

    models: tuple[Name, ...] = Field(default=(), strict=False)
    origin_sites: tuple[SiteRef, ...] = Field(default=(), strict=False, description="sites at which requests enter")
    origin_countries: tuple[Country, ...] = Field(default=(), strict=False)
    origin_jurisdictions: tuple[Group, ...] = Field(default=(), strict=False)


class Residency(Part):
    """Where matching requests may be computed: a place is allowed when one of the lists names it."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    sites: tuple[SiteRef, ...] = Field(default=(), strict=False)
    countries: tuple[Country, ...] = Field(default=(), strict=False)
    jurisdictions: tuple[Group, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _names_something(self) -> "Residency":
        if not (self.sites or self.countries or self.jurisdictions):
            raise ValueError(
                "expected at least one of sites, countries, jurisdictions; got none (nothing would be allowed)"
            )
        return self


class PolicySpec(Part):
    """What may happen. Several policies bind together: a place must be allowed by each that matches."""

    match: PolicyMatch = PolicyMatch()
    residency: Residency


def residency_rule(policy: str, match: PolicyMatch, residency: Residency) -> ResidencyRule:
    """The compiled rule of the policy called ``policy``."""
    return ResidencyRule(
        policy=policy,
        models=match.models,
        origin_sites=match.origin_sites,
        origin_countries=match.origin_countries,
        origin_jurisdictions=match.origin_jurisdictions,
        allow_sites=residency.sites,
        allow_countries=residency.countries,
        allow_jurisdictions=residency.jurisdictions,
    )


class Condition(Part):
    """One aspect of a resource's state, as Kubernetes conditions go."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    last_transition_time: str = Field(description="RFC 3339, UTC")


class Status(Part):
    """What the control plane observes of a resource. Written by it alone."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = Field(default=(), strict=False)
    details: dict[str, Any] = Field(default_factory=dict, description="facts of the kind: nodes, versions, sites")


class Resource(Part):
    """What all kinds share."""

    api_version: Literal["nearcast.dev/v1alpha1"]
    metadata: Metadata
    status: Status | None = Field(default=None, description="written by the control plane; ignored by apply")

    @property
    def name(self) -> str:
        """``metadata.name``."""
        return self.metadata.name


class Site(Resource):
    """One location."""

    kind: Literal["Site"]
    spec: SiteSpec

    @model_validator(mode="after")
    def _dns_name(self) -> "Site":
        if "." in self.metadata.name:
            raise ValueError(f"a site's name becomes a DNS label: expected no '.', got {self.metadata.name!r}")
        return self

    def facts(self) -> SiteFacts:
        """What rules and routing need to know of this site."""
        groups = sorted({*self.spec.jurisdictions, *groups_of(self.spec.country)})
        return SiteFacts(name=self.name, tier=self.spec.tier, country=self.spec.country, jurisdictions=tuple(groups))


class Model(Resource):
    """A named model."""

    kind: Literal["Model"]
    spec: ModelSpec = ModelSpec()


class Deployment(Resource):
    """A model at work."""

    kind: Literal["Deployment"]
    spec: DeploymentSpec


class Policy(Resource):
    """A rule."""

    kind: Literal["Policy"]
    spec: PolicySpec

    def rule(self) -> ResidencyRule:
        """The compiled residency rule."""
        return residency_rule(self.name, self.spec.match, self.spec.residency)


AnyResource = Site | Model | Deployment | Policy
KINDS: Final[dict[str, type[AnyResource]]] = {"Site": Site, "Model": Model, "Deployment": Deployment, "Policy": Policy}
PLURALS: Final[dict[str, str]] = {"Site": "sites", "Model": "models", "Deployment": "deployments", "Policy": "policies"}


def kind_named(word: str) -> str | None:
    """The kind that ``word`` means (``site``, ``sites``, ``Site``), or None."""
    wanted = word.lower()
    return next((kind for kind, plural in PLURALS.items() if wanted in {kind.lower(), plural}), None)


def to_document(resource: AnyResource, *, with_status: bool = True) -> dict[str, Any]:
    """The resource as it stands in a manifest: JSON-able, camelCase, defaults left out."""
    skip = None if with_status else {"status"}
    document: dict[str, Any] = {"apiVersion": API_VERSION, "kind": resource.kind}
    document |= resource.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=skip)
    return document


def revision_of_resource(resource: AnyResource) -> str:
    """Content hash of what the user wrote: the same manifest has the same revision, whatever its status."""
    return revision_of(to_document(resource, with_status=False))
