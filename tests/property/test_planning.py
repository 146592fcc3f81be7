"""Whatever the fleet, the rules and the load: every rule holds, shares are sound, churn is bounded."""

from dataclasses import replace

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from fleets import plan_of_0_2
from nearcast.planning.fleet.guidance import Guidance
from nearcast.planning.plans import FleetFacts, site_plans
from nearcast.planning.residency import refusals
from nearcast.planning.routes import MAX_ORDER, Observation, RouteTable, route_table
from nearcast.planning.shares import MAX_SHIFT_PER_S
from nearcast.resources.kinds import KINDS, AnyResource
from nearcast.resources.load import LoadReport, ModelLoad, named_metrics
from nearcast.resources.plan import PlannedShare, ServedModel, SitePlan, decode_plan, encode_plan
from nearcast.resources.state import DesiredState

COUNTRIES = ["DE", "FR", "US", "SG", "BR"]
NAMES = [f"s{n}" for n in range(6)]
MODELS = ["a", "b"]
TIERS = ["edge", "regional", "cloud"]
TENANTS = ["acme", "umbra"]


def resource(kind: str, name: str, spec: dict[str, object]) -> AnyResource:
    document = {"apiVersion": "nearcast.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return KINDS[kind].model_validate(document)


subsets = st.lists(st.sampled_from(NAMES), max_size=3, unique=True)
countries = st.lists(st.sampled_from(COUNTRIES), max_size=3, unique=True)
groups = st.sampled_from([[], ["EU"], ["EEA", "EU"]])
tiers = st.sampled_from([[], [], ["edge"], ["regional", "cloud"]])
owners = st.sampled_from([{}, {"tenant": "acme"}, {"tenant": "umbra", "latencyTarget": "80ms"}])


@st.composite
def states(draw: st.DrawFn) -> DesiredState:
    sites = [
        resource(
            "Site",
            name,
            {"country": draw(st.sampled_from(COUNTRIES)), "tier": draw(st.sampled_from(TIERS))}
            | draw(st.sampled_from([{}, {}, {"tenants": ["acme"]}, {"tenants": TENANTS}]))
            | draw(st.sampled_from([{}, {"link": {"mbps": 100}}])),
        )
        for name in NAMES
    ]
    models = [resource("Model", name, {"tiers": draw(tiers)}) for name in MODELS]
    deployments = [
        resource("Deployment", model, {"model": model, "version": "1", "placement": {"sites": where}} | draw(owners))
        for model in MODELS
        if (where := draw(subsets))
    ]
    if draw(st.booleans()):
        auto = {"model": "a", "version": "1", "placement": {"auto": {}}} | draw(owners)
        deployments = [*(item for item in deployments if item.name != "a"), resource("Deployment", "a", auto)]
    policies = []
    for n in range(draw(st.integers(0, 3))):
        residency = {"sites": draw(subsets), "countries": draw(countries), "jurisdictions": draw(groups)}
        if not any(residency.values()):
            residency["countries"] = ["DE"]
        match = {
            "models": draw(st.lists(st.sampled_from(MODELS), max_size=2, unique=True)),
            "originSites": draw(subsets),
            "originCountries": draw(countries),
            "originJurisdictions": draw(groups),
        }
        policies.append(resource("Policy", f"p{n}", {"match": match, "residency": residency}))
    return DesiredState.of([*sites, *models, *deployments, *policies])


@st.composite
def guidances(draw: st.DrawFn) -> Guidance:
    """Any shares at all, also of places that rules forbid, that do not hold the model, or that do not exist."""
    shares = st.lists(
        st.builds(
            PlannedShare,
            site=st.sampled_from([*NAMES, "nowhere"]),
            share=st.floats(0.05, 1),
            expected_s=st.floats(0, 1),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda share: share.site,
    ).map(tuple)
    return Guidance(
        routes=draw(st.dictionaries(st.sampled_from(NAMES), st.dictionaries(st.sampled_from(MODELS), shares))),
        placements=draw(st.dictionaries(st.sampled_from(MODELS), subsets.map(tuple))),
    )


loads = st.builds(
    lambda wait_s, service_s: LoadReport(
        named_metrics=named_metrics(
            {
                model: ModelLoad(wait_s=wait_s, service_s=service_s, utilization=0.1, rate_per_s=1.0, queue=0, room=1)
                for model in MODELS
            }
        )
    ),
    st.floats(0, 100),
    st.floats(0, 10),
)
observed = st.builds(
    Observation,
    st.floats(-20, 0),
    st.booleans(),
    st.floats(0, 2),
    st.one_of(st.none(), loads, st.just(LoadReport())),
)
weathers = st.lists(st.dictionaries(st.sampled_from(NAMES), observed), min_size=1, max_size=6)
FACTS = FleetFacts(
    releases={(model, "1"): "sha256:0" for model in MODELS},
    addresses=dict.fromkeys(NAMES, ("127.0.0.1:1",)),
    serving={name: frozenset({("a", "1")}) for name in NAMES},
    connected=frozenset(NAMES),
)


def closed(state: DesiredState, model: str, origin: str, place: str) -> bool:
    """Whether a rule keeps requests from ``origin`` away from ``place``, in other words than `planning` has."""
    site = next(item for item in state.sites if item.name == place)
    deployment = next((item for item in state.deployments if item.spec.model == model), None)
    licence = next(item.spec.tiers for item in state.models if item.name == model)
    if licence and site.spec.tier not in licence:
        return True
    if site.spec.tenants and (deployment is None or deployment.spec.tenant not in site.spec.tenants):
        return True
    facts = {item.name: item.facts() for item in state.sites}
    rules = [policy.rule() for policy in state.policies]
    return bool(refusals(rules, model, facts[origin], facts[place]))


def boastful(plan: SitePlan) -> SitePlan:
    """``plan`` as if every peer held every model of the fleet, whatever rules say."""
    held = tuple(ServedModel(model=model, version="1") for model in MODELS)
    peers = tuple(msgspec.structs.replace(peer, models=held) for peer in plan.peers)
    return msgspec.structs.replace(plan, peers=peers)


@settings(max_examples=150, deadline=None)
@given(states(), weathers, st.sets(st.sampled_from(MODELS)), guidances(), st.booleans(), st.booleans())
def test_routes_are_sound_and_every_rule_always_holds(
    state: DesiredState,
    weather: list[dict[str, Observation]],
    ready: set[str],
    guidance: Guidance,
    lying: bool,
    guided: bool,
) -> None:
    """Also where the plan says of peers that they hold what they must not, where the own engine serves what it must
    not, and where the control plane has not been heard of for long."""
    deployed = {item.spec.model for item in state.deployments}
    for name, honest in site_plans(state, FACTS, "f", 1, guidance).items():
        for shares in honest.routes.values():
            assert abs(sum(share.share for share in shares) - 1.0) < 1e-3
            assert not any(share.site == "nowhere" for share in shares)
        plan = boastful(honest) if lying else honest
        local = frozenset(ready if lying else (m.model for m in plan.models if m.model in ready)) & deployed
        table: RouteTable | None = None
        for second, observations in enumerate(weather):
            table = route_table(plan, local, observations, table, float(second), guided=guided)
            for model, route in table.models.items():
                asked = {site for share in route.shares for site in share.order}
                assert not any(closed(state, model, name, site) for site in asked)
                assert (route.verdict == "routed") == bool(route.shares)
                if route.shares:
                    assert sum(share.percent for share in route.shares) == 100
                for share in route.shares:
                    assert share.percent > 0
                    assert len(set(share.order)) == len(share.order) <= MAX_ORDER
                if route.verdict == "residency_refused":
                    assert route.policies or plan.closed[model]


@settings(max_examples=60, deadline=None)
@given(states(), guidances(), st.sets(st.sampled_from(NAMES)))
def test_a_site_of_an_older_release_gets_a_plan_that_it_can_read(
    state: DesiredState, guidance: Guidance, older: set[str]
) -> None:
    for name, plan in site_plans(state, replace(FACTS, older=frozenset(older)), "f", 1, guidance).items():
        assert decode_plan(encode_plan(plan)) == plan
        if name in older:
            assert plan_of_0_2.read(encode_plan(plan)).revision == plan.revision


@settings(max_examples=150, deadline=None)
@given(states(), st.lists(st.dictionaries(st.sampled_from(NAMES), loads), min_size=2, max_size=8), guidances())
def test_what_stands_moves_by_limited_steps(
    state: DesiredState, weather: list[dict[str, LoadReport]], guidance: Guidance
) -> None:
    for plan in site_plans(state, FACTS, "f", 1, guidance).values():
        table: RouteTable | None = None
        for second, reports in enumerate(weather):
            observations = {
                name: Observation(float(second), reachable=True, round_trip_s=0.05, load=reports.get(name))
                for name in NAMES
            }
            after = route_table(plan, frozenset(m.model for m in plan.models), observations, table, float(second))
            for model, route in after.models.items():
                if table is None or not table.models[model].places:
                    continue
                standing = {place.site for place in route.places if place.state == "ready"}
                was = {place.site: place.weight for place in table.models[model].places}
                if not all(weight == 0.0 or site in standing for site, weight in was.items()):
                    continue
                now = {place.site: place.weight for place in route.places}
                moved = sum(abs(now.get(site, 0.0) - was.get(site, 0.0)) for site in {*now, *was}) / 2
                assert moved <= MAX_SHIFT_PER_S + 1e-9
            table = after


@settings(max_examples=60, deadline=None)
@given(states())
def test_no_deployment_is_planned_where_every_origin_is_refused(state: DesiredState) -> None:
    facts = {site.name: site.facts() for site in state.sites}
    rules = [policy.rule() for policy in state.policies]
    for name, plan in site_plans(state, FACTS, "f", 1).items():
        for planned in plan.models:
            assert any(not refusals(rules, planned.model, origin, facts[name]) for origin in facts.values())
