"""Site plans: placement, make before break, peers, revisions that change only where something changed."""

import dataclasses

from nearcast.planning.grounds import grounds_of, placed
from nearcast.planning.peers import MAX_PEERS
from nearcast.planning.plans import FleetFacts, site_plans
from nearcast.resources.kinds import KINDS, AnyResource, Deployment
from nearcast.resources.state import DesiredState


def resource(kind: str, name: str, spec: dict[str, object]) -> AnyResource:
    document = {"apiVersion": "nearcast.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return KINDS[kind].model_validate(document)


FRANKFURT = resource("Site", "frankfurt", {"country": "DE", "emulate": {"roundTripMs": {"ashburn": 88}}})
ASHBURN = resource("Site", "ashburn", {"country": "US"})
SINGAPORE = resource("Site", "singapore", {"country": "SG", "tier": "regional"})
SITES = [FRANKFURT, ASHBURN, SINGAPORE]
EU_ONLY = resource("Policy", "eu-only", {"match": {"models": ["m"]}, "residency": {"jurisdictions": ["EU"]}})
FACTS = FleetFacts(
    releases={("m", "1"): "sha256:1", ("m", "2"): "sha256:2"},
    addresses={"frankfurt": ("127.0.0.1:1",), "ashburn": ("127.0.0.1:2",), "singapore": ("127.0.0.1:3",)},
    connected=frozenset({"frankfurt", "ashburn", "singapore"}),
)


def deployment(version: str = "1", **placement: object) -> AnyResource:
    return resource("Deployment", "m", {"model": "m", "version": version, "placement": placement})


def serving(facts: FleetFacts, **sites: str) -> FleetFacts:
    ready = {site: frozenset({("m", version)}) for site, version in sites.items()}
    return FleetFacts(facts.releases, facts.addresses, ready, facts.connected)


def versions(state: DesiredState, facts: FleetFacts) -> dict[str, list[str]]:
    return {site: [m.version for m in plan.models] for site, plan in site_plans(state, facts, "f", 1).items()}


def test_placement_by_site_tier_and_everywhere() -> None:
    everywhere = DesiredState.of([*SITES, deployment(everywhere=True)])
    assert versions(everywhere, FACTS) == {"ashburn": ["1"], "frankfurt": ["1"], "singapore": ["1"]}
    tiers = DesiredState.of([*SITES, deployment(tiers=["regional"])])
    assert versions(tiers, FACTS) == {"ashburn": [], "frankfurt": [], "singapore": ["1"]}
    named = DesiredState.of([*SITES, deployment(sites=["ashburn"])])
    assert versions(named, FACTS) == {"ashburn": ["1"], "frankfurt": [], "singapore": []}


def test_a_policy_closes_sites_to_placement_and_says_which_policy() -> None:
    item = deployment(everywhere=True)
    assert isinstance(item, Deployment)
    state = DesiredState.of([*SITES, item, EU_ONLY])
    assert versions(state, FACTS) == {"ashburn": [], "frankfurt": ["1"], "singapore": []}
    where = placed(item, grounds_of(state), {})
    assert dict(where.refused) == {"ashburn": ("eu-only",), "singapore": ("eu-only",)}


def test_a_model_that_policies_close_everywhere_is_told_so_to_every_site() -> None:
    nowhere = resource("Policy", "moon", {"match": {"models": ["m"]}, "residency": {"countries": ["JP"]}})
    local = resource(
        "Policy",
        "home",
        {"match": {"models": ["m"], "originSites": ["ashburn"]}, "residency": {"countries": ["SG"]}},
    )
    state = DesiredState.of([*SITES, deployment(sites=["frankfurt", "ashburn"]), nowhere, local])
    plans = site_plans(state, FACTS, "f", 1)
    assert {site: plan.closed for site, plan in plans.items()} == {
        "frankfurt": {"m": ("moon",)},
        "ashburn": {"m": ("home", "moon")},
        "singapore": {"m": ("moon",)},
    }
    open_somewhere = DesiredState.of([*SITES, deployment(sites=["frankfurt", "ashburn"]), EU_ONLY])
    assert all(plan.closed == {} for plan in site_plans(open_somewhere, FACTS, "f", 1).values())


def test_a_policy_for_some_origins_closes_no_site() -> None:
    rule = resource(
        "Policy",
        "eu-stays",
        {"match": {"originJurisdictions": ["EU"]}, "residency": {"jurisdictions": ["EU"]}},
    )
    state = DesiredState.of([*SITES, deployment(everywhere=True), rule])
    assert versions(state, FACTS) == {"ashburn": ["1"], "frankfurt": ["1"], "singapore": ["1"]}


def test_an_unknown_release_plans_nothing_and_keeps_what_runs() -> None:
    state = DesiredState.of([*SITES, deployment("9", sites=["ashburn"])])
    assert versions(state, FACTS) == {"ashburn": [], "frankfurt": [], "singapore": []}
    assert versions(state, serving(FACTS, ashburn="1")) == {"ashburn": ["1"], "frankfurt": [], "singapore": []}


def test_a_model_that_moves_stays_until_its_successor_stands() -> None:
    state = DesiredState.of([*SITES, deployment(sites=["ashburn"])])
    assert versions(state, serving(FACTS, frankfurt="1")) == {"ashburn": ["1"], "frankfurt": ["1"], "singapore": []}
    both = serving(FACTS, frankfurt="1", ashburn="1")
    assert versions(state, both) == {"ashburn": ["1"], "frankfurt": [], "singapore": []}


def test_a_closed_site_does_not_keep_the_model_while_it_moves() -> None:
    state = DesiredState.of([*SITES, deployment(sites=["frankfurt"]), EU_ONLY])
    assert versions(state, serving(FACTS, ashburn="1"))["ashburn"] == []


def test_without_a_deployment_nothing_is_kept() -> None:
    assert versions(DesiredState.of(SITES), serving(FACTS, frankfurt="1"))["frankfurt"] == []


def test_peers_callers_and_catalog() -> None:
    state = DesiredState.of([*SITES, deployment(sites=["ashburn"])])
    plans = site_plans(state, FACTS, "fleet.test", 7)
    peer = plans["frankfurt"].peers[0]
    assert (peer.site.name, peer.addresses, peer.server_name) == ("ashburn", ("127.0.0.1:2",), "ashburn.fleet.test")
    assert peer.round_trip_s == 0.088
    assert [caller.name for caller in plans["ashburn"].callers] == ["frankfurt", "singapore"]
    assert plans["ashburn"].emulated_round_trip_s == {"frankfurt": 0.088}
    assert plans["singapore"].catalog == ("m",)
    assert plans["singapore"].version == 7


def test_a_refused_holder_stays_visible_so_that_the_refusal_can_be_named() -> None:
    rule = resource(
        "Policy", "sg-stays", {"match": {"originSites": ["singapore"]}, "residency": {"sites": ["singapore"]}}
    )
    state = DesiredState.of([*SITES, deployment(sites=["ashburn", "frankfurt"]), rule])
    plan = site_plans(state, FACTS, "f", 1)["singapore"]
    assert len(plan.peers) == 1


def test_the_number_of_peers_is_bounded() -> None:
    many = [
        resource("Site", f"s{n}", {"country": "DE", "location": {"latitude": n, "longitude": n}}) for n in range(40)
    ]
    plans = site_plans(DesiredState.of([*many, deployment(everywhere=True)]), FACTS, "f", 1)
    assert {len(plan.peers) for plan in plans.values()} == {MAX_PEERS}
    assert {"s1", "s2"} <= {peer.site.name for peer in plans["s0"].peers}, "the nearest are chosen"


def test_no_model_is_out_of_reach_because_other_models_need_peers_too() -> None:
    sites = [resource("Site", f"s{n:02}", {"country": "DE"}) for n in range(20)]
    deployments = [
        resource("Deployment", f"m{n}", {"model": f"m{n}", "version": "1", "placement": {"sites": [f"s{n:02}"]}})
        for n in range(20)
    ]
    facts = FleetFacts(releases={(f"m{n}", "1"): "sha256:1" for n in range(20)})
    plan = site_plans(DesiredState.of([*sites, *deployments]), facts, "f", 1)["s00"]
    reached = {served.model for peer in plan.peers for served in peer.models}
    assert reached == {f"m{n}" for n in range(1, 20)}


def test_a_change_elsewhere_is_no_new_revision_here() -> None:
    before = site_plans(DesiredState.of([*SITES, deployment(sites=["ashburn"])]), FACTS, "f", 1)
    labelled = resource("Site", "singapore", {"country": "SG", "tier": "cloud"})
    after = site_plans(DesiredState.of([FRANKFURT, ASHBURN, labelled, deployment(sites=["ashburn"])]), FACTS, "f", 2)
    assert after["frankfurt"].revision == before["frankfurt"].revision
    assert after["singapore"].revision != before["singapore"].revision


def test_a_target_that_a_deployment_names_is_told_to_every_site_of_this_release() -> None:
    named = resource(
        "Deployment",
        "m",
        {"model": "m", "version": "1", "latencyTarget": "150ms", "placement": {"sites": ["ashburn"]}},
    )
    state = DesiredState.of([*SITES, named])
    plans = site_plans(state, dataclasses.replace(FACTS, older=frozenset({"ashburn"})), "f", 1)
    assert {site: plan.targets_s for site, plan in plans.items()} == {
        "ashburn": {},
        "frankfurt": {"m": 0.15},
        "singapore": {"m": 0.15},
    }
    assert all(not plan.urgent for plan in plans.values())
    realtime = named.model_copy(update={"spec": named.spec.model_copy(update={"objective": "realtime"})})
    plans = site_plans(DesiredState.of([*SITES, realtime]), FACTS, "f", 1)
    assert {plan.urgent for plan in plans.values()} == {("m",)}
    plain = DesiredState.of([*SITES, deployment(everywhere=True)])
    assert all(not plan.targets_s for plan in site_plans(plain, FACTS, "f", 1).values())
