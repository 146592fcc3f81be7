"""The simulated fleet as arrays: network, models and rules of its `sites`, and the problem that the planner sees.

Decides how a scenario becomes a :class:`World`. The planning problem in it is the true one: what a policy may know of
it, and how late, is the business of `simulation`. Pure: data come in (`files` reads them), dice are seeded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import coo_array

from nearcast.errors import InvalidInput
from nearcast.planning.distance import EARTH_RADIUS_KM, FIBRE_KM_PER_S, LAST_MILE_S, PATH_STRETCH
from nearcast.planning.fleet.problem import Problem
from nearcast.planning.residency import refusals
from nearcast.resources.kinds import residency_rule
from nearcast.resources.located import Path
from nearcast.resources.plan import ResidencyRule, SiteFacts
from nearcast.resources.problems import did_you_mean
from nearcast.twin.batching import busy_s, relative_work
from nearcast.twin.scenario import Misfit, NodeClass, Region, ScenarioSpec, TwinModel
from nearcast.twin.sites import City, TwinSite, sites_of

Floats = NDArray[np.float64]
Truths = NDArray[np.bool_]

URGENCY: Final = {"realtime": 4.0, "interactive": 1.0, "batch": 0.1}
GB: Final = 1e9


@dataclass(frozen=True, eq=False)
class Data:
    """What a scenario takes from files.

    Attributes:
        cities: the most populous first.
        continents: country -> continent.
        round_trips_ms: float64[N, N], or None for fibre.
        gaps_s: float64[N]: times between arrivals with a mean of 1, or None for Poisson arrivals.
        tokens: model -> float64[N, 2]: context and generated tokens of requests.
    """

    cities: tuple[City, ...] = ()
    continents: Mapping[str, str] = field(default_factory=dict)
    round_trips_ms: Floats | None = None
    gaps_s: Floats | None = None
    tokens: Mapping[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class World:
    """The simulated fleet.

    Attributes:
        sites: in the order of all arrays.
        models: likewise.
        continents: of each site, empty where unknown.
        problem: what there is, as the planner's problem; its demand is the mean of the run without crowds.
        round_trip_s: float64[S, S]: the true ones, without jitter.
        measured: whether they are measured ones, so that coordinates say nothing of them.
        curves: [S][M] -> seconds of a batch of 1, 2, ...; empty where the place cannot run the model.
        rules: residency.
        price_per_worker_s: float64[S].
        price_per_byte: between two sites.
        capacity_per_s: requests per second that the fleet could serve at most (`fleet_capacity`).
    """

    sites: tuple[TwinSite, ...]
    models: tuple[TwinModel, ...]
    continents: tuple[str, ...]
    problem: Problem
    round_trip_s: Floats
    measured: bool
    curves: tuple[tuple[tuple[float, ...], ...], ...]
    rules: tuple[ResidencyRule, ...]
    price_per_worker_s: Floats
    price_per_byte: float
    capacity_per_s: float

    def within(self, region: Region) -> Truths:
        """bool[S]: the sites of ``region``."""
        return np.array(
            [
                site.facts.name in region.sites
                or site.facts.country in region.countries
                or continent in region.continents
                for site, continent in zip(self.sites, self.continents, strict=True)
            ]
        )


def build(spec: ScenarioSpec, data: Data, seed: int, load: float | None = None) -> World:
    """The world of a scenario.

    Args:
        spec: the scenario.
        data: what it takes from files.
        seed: of the dice.
        load: part of the fleet's capacity that is asked for, instead of the scenario's.

    Raises:
        Misfit: the parts do not make a fleet: no place for a model, a site named twice, an unknown region.
    """
    sites = sites_of(spec, data.cities, data.continents)
    rules = tuple(residency_rule(policy.name, policy.match, policy.residency) for policy in spec.policies)
    dice = np.random.default_rng([seed, 1])
    round_trip_s = _round_trips(sites, data, dice)
    curves = tuple(tuple(_curve(model, site.node) for model in spec.models) for site in sites)
    work = [relative_work(model, data.tokens.get(model.name)) for model in spec.models]
    problem = _problem(spec, sites, rules, round_trip_s, curves, work)
    capacity_per_s = fleet_capacity(problem)
    wanted = load if load is not None else spec.demand.load
    rate_per_s = wanted * capacity_per_s if wanted is not None else spec.demand.rate_per_s or 0.0
    problem = replace(problem, demand_per_s=problem.demand_per_s * rate_per_s)
    workers = [spec.nodes[site.node].workers for site in sites]
    prices = [spec.nodes[site.node].price_per_hour / 3600.0 for site in sites]
    world = World(
        sites=sites,
        models=spec.models,
        continents=tuple(data.continents.get(site.facts.country, "") for site in sites),
        problem=problem,
        round_trip_s=round_trip_s,
        measured=data.round_trips_ms is not None,
        curves=curves,
        rules=rules,
        price_per_worker_s=np.array(prices) / np.array(workers, dtype=np.float64),
        price_per_byte=spec.price_per_gb / GB,
        capacity_per_s=capacity_per_s,
    )
    _check_regions(spec, world)
    return world


def _check_regions(spec: ScenarioSpec, world: World) -> None:
    names = {site.facts.name for site in world.sites}
    for number, failure in enumerate(spec.failures):
        named = {*(failure.sites or ()), *(failure.link or ())}
        if unknown := sorted(named - names):
            raise Misfit(
                ("failures", number, "sites" if failure.sites else "link"),
                f"a failure names sites that are not there: {', '.join(unknown)}",
                hint=did_you_mean(unknown[0], names),
            )
        _check_region(failure.cut_off, ("failures", number, "cutOff"), world)
    for number, crowd in enumerate(spec.demand.crowds):
        _check_region(crowd.where, ("demand", "crowds", number, "where"), world)


def _check_region(region: Region | None, field: Path, world: World) -> None:
    if region is not None and not world.within(region).any():
        wanted = "; ".join(f"{name} {', '.join(values)}" for name, values in region if values)
        raise Misfit(field, f"expected a region with a site in it; none has {wanted}")


# --- network ---------------------------------------------------------------------------------------------------------


def _round_trips(sites: Sequence[TwinSite], data: Data, dice: np.random.Generator) -> Floats:
    """float64[S, S] in seconds: rows of the measured matrix, drawn; else by fibre (`planning.distance`)."""
    if data.round_trips_ms is None:
        return fibre_round_trips(
            np.array([site.latitude for site in sites]), np.array([site.longitude for site in sites])
        )
    measured = data.round_trips_ms
    if len(sites) > len(measured):
        raise Misfit(("network",), f"the matrix has {len(measured)} nodes, too few for {len(sites)} sites")
    rows = dice.permutation(len(measured))[: len(sites)]
    return np.asarray(measured[np.ix_(rows, rows)] / 1000.0)


def fibre_round_trips(latitude: Floats, longitude: Floats) -> Floats:
    """float64[S, S]: `planning.distance.guessed_round_trip_s` of all pairs at once, 0 on the diagonal."""
    lat, lon = np.radians(latitude), np.radians(longitude)
    half_lat = np.sin((lat[:, None] - lat[None, :]) / 2) ** 2
    half_lon = np.sin((lon[:, None] - lon[None, :]) / 2) ** 2
    chord = half_lat + np.cos(lat)[:, None] * np.cos(lat)[None, :] * half_lon
    km = 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.minimum(1.0, chord)))
    found: Floats = LAST_MILE_S + 2 * PATH_STRETCH * km / FIBRE_KM_PER_S
    np.fill_diagonal(found, 0.0)
    return found


# --- the problem -----------------------------------------------------------------------------------------------------


def _curve(model: TwinModel, node: str) -> tuple[float, ...]:
    """Seconds of a batch of 1, 2, ... up to the greatest of the profile; empty where there is no profile."""
    points = model.service.get(node)
    if points is None:
        return ()
    sizes = np.arange(1, points[-1][0] + 1)
    times = np.interp(sizes, [size for size, _ in points], [ms / 1000.0 for _, ms in points])
    return tuple(float(time) for time in times)


def _problem(
    spec: ScenarioSpec,
    sites: tuple[TwinSite, ...],
    rules: tuple[ResidencyRule, ...],
    round_trip_s: Floats,
    curves: tuple[tuple[tuple[float, ...], ...], ...],
    work: Sequence[Floats],
) -> Problem:
    """The planner's problem with a demand of one request per second in all."""
    work_s, full_s = _busy_s(curves, work)
    count = (len(sites), len(spec.models))
    memory = np.array([spec.nodes[site.node].memory_gb * site.nodes * GB for site in sites])
    footprint = np.array([model.footprint_gb * GB for model in spec.models])
    able = np.array([[bool(curve) for curve in row] for row in curves])
    eligible = _eligible(spec, sites, able & (footprint[None, :] <= memory[:, None]))
    classes, may, rule_set = residency_classes(tuple(site.facts for site in sites), spec.models, rules)
    urgency = np.array([URGENCY[model.objective] for model in spec.models])
    node_classes: dict[str, NodeClass] = spec.nodes
    return Problem(
        sites=tuple(site.facts.name for site in sites),
        models=tuple(model.name for model in spec.models),
        demand_per_s=_demand_shares(spec, sites),
        round_trip_s=round_trip_s,
        bytes_per_s=np.array([site.bytes_per_s for site in sites]),
        payload_bytes=np.array([model.request_bytes + model.answer_bytes for model in spec.models]),
        service_s=np.array([[curve[0] if curve else np.inf for curve in row] for row in curves]),
        work_s=work_s,
        full_s=full_s,
        workers=np.array([float(node_classes[site.node].workers * site.nodes) for site in sites]),
        memory_bytes=memory,
        footprint_bytes=footprint,
        eligible=eligible,
        pinned=np.zeros(count, dtype=np.bool_),
        warm=np.zeros(count, dtype=np.bool_),
        move_s=np.broadcast_to(np.array([model.load_s for model in spec.models]), count).copy(),
        least=np.array([model.least for model in spec.models], dtype=np.int32),
        most=np.array([min(model.most, len(sites)) for model in spec.models], dtype=np.int32),
        site_class=classes,
        may=may,
        rule_set=rule_set,
        target_s=np.array([model.target_ms / 1000.0 for model in spec.models]),
        weight=urgency,
        urgency=urgency,
        extra_s=np.zeros(count),
    )


def _busy_s(curves: tuple[tuple[tuple[float, ...], ...], ...], work: Sequence[Floats]) -> tuple[Floats, Floats]:
    """float64[S, M] twice: worker-seconds of a request, and seconds of its batch; infinite without a profile."""
    busy = {(number, curve): busy_s(curve, work[number]) for row in curves for number, curve in enumerate(row) if curve}
    never = (np.inf, np.inf)
    table = np.array([[busy.get((number, curve), never) for number, curve in enumerate(row)] for row in curves])
    return table[:, :, 0], table[:, :, 1]


def _eligible(spec: ScenarioSpec, sites: tuple[TwinSite, ...], able: Truths) -> Truths:
    """bool[S, M]: the sites that may hold each model: those that are ``able`` to, of its tiers.

    Raises:
        Misfit: no site may hold one of them.
    """
    fitting = [[not model.tiers or site.facts.tier in model.tiers for model in spec.models] for site in sites]
    found: Truths = able & np.array(fitting)
    for number in np.flatnonzero(~found.any(axis=0)):
        message = f"no site can hold {spec.models[number].name}: by tier, node class (service), or memory"
        raise Misfit(("models", int(number)), message)
    return found


def _demand_shares(spec: ScenarioSpec, sites: tuple[TwinSite, ...]) -> Floats:
    """float64[S, M] that adds up to 1: by population, and by weight or Zipf's law."""
    people = np.array([site.population if site.demand else 0.0 for site in sites])
    ranks = [(index + 1) ** -spec.demand.zipf for index in range(len(spec.models))]
    weights = np.array(
        [rank if model.weight is None else model.weight for model, rank in zip(spec.models, ranks, strict=True)]
    )
    if weights.sum() <= 0:
        raise Misfit(("models",), "expected a model whose weight is above 0")
    return np.asarray(np.outer(people / people.sum(), weights / weights.sum()))


def residency_classes(
    sites: Sequence[SiteFacts], models: Sequence[TwinModel], rules: Sequence[ResidencyRule]
) -> tuple[NDArray[np.int32], Truths, NDArray[np.int32]]:
    """``site_class``, ``may`` and ``rule_set`` of a :class:`Problem`: what no rule can tell apart is one class."""
    named = {name for rule in rules for name in (*rule.origin_sites, *rule.allow_sites)}
    keys: dict[tuple[str, ...], int] = {}
    members: list[SiteFacts] = []
    classes = []
    for site in sites:
        key = (site.name if site.name in named else "", site.country, *site.jurisdictions) if rules else ()
        if key not in keys:
            keys[key] = len(keys)
            members.append(site)
        classes.append(keys[key])
    sets: dict[tuple[int, ...], int] = {}
    of_model, tables = [], []
    for model in models:
        binding = tuple(i for i, rule in enumerate(rules) if not rule.models or model.name in rule.models)
        if binding not in sets:
            sets[binding] = len(sets)
            chosen = [rules[i] for i in binding]
            tables.append([[not refusals(chosen, model.name, o, p) for p in members] for o in members])
        of_model.append(sets[binding])
    return np.array(classes, dtype=np.int32), np.array(tables, dtype=np.bool_), np.array(of_model, dtype=np.int32)


def fleet_capacity(problem: Problem) -> float:
    """Requests per second that the fleet could serve at most, in the mix of ``problem.demand_per_s``.

    The greatest multiple of the demand for which shares exist that fit every worker, wherever models may be held; the
    network costs nothing and memory does not bind. A linear program over classes of sites.

    Raises:
        InvalidInput: some demand has no place at all.
    """
    demand = np.zeros((problem.may.shape[1], len(problem.models)))
    np.add.at(demand, problem.site_class, problem.demand_per_s)
    groups = [(int(c), int(m)) for c, m in zip(*np.nonzero(demand), strict=True)]
    rows: list[int] = []
    places: list[int] = []
    for row, (origin, model) in enumerate(groups):
        open_to = problem.may[problem.rule_set[model], origin][problem.site_class] & problem.eligible[:, model]
        if not open_to.any():
            message = f"no place may answer some requests for {problem.models[model]}: residency, tier, nodes"
            raise Misfit(("models", model), message)
        found = np.flatnonzero(open_to)
        rows.extend([row] * len(found))
        places.extend(int(place) for place in found)
    flows, sites = len(rows), len(problem.sites)
    work = [problem.work_s[place, groups[row][1]] for row, place in zip(rows, places, strict=True)]
    busy = coo_array((work, (places, np.arange(flows))), shape=(sites, flows + 1))
    asked = [-demand[group] for group in groups]
    served = coo_array(
        ([*np.ones(flows), *asked], ([*rows, *range(len(groups))], [*range(flows), *[flows] * len(groups)])),
        shape=(len(groups), flows + 1),
    )
    cost = np.zeros(flows + 1)
    cost[flows] = -1.0
    found = linprog(cost, A_ub=busy, b_ub=problem.workers, A_eq=served, b_eq=np.zeros(len(groups)), method="highs")
    if found.status != 0:
        raise InvalidInput(f"the capacity of the fleet cannot be told: {found.message}")
    return float(found.x[flows] * problem.demand_per_s.sum())
