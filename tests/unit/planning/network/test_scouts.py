"""Scouts: few, spread, slow to change, a burden to nobody, and never places for requests."""

from collections import Counter

import msgspec

from nearcast.planning.network.scouts import SCOUTS, TURN_S, is_scout, scouts
from nearcast.planning.peers import MAX_PEERS
from nearcast.planning.plans import FleetFacts, site_plans
from nearcast.planning.routes import route_table
from nearcast.resources.kinds import KINDS, AnyResource
from nearcast.resources.plan import HoldingRule, ResidencyRule, ServedModel, SitePlan
from nearcast.resources.state import DesiredState

SITES = [f"s{n:03}" for n in range(200)]


def test_each_site_has_a_few_others_and_none_is_the_scout_of_many() -> None:
    found = scouts(SITES, 1e6)
    assert all(len(set(others)) == SCOUTS and name not in others for name, others in found.items())
    assert max(Counter(other for others in found.values() for other in others).values()) <= 2 * SCOUTS


def test_they_stay_for_a_turn_and_then_move_on() -> None:
    before, soon, later = (scouts(SITES, 1e6 + after_s) for after_s in (0.0, TURN_S / 60, TURN_S))
    changed = sum(before[name] != soon[name] for name in SITES)
    assert 0 < changed < len(SITES) / 10, "turns are spread over the hour"
    assert sum(before[name] != later[name] for name in SITES) > 0.95 * len(SITES)


def test_over_a_day_a_site_learns_of_many_others() -> None:
    met = {other for hour in range(24) for other in scouts(SITES, hour * TURN_S)["s000"]}
    assert len(met) > 30


def test_a_site_that_joins_moves_few_scouts() -> None:
    before, after = scouts(SITES, 1e6), scouts([*SITES, "new"], 1e6)
    assert sum(before[name] != after[name] for name in SITES) <= 2 * SCOUTS


def test_fleets_of_one_and_two() -> None:
    assert scouts(["a"], 0.0) == {"a": ()}
    assert scouts(["a", "b"], 0.0) == {"a": ("b",), "b": ("a",)}


def resource(kind: str, name: str, spec: dict[str, object]) -> AnyResource:
    document = {"apiVersion": "nearcast.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return KINDS[kind].model_validate(document)


def plans(**given: tuple[str, ...]) -> dict[str, SitePlan]:
    sites = [
        resource("Site", f"s{n:02}", {"country": "DE", "location": {"latitude": n, "longitude": n}}) for n in range(30)
    ]
    model = resource("Deployment", "m", {"model": "m", "version": "1", "placement": {"everywhere": True}})
    names = [site.metadata.name for site in sites]
    facts = FleetFacts(
        releases={("m", "1"): "sha256:1"},
        addresses=dict.fromkeys(names, ("127.0.0.1:1",)),
        scouts=given or scouts(names, 0.0),
    )
    return site_plans(DesiredState.of([*sites, model]), facts, "f", 1)


def test_scouts_come_on_top_of_peers_and_may_ask_whom_they_measure() -> None:
    made = plans()
    assert max(len(plan.peers) for plan in made.values()) <= MAX_PEERS + SCOUTS
    assert any(len(plan.peers) > MAX_PEERS for plan in made.values())
    for name, plan in made.items():
        for peer in plan.peers:
            assert name in {caller.name for caller in made[peer.site.name].callers}


def test_a_scout_is_no_place_for_requests_although_it_serves_the_model() -> None:
    plan = plans(s00=("s29",))["s00"]
    (scout,) = [peer for peer in plan.peers if peer.site.name == "s29"]
    assert scout.models == ()
    assert scout.addresses
    assert is_scout(plan, scout)
    assert sum(is_scout(plan, peer) for peer in plan.peers) == 1
    route = route_table(plan, frozenset(), {}, None, 0.0).models["m"]
    assert "s29" not in {place.site for place in route.places}
    assert "s29" not in {place for share in route.shares for place in share.order}


def test_a_peer_stays_a_place_when_it_is_named_as_a_scout_too() -> None:
    plan = plans(s00=("s01",))["s00"]
    assert len(plan.peers) == MAX_PEERS
    assert not any(is_scout(plan, peer) for peer in plan.peers)


def test_facts_cannot_make_peers_many() -> None:
    plan = plans(s00=("gone", *(f"s{n}" for n in range(15, 30))))["s00"]
    assert len(plan.peers) <= MAX_PEERS + SCOUTS


def test_a_peer_with_nothing_that_may_be_asked_for_is_only_measured() -> None:
    plan = plans(s00=())["s00"]
    rule = ResidencyRule(policy="home", models=("m",), allow_sites=("s00",))
    closed = msgspec.structs.replace(plan, residency=(rule,))
    assert all(is_scout(closed, peer) for peer in closed.peers)
    other = msgspec.structs.replace(closed.peers[0], models=(ServedModel(model="free", version="1"),))
    assert not is_scout(closed, other)
    licensed = msgspec.structs.replace(plan, holding={"m": HoldingRule(tiers=("cloud",))})
    assert all(is_scout(licensed, peer) for peer in licensed.peers)
