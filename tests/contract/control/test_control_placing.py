"""The planner in a control plane: placements follow demand, failures and rules; shares are published."""

from typing import Any

import pytest

from fleets.three_sites import SITES, World

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def test_demand_places_a_model_and_more_demand_more_of_it(fleet: Any, make: Any) -> None:
    world = World(fleet, make, {"auto": {}})
    assert fleet.condition("deployments", "m", "Accepted") == ("False", "NotPlanned")
    world.report(frankfurt=5.0)
    assert world.pass_on()
    assert world.planned() == {"frankfurt"}
    world.report("frankfurt", frankfurt=5.0)
    assert not world.pass_on(), "the same again is no other decision"
    assert fleet.condition("deployments", "m", "Accepted") == ("True", "Placed")
    world.report("frankfurt", frankfurt=70.0)
    assert world.pass_on()
    assert world.planned() == {"frankfurt", "ashburn"}, "one worker of 20 ms answers fewer than 50 per second"
    shares = world.routes("frankfurt")
    assert shares.keys() == {"frankfurt", "ashburn"}
    assert 0.0 < shares["ashburn"] < 1.0


def test_what_a_surge_brought_is_taken_back_after_a_while(fleet: Any, make: Any) -> None:
    world = World(fleet, make, {"auto": {}})
    world.report("frankfurt", frankfurt=70.0)
    world.pass_on()
    world.report("frankfurt", "ashburn", frankfurt=70.0)
    world.pass_on()
    assert world.planned() == {"frankfurt", "ashburn"}
    world.report("frankfurt", "ashburn", frankfurt=2.0)
    for _ in range(40):
        world.pass_on()
        world.report("frankfurt", "ashburn", frankfurt=2.0)
    assert world.planned() == {"frankfurt", "ashburn"}, "not at once"
    assert world.routes("frankfurt") == {}, "but traffic is home"
    for _ in range(60):
        world.pass_on()
        world.report("frankfurt", "ashburn", frankfurt=2.0)
    assert world.planned() == {"frankfurt"}


def test_little_that_went_elsewhere_is_home_as_soon_as_there_is_room(fleet: Any, make: Any) -> None:
    world = World(fleet, make, {"everywhere": True})
    rate = next(rate for rate in range(40, 80) if _overflow(world, float(rate)))
    assert sum(share for site, share in world.routes("frankfurt").items() if site != "frankfurt") <= 0.15
    for _ in range(6):  # half a minute: a third of it is forgotten
        world.report(*SITES, frankfurt=rate / 4)
        world.pass_on()
    assert world.routes("frankfurt") == {}


def _overflow(world: World, rate: float) -> bool:
    world.report(*SITES, frankfurt=rate)
    world.pass_on()
    return bool(world.routes("frankfurt"))


def test_named_sites_get_shares_and_no_other_sites(fleet: Any, make: Any) -> None:
    world = World(fleet, make, {"sites": ["frankfurt", "singapore"]})
    world.report("frankfurt", "singapore", frankfurt=80.0)
    world.pass_on()
    assert world.planned() == {"frankfurt", "singapore"}
    assert world.routes("frankfurt").keys() == {"frankfurt", "singapore"}
    assert [peer.site.name for peer in fleet.plane.publisher.of("frankfurt").plan.peers if peer.models] == ["singapore"]


def test_rules_hold_whatever_the_demand(fleet: Any, make: Any) -> None:
    world = World(fleet, make, {"auto": {"countries": ["DE", "SG"]}})
    fleet.applied(make.manifest("Policy", "no-sg", match={"models": ["m"]}, residency={"countries": ["DE", "US"]}))
    world.report("frankfurt", frankfurt=500.0, singapore=500.0)
    world.pass_on()
    assert world.planned() == {"frankfurt"}


def test_a_placement_that_no_site_matches_keeps_what_serves_and_says_so(fleet: Any, make: Any) -> None:
    world = World(fleet, make, {"auto": {}})
    world.report("frankfurt", frankfurt=5.0)
    assert world.pass_on()
    named = {"model": "m", "version": "1"}
    fleet.applied(make.manifest("Deployment", "m", **named, placement={"auto": {"countries": ["FR"]}}))
    for _ in range(20):
        world.report("frankfurt", frankfurt=5.0)
        world.pass_on(50.0)
    assert world.planned() == {"frankfurt"}, "a country that was mistyped takes no model away"
    (told,) = fleet.call("GET", "/v1/status").json()["deployments"]
    (accepted, ready) = told["conditions"]
    assert (told["ready"], accepted["reason"], ready["reason"]) == (False, "NoSite", "NotAccepted")
    assert "no site matches the placement: auto; countries FR" in accepted["message"]
    assert "until one serves, frankfurt goes on outside of the placement" in accepted["message"]
    document = fleet.call("GET", "/v1/resources/deployments/m").json()
    assert (document["status"]["details"]["sites"], document["status"]["details"]["outside"]) == ([], ["frankfurt"])
    assert fleet.call("GET", "/v1/route/explain?model=m&site=ashburn").json()["outside"] == ["frankfurt"]

    fleet.applied(make.manifest("Deployment", "m", **named, placement={"auto": {}}))
    said = _message(fleet, "Accepted")
    assert "has not chosen sites yet" in said, "nobody looked for room"
    assert "frankfurt serves it meanwhile" in said
    assert "outside" not in said
    world.pass_on()
    assert fleet.condition("deployments", "m", "Accepted") == ("True", "Placed")

    fleet.applied(
        make.manifest("Deployment", "m", **named, placement={"auto": {"countries": ["FR"]}}),
        make.manifest("Policy", "no-de", match={"models": ["m"]}, residency={"countries": ["US"]}),
    )
    world.pass_on()
    assert world.planned() == set(), "rules are no wishes"


def test_more_sites_than_may_run_it_are_told_of_at_once(fleet: Any, make: Any) -> None:
    world = World(fleet, make, {"auto": {"countries": ["DE", "FR"], "minSites": 2}})
    assert fleet.condition("deployments", "m", "MinSites") == ("False", "TooFewSites")
    assert "1 of 2 sites may run it: frankfurt" in _message(fleet, "MinSites")
    world.report("frankfurt")
    world.pass_on()
    assert fleet.condition("deployments", "m", "Accepted") == ("True", "Placed")
    assert fleet.condition("deployments", "m", "MinSites") == ("False", "TooFewSites")
    named = {"model": "m", "version": "1"}
    fleet.applied(make.manifest("Deployment", "m", **named, placement={"auto": {"minSites": 3}}))
    assert fleet.condition("deployments", "m", "MinSites") == ("False", "NotPlanned"), "the planner has not looked"
    world.report("frankfurt")
    world.pass_on()
    assert fleet.condition("deployments", "m", "MinSites") == ("True", "Placed")
    fleet.applied(make.manifest("Deployment", "m", **named, placement={"auto": {}}))
    found = fleet.call("GET", "/v1/resources/deployments/m").json()["status"]["conditions"]
    assert "MinSites" not in {item["type"] for item in found}, "one site is what Accepted says"


def _message(fleet: Any, kind: str) -> str:
    document = fleet.call("GET", "/v1/resources/deployments/m").json()
    (found,) = (item["message"] for item in document["status"]["conditions"] if item["type"] == kind)
    return str(found)


def test_a_node_of_an_older_release_gets_no_shares(fleet: Any, make: Any) -> None:
    world = World(fleet, make, {"everywhere": True})
    world.report("frankfurt", "ashburn", "singapore", frankfurt=80.0)
    world.nodes["frankfurt"].report(models=[make.ready("m", "1")], demand={"m": {"rate_per_s": 80.0}})
    world.pass_on()
    assert world.routes("frankfurt") == {}


def test_a_model_that_failed_to_load_is_placed_elsewhere(fleet: Any, make: Any) -> None:
    world = World(fleet, make, {"auto": {}})
    world.report(frankfurt=5.0)
    world.pass_on()
    assert world.planned() == {"frankfurt"}
    world.nodes["frankfurt"].report(
        models=[make.ready("m", "1", state="failed", reason="LoadFailed", message="no")],
        capacity={"workers": 1.0, "memory_bytes": 1 << 30},
        demand={"m": {"rate_per_s": 5.0}},
    )
    world.pass_on()
    assert "ashburn" in world.planned()
    assert "frankfurt" not in fleet.plane.decisions.in_force.guidance.placements["m"]


def test_a_release_that_cannot_be_loaded_stays_where_it_was_tried_and_plans_stand_still(fleet: Any, make: Any) -> None:
    world = World(fleet, make, {"auto": {}})
    world.report(frankfurt=5.0)
    world.pass_on()

    def tried() -> None:
        """Whoever shall load it fails."""
        for name, node in world.nodes.items():
            broken = [make.ready("m", "1") | {"state": "failed", "reason": "TrustRefused"}]
            node.report(
                gateway={"url": f"http://{name}.test", "peer_address": "192.0.2.9:7443", "ready": True},
                capacity={"workers": 1.0, "memory_bytes": 1 << 30},
                models=broken if name in world.planned() else [],
                demand={"m": {"rate_per_s": 5.0}} if name == "frankfurt" else {},
            )

    for _ in range(12):
        tried()
        world.pass_on(40.0)
    versions = {name: fleet.plane.publisher.of(name).plan.version for name in SITES}
    assert world.planned() == {"frankfurt"}, "each of the three was tried, and then the best again"
    for _ in range(20):
        tried()
        world.pass_on(50.0)
    assert {name: fleet.plane.publisher.of(name).plan.version for name in SITES} == versions
    places = fleet.call("GET", "/v1/decisions/explain?name=m").json()["places"]
    why = next(place["why"] for place in places if place["site"] == "frankfurt")
    assert why == "no site that was asked to could load this version; it is tried here again"


def test_a_region_that_is_cut_off_finds_what_it_left(fleet: Any, make: Any) -> None:
    """Nobody hears of Frankfurt for two minutes. Others take over; once it is back nothing was taken from it."""
    world = World(fleet, make, {"auto": {"maxSites": 2}})
    world.report("frankfurt", frankfurt=5.0)
    assert world.pass_on()
    assert world.planned() == {"frankfurt"}
    cut = world.nodes.pop("frankfurt")
    for _ in range(12):
        world.report("ashburn", ashburn=5.0)
        world.pass_on(10.0)
    assert "frankfurt" not in {node.site for node in fleet.planner.snapshot().nodes if node.connected}
    assert world.planned() == {"frankfurt", "ashburn"}
    assert world.routes("ashburn") == {}, "nothing is sent to where nobody answers"
    world.nodes["frankfurt"] = cut
    world.report("frankfurt", "ashburn", frankfurt=5.0, ashburn=5.0)
    world.pass_on()
    assert world.planned() == {"frankfurt", "ashburn"}
