"""Route explain: every candidate with its terms, every refusal with its rule, shares as the gateway has them."""

import msgspec

from nearcast.planning.explain import explain
from nearcast.planning.plans import FleetFacts, site_plans
from nearcast.resources.kinds import KINDS, AnyResource
from nearcast.resources.load import LoadReport, ModelLoad, named_metrics
from nearcast.resources.plan import PlannedShare
from nearcast.resources.state import DesiredState
from nearcast.resources.status import EngineStatus, GatewayStatus, ModelStatus, NodeStatus, PeerObservation, Share


def resource(kind: str, name: str, spec: dict[str, object]) -> AnyResource:
    document = {"apiVersion": "nearcast.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return KINDS[kind].model_validate(document)


STATE = DesiredState.of(
    [
        resource("Site", "frankfurt", {"country": "DE", "emulate": {"roundTripMs": {"paris": 10, "ashburn": 88}}}),
        resource("Site", "paris", {"country": "FR"}),
        resource("Site", "ashburn", {"country": "US"}),
        resource("Site", "singapore", {"country": "SG"}),
        resource(
            "Deployment",
            "m",
            {"model": "m", "version": "1", "placement": {"sites": ["frankfurt", "paris", "ashburn"]}},
        ),
        resource("Policy", "eu-only", {"match": {"originCountries": ["DE"]}, "residency": {"jurisdictions": ["EU"]}}),
    ]
)
FACTS = FleetFacts(
    releases={("m", "1"): "sha256:1"},
    addresses=dict.fromkeys(("frankfurt", "paris", "ashburn", "singapore"), ("127.0.0.1:1",)),
)
PLAN = site_plans(STATE, FACTS, "f", 1)["frankfurt"]
LOAD = LoadReport(
    named_metrics=named_metrics(
        {"m": ModelLoad(wait_s=0.002, service_s=0.004, utilization=0.5, rate_per_s=1, queue=0, room=9)}
    )
)
STATUS = NodeStatus(
    site="frankfurt",
    node="n",
    software="0",
    started_at="",
    plan_version=1,
    plan_revision=PLAN.revision,
    routed_version=1,
    gateway=GatewayStatus(url="", peer_address="", ready=True),
    engine=EngineStatus(ready=True),
    models=(ModelStatus(model="m", version="1", release="sha256:1", state="ready"),),
    load=LOAD,
    peers=(PeerObservation(site="paris", reachable=True, round_trip_s=0.011, age_s=0.5, load=LOAD),),
    routes={"m": (Share(percent=80, order=("frankfurt", "paris")), Share(percent=20, order=("paris", "frankfurt")))},
)


def test_every_term_in_milliseconds_and_the_shares_in_force() -> None:
    answer = explain(STATE, PLAN, STATUS, "m")
    assert answer.verdict == "routed"
    home, paris = answer.places[:2]
    assert (home.site, home.share_percent, home.wait_ms, home.service_ms, home.total_ms) == ("frankfurt", 80, 2, 4, 6)
    assert (paris.site, paris.share_percent, paris.round_trip_ms, paris.total_ms) == ("paris", 20, 11, 17)
    assert {place.standing for place in answer.places[:2]} == {"serving"}


def test_refusals_name_the_rule_and_others_the_reason() -> None:
    places = {place.site: place for place in explain(STATE, PLAN, STATUS, "m").places}
    assert (places["ashburn"].standing, places["ashburn"].rule) == ("refused", "policy/eu-only")
    assert places["ashburn"].total_ms is None
    assert places["singapore"].standing == "not_placed"
    assert "does not place" in str(places["singapore"].rule)


def test_without_a_report_it_rests_on_the_plan() -> None:
    answer = explain(STATE, PLAN, None, "m")
    assert not answer.reported
    places = {place.site: place for place in answer.places}
    assert places["paris"].round_trip_ms == 10
    assert places["frankfurt"].rule == "its engine does not serve the model yet"


def test_an_unreachable_peer_is_shown_as_such() -> None:
    lost = PeerObservation(site="paris", reachable=False, round_trip_s=0.011, age_s=0.5)
    answer = explain(STATE, PLAN, msgspec.structs.replace(STATUS, peers=(lost,)), "m")
    paris = next(place for place in answer.places if place.site == "paris")
    assert (paris.standing, paris.share_percent) == ("unreachable", 20), "with the share that is still in force"


def test_the_base_of_the_plan_stands_beside_the_shares_in_force() -> None:
    shares = (PlannedShare(site="frankfurt", share=0.7, expected_s=0.006), PlannedShare(site="paris", share=0.3))
    planned = msgspec.structs.replace(PLAN, routes={"m": shares})
    places = {place.site: place for place in explain(STATE, planned, STATUS, "m").places}
    assert (places["frankfurt"].share_percent, places["frankfurt"].base_percent) == (80, 70.0)
    assert (places["frankfurt"].expected_ms, places["paris"].expected_ms) == (6.0, None)
    assert {place.base_percent for place in explain(STATE, PLAN, STATUS, "m").places} == {None}


def test_a_place_that_still_loads_is_as_far_as_its_loading() -> None:
    loading = PeerObservation(site="paris", reachable=True, round_trip_s=0.011, age_s=0.5, load=LoadReport())
    answer = explain(STATE, PLAN, msgspec.structs.replace(STATUS, peers=(loading,)), "m", load_s=2.5)
    paris = next(place for place in answer.places if place.site == "paris")
    assert (paris.standing, paris.cold_ms) == ("not_ready", 2500.0)


def test_a_place_that_the_plan_names_and_its_own_rules_bar_is_refused_by_them() -> None:
    plan = msgspec.structs.replace(PLAN, tenants={"paris": ("acme",)})
    places = {place.site: place for place in explain(STATE, plan, None, "m").places}
    assert (places["paris"].standing, places["paris"].rule) == (
        "refused",
        "the site takes acme, not deployments without a tenant",
    )
