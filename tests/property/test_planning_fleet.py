"""The whole way from a fleet to its gateways: whatever the fleet and the load, nothing goes where a rule forbids it.

Snapshot -> problem -> plan -> guidance -> site plans -> route tables, over random fleets. Residency, tenancy, licence,
health and version are held against the resources themselves, with none of the planner's code in between.
"""

from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from nearcast.planning.fleet.decision import Decided, decide, differences, replayed
from nearcast.planning.fleet.guidance import UNGUIDED
from nearcast.planning.fleet.record import Pace, Record, compress, decompress
from nearcast.planning.fleet.snapshot import (
    SeenDemand,
    SeenFailure,
    SeenModel,
    SeenNode,
    SeenRelease,
    SeenWay,
    Snapshot,
)
from nearcast.planning.plans import FleetFacts, site_plans
from nearcast.planning.residency import refusals
from nearcast.planning.routes import Observation, route_table
from nearcast.resources.kinds import Deployment
from nearcast.resources.plan import SiteFacts, SitePlan
from nearcast.resources.state import DesiredState

SITES = [f"s{n}" for n in range(5)]
MODELS = ["a", "b"]
COUNTRIES = ["DE", "FR", "US"]
TENANTS = ["acme", "zeta"]
TIERS = ["edge", "cloud"]


def document(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "nearcast.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def some(values: list[str], most: int = 2, least: int = 0) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=least, max_size=most, unique=True)


placements = st.one_of(
    st.just({"everywhere": True}),
    some(SITES, 3, 1).map(lambda sites: {"sites": sites}),
    st.fixed_dictionaries({}, optional={"countries": some(COUNTRIES, 2, 1), "maxSites": st.integers(1, 3)}).map(
        lambda auto: {"auto": auto}
    ),
)


# Strategies are made once: making them costs more than drawing from them.
countries, tiers, tenants = st.sampled_from(COUNTRIES), st.sampled_from(TIERS), st.sampled_from(TENANTS)
rarely, mostly = st.integers(0, 3).map(lambda n: n == 0), st.integers(0, 4).map(bool)
some_tenants, some_tiers, some_sites, one_site = some(TENANTS), some(TIERS, 1), some(SITES), some(SITES, 1)
one_model, some_countries, named_countries = some(MODELS, 1), some(COUNTRIES), some(COUNTRIES, 2, 1)
links, rates, round_trips_s = st.floats(1, 1000), st.floats(0, 2000), st.floats(0.001, 0.3)
held = st.lists(
    st.builds(
        SeenModel,
        st.sampled_from(MODELS),
        st.sampled_from(["0", "1"]),
        st.booleans(),
        st.floats(0.001, 0.5),
        st.floats(0.001, 0.5),
    ),
    max_size=2,
    unique_by=lambda held: held.model,
).map(tuple)
nodes = {
    site: st.builds(
        SeenNode,
        st.just(site),
        st.just("n"),
        mostly,
        mostly.map(lambda yes: not yes),
        st.floats(0, 8),
        st.just(1 << 30),
        st.just("cpu"),
        held,
    )
    for site in SITES
}


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    resources = []
    for name in SITES:
        spec = {"country": draw(countries), "tier": draw(tiers)}
        if draw(rarely):
            spec["tenants"] = draw(some_tenants)
        if draw(st.booleans()):
            spec["link"] = {"mbps": draw(links)}
        resources.append(document("Site", name, spec))
    for name in MODELS:
        resources.append(document("Model", name, {"tiers": draw(some_tiers)}))
        spec = {"model": name, "version": "1", "placement": draw(placements)}
        if draw(st.booleans()):
            spec["tenant"] = draw(tenants)
        resources.append(document("Deployment", name, spec))
    for n in range(draw(st.integers(0, 2))):
        match = {"models": draw(one_model), "originCountries": draw(some_countries)}
        resources.append(
            document("Policy", f"p{n}", {"match": match, "residency": {"countries": draw(named_countries)}})
        )
    return Snapshot(
        fleet="f",
        at="",
        resources=tuple(resources),
        releases=(SeenRelease("a", "1", 1_000_000), SeenRelease("b", "1", 50_000_000)),
        nodes=tuple(draw(nodes[name]) for name in SITES if draw(mostly)),
        demand=tuple(SeenDemand(name, model, draw(rates), 1000, 1000) for name in SITES for model in MODELS),
        ways=tuple(
            SeenWay(name, other, draw(round_trips_s), 1.0, draw(mostly))
            for name in SITES
            for other in draw(some_sites)
            if name != other
        ),
        failures=tuple(SeenFailure(name, "a", "1") for name in draw(one_site)),
    )


def facts_of(snapshot: Snapshot) -> FleetFacts:
    serving = {
        node.site: frozenset((held.model, held.version) for held in node.models if held.is_ready)
        for node in snapshot.nodes
        if not node.draining
    }
    return FleetFacts(
        releases={(model, version): "sha256:0" for model in MODELS for version in ("0", "1")},
        addresses={node.site: ("192.0.2.1:1",) for node in snapshot.nodes if not node.draining},
        serving=serving,
        connected=frozenset(node.site for node in snapshot.nodes if node.connected and not node.draining),
    )


def forbidden(state: DesiredState, deployment: Deployment, place: SiteFacts) -> str:
    """Why ``place`` must not hold the deployment, by the resources themselves; empty where it may."""
    site = next(item for item in state.sites if item.name == place.name)
    if site.spec.tenants and deployment.spec.tenant not in site.spec.tenants:
        return "tenant"
    licence = next(item.spec.tiers for item in state.models if item.name == deployment.spec.model)
    if licence and place.tier not in licence:
        return "licence"
    rules = [policy.rule() for policy in state.policies]
    if all(refusals(rules, deployment.spec.model, origin.facts(), place) for origin in state.sites):
        return "residency"
    return ""


@settings(max_examples=60, deadline=None)
@given(snapshots(), snapshots())
def test_nothing_is_ever_placed_or_sent_where_a_rule_forbids_it(first: Snapshot, second: Snapshot) -> None:
    before = decide(first, None, UNGUIDED, (), Pace(hold_s=60.0))
    decided = decide(second, before.record, before.guidance, before.unwanted, Pace(hold_s=60.0), 5.0)
    state = decided.gathered.state
    deployments = {item.spec.model: item for item in state.deployments}
    facts = facts_of(second)
    plans = site_plans(state, facts, "f", 1, decided.guidance)
    check_plan(decided, deployments, facts)
    for name, plan in plans.items():
        for planned in plan.models:
            assert not forbidden(state, deployments[planned.model], plan.site), (name, planned)
        check_routes(state, plan, plans, deployments)


def check_plan(decided: Decided, deployments: Mapping[str, Deployment], facts: FleetFacts) -> None:
    """The plan itself, before site plans look at it again."""
    problem, plan = decided.gathered.problem, decided.plan
    state = decided.gathered.state
    sites = {site.name: site.facts() for site in state.sites}
    rules = [policy.rule() for policy in state.policies]
    for origin, model, place in zip(plan.origin, plan.model, plan.place, strict=True):
        where, name = problem.sites[place], problem.models[model]
        assert not forbidden(state, deployments[name], sites[where])
        assert not refusals(rules, name, sites[problem.sites[origin]], sites[where])
        assert where in facts.connected, "a silent or draining site is no place"
        assert plan.placed[place, model]
    for name, chosen in decided.guidance.placements.items():
        auto = deployments[name].spec.placement.auto
        assert auto is not None
        assert len(chosen) <= (auto.max_sites or len(SITES))
        for site in chosen:
            assert auto.matches(sites[site])
            assert not forbidden(state, deployments[name], sites[site])


def check_routes(
    state: DesiredState, plan: SitePlan, plans: Mapping[str, SitePlan], deployments: Mapping[str, Deployment]
) -> None:
    """What the site's gateway does with its plan, right away and some seconds later."""
    rules = [policy.rule() for policy in state.policies]
    local = frozenset(planned.model for planned in plan.models)
    observations = {peer.site.name: Observation(0.0, reachable=True, round_trip_s=0.05) for peer in plan.peers}
    table = None
    for second in range(3):
        table = route_table(plan, local, observations, table, float(second))
        for model, route in table.models.items():
            for share in route.shares:
                for place in share.order:
                    assert not refusals(rules, model, plan.site, plans[place].site)
                    assert not forbidden(state, deployments[model], plans[place].site)
                    held = {planned.model: planned.version for planned in plans[place].models}
                    assert held.get(model) in {"0", "1"}, "only what holds the model is asked"


@settings(max_examples=25, deadline=None)
@given(snapshots())
def test_every_decision_can_be_repeated_to_the_last_bit(snapshot: Snapshot) -> None:
    before = decide(snapshot, None, UNGUIDED, (), Pace())
    decided = decide(snapshot, before.record, before.guidance, before.unwanted, Pace())
    record = Record(
        id=1,
        at="",
        reason=("test",),
        snapshot=snapshot,
        before=before.record,
        guided=before.guidance,
        unwanted=before.unwanted,
        pace=Pace(),
        plan=decided.record,
        guidance=decided.guidance,
    )
    again = decompress(compress(record))
    assert again == record
    assert differences(again, replayed(again)) == ()
