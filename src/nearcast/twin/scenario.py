"""What a user writes for the digital twin: a fleet, its network, its models, the demand, and what breaks.

Decides: which scenarios are sound by themselves. Does not decide what they mean (`world`, `workload`), nor where the
data files that they name lie (`files`). Strict: an unknown field is an error with its line, as in a manifest.
"""

from itertools import pairwise
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from nearcast.errors import InvalidInput
from nearcast.resources.kinds import Country, Group, Location, Metadata, Name, Part, PolicyMatch, Residency, SiteRef
from nearcast.resources.located import Document, Path, TextError, name_of, read_yaml
from nearcast.resources.plan import Objective, Tier
from nearcast.resources.problems import ManifestError, Problem, did_you_mean, field_name, problems_of

SCENARIO_VERSION: Final = "nearcast.dev/v1alpha1"
MAX_SITES: Final = 5000

Continent = Literal["AF", "AN", "AS", "EU", "NA", "OC", "SA"]
Positive = Annotated[float, Field(gt=0, le=1e15)]
NotNegative = Annotated[float, Field(ge=0, le=1e15)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, le=1e6)]
Point = Annotated[tuple[int, float], Field(strict=False, description="batch size, and milliseconds of such a batch")]


class Misfit(InvalidInput, ValueError):
    """Parts of a scenario do not fit together.

    Args:
        field: path below ``spec`` of what should change.
        message: what was expected and what came.
        hint: the way out.
    """

    def __init__(self, field: Path, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class Cities(Part):
    """Sites in the most populous cities of the GeoNames table (`pip install nearcast[twin]`)."""

    count: int = Field(ge=1, le=MAX_SITES, description="how many")
    continents: tuple[Continent, ...] = Field(default=(), strict=False, description="only there; empty: everywhere")
    countries: tuple[Country, ...] = Field(default=(), strict=False, description="only there; empty: everywhere")
    per_country: int = Field(default=MAX_SITES, ge=1, description="at most so many in one country")


class NamedSite(Part):
    """One site by name."""

    name: SiteRef
    country: Country
    location: Location
    population: Positive = Field(default=1e6, description="people who live there: their share of the demand")
    jurisdictions: tuple[Group, ...] = Field(default=(), strict=False, description="beyond those of the country")


class SiteGroup(Part):
    """Sites that are alike: by `cities`, or by name in `named`."""

    cities: Cities | None = None
    named: tuple[NamedSite, ...] | None = Field(default=None, strict=False, min_length=1)
    tier: Tier = Field(default="edge", description="what kind of place they are")
    node: Name = Field(description="class of their nodes")
    nodes: int = Field(default=1, ge=1, le=10_000, description="nodes in each site")
    nodes_by_population: bool = Field(
        default=False, description="`nodes` is the mean; each site has its part by population, at least one"
    )
    demand: bool = Field(default=True, description="whether clients enter here")
    mbps: Positive = Field(default=10_000.0, description="rate of the site's link to the others")

    @model_validator(mode="after")
    def _one_way(self) -> "SiteGroup":
        if (self.cities is None) == (self.named is None):
            raise ValueError("expected exactly one of cities, named")
        return self


class Network(Part):
    """Round trips between sites."""

    round_trips: Literal["fibre", "planetlab"] = Field(
        default="fibre",
        description="by the length of the way in fibre, or of the matrix measured on PlanetLab: each site takes the "
        "row of a node, drawn by the seed, whatever its coordinates",
    )
    file: str = Field(default="planetlab_rtt_490.txt.gz", description="the matrix, for `planetlab`")
    fallback: Literal["fibre"] | None = Field(default=None, description="what to take where the file is absent")
    jitter: Share = Field(default=0.1, description="mean of the part by which one passage takes longer")


class NodeClass(Part):
    """Hardware of one kind."""

    workers: int = Field(ge=1, le=10_000, description="batches at a time")
    memory_gb: Positive = Field(description="for models")
    price_per_hour: NotNegative = Field(default=0.0, description="of one node, in any currency")


class Tokens(Part):
    """Sizes of requests out of the token counts of a trace: work grows with both, payloads each with its own."""

    file: str = Field(default="azure_llm_2023_conv.csv.gz", description="CSV: TIMESTAMP,ContextTokens,GeneratedTokens")
    fallback: Literal["synthetic"] | None = Field(default=None, description="lognormal counts where the file is absent")
    input_weight: NotNegative = Field(default=0.02, description="work of a context token, relative to a generated one")


class Forward(Part):
    """What an answer sends on to the cloud, such as an alert: it counts as traffic, not as time to answer."""

    share: Share = Field(description="part of the answers")
    bytes: NotNegative


class TwinModel(Part):
    """A model, its deployment and its profile."""

    name: Name
    objective: Objective = "interactive"
    target_ms: Positive = Field(description="time to answer that the objective wants")
    request_bytes: NotNegative = Field(description="mean size of a request")
    answer_bytes: NotNegative = Field(description="mean size of an answer")
    footprint_gb: NotNegative = Field(default=0.1, description="memory that the loaded model takes")
    service: dict[Name, Annotated[tuple[Point, ...], Field(strict=False, min_length=1)]] = Field(
        description="class of nodes -> [batch size, milliseconds], rising in both; between them by straight lines"
    )
    noise: NotNegative = Field(default=0.1, le=3, description="coefficient of variation of the work (lognormal)")
    tokens: Tokens | None = Field(default=None, description="work by token counts instead of noise")
    room: int = Field(default=64, ge=1, le=100_000, description="requests that may wait in a site, per worker")
    weight: NotNegative | None = Field(default=None, description="popularity; without it by Zipf's law in their order")
    tiers: tuple[Tier, ...] = Field(default=(), strict=False, description="only on these; empty: wherever it can run")
    least: int = Field(default=1, ge=1, description="sites that hold it, at least")
    most: int = Field(default=MAX_SITES, ge=1, description="sites that hold it, at most")
    load_s: Seconds = Field(default=5.0, description="to fetch and load it where it is not")
    forward: Forward | None = None


class DayNight(Part):
    """Demand that follows the sun: most at 15:00, least at 03:00 of local solar time."""

    depth: Share = Field(default=0.6, description="the trough is so much below the peak")
    start_hour_utc: float = Field(default=12.0, ge=0, lt=24)
    day_s: Positive = Field(default=86_400.0, description="how long a day lasts in the twin")


class Region(Part):
    """Some of the sites: those that any of the lists names."""

    sites: tuple[SiteRef, ...] = Field(default=(), strict=False)
    countries: tuple[Country, ...] = Field(default=(), strict=False)
    continents: tuple[Continent, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _names_something(self) -> "Region":
        if not (self.sites or self.countries or self.continents):
            raise ValueError("expected at least one of sites, countries, continents; got none")
        return self


class Crowd(Part):
    """A flash crowd: demand from `where` grows to `times` as much, over a few seconds."""

    at_s: Seconds
    lasts_s: Positive
    times: Positive
    rises_s: Seconds = Field(default=5.0, description="to grow, and to go")
    where: Region | None = Field(default=None, description="nothing: everywhere")
    models: tuple[Name, ...] = Field(default=(), strict=False, description="empty: all")


class Demand(Part):
    """Who asks, how often, in which rhythm."""

    load: Positive | None = Field(default=None, description="part of what the fleet could serve at most")
    rate_per_s: Positive | None = Field(default=None, description="requests per second of the whole fleet, instead")
    arrivals: Literal["poisson", "trace"] = Field(default="poisson", description="pattern of one site's requests")
    file: str = Field(default="azure_llm_2023_conv.csv.gz", description="the trace, for `trace`")
    fallback: Literal["poisson"] | None = Field(default=None, description="what to take where the file is absent")
    zipf: NotNegative = Field(default=1.0, description="exponent of the popularity of models without a weight")
    day_night: DayNight | None = None
    crowds: tuple[Crowd, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _one_amount(self) -> "Demand":
        if (self.load is None) == (self.rate_per_s is None):
            raise ValueError("expected exactly one of load, ratePerS")
        return self


class Failure(Part):
    """What breaks, and when it is whole again: exactly one of the last four."""

    at_s: Seconds
    lasts_s: Positive
    sites: tuple[SiteRef, ...] | None = Field(default=None, strict=False, min_length=1, description="lost, by name")
    share: Annotated[float, Field(gt=0, le=1)] | None = Field(default=None, description="part of the sites, drawn")
    link: tuple[SiteRef, SiteRef] | None = Field(default=None, strict=False, description="the way between two")
    cut_off: Region | None = Field(default=None, description="sites that reach one another, and nobody else")

    @model_validator(mode="after")
    def _one_kind(self) -> "Failure":
        kinds = ("sites", "share", "link", "cut_off")
        if sum(getattr(self, kind) is not None for kind in kinds) != 1:
            raise ValueError("expected exactly one of sites, share, link, cutOff")
        return self


class Telemetry(Part):
    """How sites learn of one another."""

    every_s: Positive = Field(default=1.5, description="between two reports of a site")
    age_s: Seconds = Field(default=1.0, description="age of a report when others learn of it")
    detect_s: Seconds = Field(default=3.0, description="until a site that is lost, or back, counts as such elsewhere")


class Control(Part):
    """The control plane."""

    plan_every_s: Positive = Field(default=5.0, description="between two plans for the fleet")
    hold_s: Seconds = Field(default=300.0, description="a site keeps a model that is no longer asked for, for so long")


class NamedPolicy(Part):
    """A residency policy, as in a manifest of kind Policy."""

    name: Name
    match: PolicyMatch = PolicyMatch()
    residency: Residency


class ScenarioSpec(Part):
    """One run."""

    about: str = Field(default="", max_length=2000, description="what it shows")
    duration_s: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    warm_up_s: Seconds = Field(default=30.0, description="requests of this time are run, not measured")
    seed: int = Field(default=1, ge=0, le=2**32 - 1)
    sites: tuple[SiteGroup, ...] = Field(strict=False, min_length=1)
    network: Network = Network()
    nodes: dict[Name, NodeClass] = Field(min_length=1, description="classes of hardware by name")
    models: tuple[TwinModel, ...] = Field(strict=False, min_length=1)
    policies: tuple[NamedPolicy, ...] = Field(default=(), strict=False, description="residency")
    demand: Demand
    failures: tuple[Failure, ...] = Field(default=(), strict=False)
    telemetry: Telemetry = Telemetry()
    control: Control = Control()
    price_per_gb: NotNegative = Field(default=0.02, description="of a gigabyte between two sites")

    @model_validator(mode="after")
    def _fits_together(self) -> "ScenarioSpec":
        for number, group in enumerate(self.sites):
            if group.node not in self.nodes:
                raise Misfit(
                    ("sites", number, "node"),
                    f"sites name the node class {group.node!r}; nodes has {', '.join(self.nodes)}",
                    hint=did_you_mean(group.node, self.nodes),
                )
        names = [model.name for model in self.models]
        for number, model in enumerate(self.models):
            if model.name in names[:number]:
                raise Misfit(("models", number, "name"), f"a model is named twice: {', '.join(names)}")
            _check_service(model, ("models", number, "service"), self.nodes)
        for number, crowd in enumerate(self.demand.crowds):
            if unknown := sorted(set(crowd.models) - set(names)):
                raise Misfit(
                    ("demand", "crowds", number, "models"),
                    f"a crowd asks for {', '.join(unknown)}; models has {', '.join(names)}",
                    hint=did_you_mean(unknown[0], names),
                )
        if self.warm_up_s >= self.duration_s:
            field = "warmUpS" if "warm_up_s" in self.model_fields_set else "durationS"
            message = f"expected warmUpS below durationS, got {self.warm_up_s:g} and {self.duration_s:g}"
            raise Misfit((field,), message)
        return self


class Scenario(Part):
    """A scenario of the digital twin."""

    model_config = ConfigDict(json_schema_extra={"title": f"{SCENARIO_VERSION}/Scenario"})

    api_version: Literal["nearcast.dev/v1alpha1"]
    kind: Literal["Scenario"]
    metadata: Metadata
    spec: ScenarioSpec


def _check_service(model: TwinModel, field: Path, nodes: dict[str, NodeClass]) -> None:
    if unknown := sorted(set(model.service) - set(nodes)):
        raise Misfit(
            (*field, unknown[0]),
            f"model {model.name}: service of {', '.join(unknown)}; nodes has {', '.join(nodes)}",
            hint=did_you_mean(unknown[0], nodes),
        )
    for name, points in model.service.items():
        sizes, times = [size for size, _ in points], [ms for _, ms in points]
        rising = all(one < other for one, other in pairwise(sizes)) and times == sorted(times)
        if sizes[0] != 1 or not rising or times[0] <= 0 or sizes[-1] > 4096:
            raise Misfit(
                (*field, name),
                f"model {model.name}, service of {name}: expected batch sizes that begin with 1 and rise to 4096 at "
                f"most, with times above 0 that do not fall; got {[list(point) for point in points]}",
            )


def read_scenario(text: str, source: str) -> tuple[Scenario, Document]:
    """The scenario in ``text``, and where each of its values stands there.

    Raises:
        ManifestError: it is none; every problem with line and column.
    """
    try:
        documents = list(read_yaml(text))
    except TextError as error:
        found = Problem(source, error.place.line, error.place.column, "", error.message, error.hint)
        raise ManifestError([found]) from error
    if len(documents) != 1:
        raise ManifestError([Problem(source, 1, 1, "", f"expected one scenario, got {len(documents)} documents")])
    return _scenario(documents[0], source), documents[0]


def located(error: Misfit, document: Document, source: str) -> ManifestError:
    """``error`` with the place in ``source`` of what should change."""
    field = ("spec", *error.field)
    place = document.values.get(field) or document.place(field)
    return ManifestError([Problem(source, place.line, place.column, field_name(field), error.message, error.hint)])


def _scenario(document: Document, source: str) -> Scenario:
    if not isinstance(document.value, dict):
        message = f"expected a mapping with apiVersion, kind, metadata, spec; got {name_of(document.value)}"
        raise ManifestError([Problem(source, 1, 1, "", message)])
    try:
        return Scenario.model_validate(document.value, by_alias=True, by_name=False)
    except ValidationError as error:
        details = error.errors(include_url=False)
        for item in details:
            misfit = item.get("ctx", {}).get("error")
            if isinstance(misfit, Misfit):
                item["loc"] = (*item["loc"], *misfit.field)
        problems = problems_of(details, scenario_schema(), document, source)
        raise ManifestError(problems, hint="docs/reference/scenario.md lists every field.") from error


def scenario_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a scenario."""
    return Scenario.model_json_schema(by_alias=True)
