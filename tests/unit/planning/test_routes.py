"""Route tables: local while it has room, spill when not, limited steps, stable orders, clear verdicts."""

import msgspec
import pytest

from nearcast.planning.routes import Observation, RouteTable, route_table
from nearcast.planning.shares import MAX_SHIFT_PER_S
from nearcast.resources.load import LoadReport, ModelLoad, named_metrics
from nearcast.resources.plan import (
    HoldingRule,
    Peer,
    PlannedModel,
    PlannedShare,
    ResidencyRule,
    ServedModel,
    SiteFacts,
    SiteNode,
    SitePlan,
)

FRANKFURT = SiteFacts(name="frankfurt", tier="edge", country="DE", jurisdictions=("EEA", "EU"))
ASHBURN = SiteFacts(name="ashburn", tier="edge", country="US")
SINGAPORE = SiteFacts(name="singapore", tier="edge", country="SG")
LOCAL = frozenset({"m"})


def a_peer(site: SiteFacts, round_trip_s: float) -> Peer:
    return Peer(
        site=site,
        addresses=("127.0.0.1:1",),
        server_name=f"{site.name}.test",
        round_trip_s=round_trip_s,
        models=(ServedModel(model="m", version="1"),),
    )


PLAN = SitePlan(
    fleet="test",
    site=FRANKFURT,
    version=1,
    revision="r",
    models=(PlannedModel(model="m", version="1", release="sha256:0", deployment="m"),),
    peers=(a_peer(ASHBURN, 0.088), a_peer(SINGAPORE, 0.160)),
    catalog=("m",),
)


def load(wait_s: float = 0.0, service_s: float = 0.004) -> LoadReport:
    figures = ModelLoad(wait_s=wait_s, service_s=service_s, utilization=0.5, rate_per_s=10, queue=0, room=100)
    return LoadReport(named_metrics=named_metrics({"m": figures}))


def seen(at_s: float, *, wait_s: float = 0.0, round_trip_s: float = 0.0) -> Observation:
    return Observation(at_s, reachable=True, round_trip_s=round_trip_s, load=load(wait_s))


def test_local_first_then_by_cost() -> None:
    route = route_table(PLAN, LOCAL, {}, None, 0.0).models["m"]
    assert route.verdict == "routed"
    assert [(share.percent, share.order) for share in route.shares] == [(100, ("frankfurt", "ashburn", "singapore"))]


def test_without_a_local_engine_the_nearest_peer_is_first() -> None:
    route = route_table(PLAN, frozenset(), {}, None, 0.0).models["m"]
    assert route.shares[0].order == ("ashburn", "singapore")


def test_measured_round_trips_replace_expected_ones() -> None:
    observations = {"ashburn": seen(0.0, round_trip_s=0.3), "singapore": seen(0.0, round_trip_s=0.05)}
    route = route_table(PLAN, frozenset(), observations, None, 0.0).models["m"]
    assert route.shares[0].order == ("singapore", "ashburn")
    assert {place.site: place.terms.round_trip_s for place in route.places} == {"ashburn": 0.3, "singapore": 0.05}


def drive(seconds: int, local_wait_s: float, table: RouteTable | None, start: int = 0) -> RouteTable:
    for second in range(start, start + seconds):
        observations = {
            "frankfurt": seen(second, wait_s=local_wait_s),
            "ashburn": seen(second, round_trip_s=0.088),
            "singapore": seen(second, round_trip_s=0.160),
        }
        table = route_table(PLAN, LOCAL, observations, table, float(second))
    assert table is not None
    return table


def test_shares_do_not_follow_a_queue_at_home_that_requests_leave_by_themselves() -> None:
    calm = drive(2, 0.0, None)
    assert calm.models["m"].longest_ms == ((80, 160),)
    assert [share.percent for share in drive(20, 0.15, calm, 2).models["m"].shares] == [100]


def test_a_target_bounds_the_wait_at_every_place_at_the_last_one_only_what_is_urgent() -> None:
    timely = msgspec.structs.replace(PLAN, targets_s={"m": 0.2}, urgent=("m",))
    observations = {name: seen(0.0, round_trip_s=way_s) for name, way_s in (("ashburn", 0.088), ("singapore", 0.160))}
    route = route_table(timely, LOCAL, {"frankfurt": seen(0.0), **observations}, None, 0.0).models["m"]
    assert route.longest_ms == ((80, 80, 160),)
    patient = msgspec.structs.replace(timely, urgent=())
    route = route_table(patient, LOCAL, {"frankfurt": seen(0.0), **observations}, None, 0.0).models["m"]
    assert route.longest_ms == ((80, 80),)


def test_requests_wait_where_the_plan_expects_them_to_as_long_as_it_is_believed() -> None:
    nearer = {"ashburn": seen(0.0, round_trip_s=0.005)}
    routes = {"m": (PlannedShare(site="frankfurt", share=1.0, expected_s=0.254),)}
    plan = msgspec.structs.replace(PLAN, targets_s={"m": 0.9}, routes=routes)
    waits = [
        route_table(plan, LOCAL, {"frankfurt": seen(0.0), **nearer}, None, 0.0, guided=guided).models["m"].longest_ms[0]
        for guided in (True, False)
    ]
    assert [each[0] for each in waits] == [120, 80]
    assert waits[0][1:] == waits[1][1:], "of the others the plan says nothing"


def test_a_queue_at_home_sends_shares_away_by_limited_steps_and_they_come_home() -> None:
    calm = drive(2, 0.0, None)
    one_second_later = drive(1, 2.0, calm, 2).models["m"]
    assert {share.order[0]: share.percent for share in one_second_later.shares} == {
        "frankfurt": pytest.approx(100 * (1 - MAX_SHIFT_PER_S), abs=1.5),
        "ashburn": pytest.approx(100 * MAX_SHIFT_PER_S, abs=1.5),
    }
    crowded = drive(20, 2.0, calm, 2)
    assert crowded.models["m"].shares[0].order[0] == "ashburn"
    home = drive(30, 0.0, crowded, 22)
    assert [(share.percent, share.order[0]) for share in home.models["m"].shares] == [(100, "frankfurt")]


def test_a_small_difference_moves_nothing() -> None:
    table = drive(2, 0.0, None)
    assert drive(5, 0.001, table, 2).models["m"].shares == table.models["m"].shares


def test_a_place_that_is_gone_loses_its_share_at_once() -> None:
    table = drive(30, 2.0, None)
    observations = {
        "frankfurt": seen(30, wait_s=2.0),
        "ashburn": Observation(30.0, reachable=False),
        "singapore": seen(30, round_trip_s=0.16),
    }
    route = route_table(PLAN, LOCAL, observations, table, 30.0).models["m"]
    firsts = {share.order[0] for share in route.shares}
    assert "ashburn" not in firsts
    assert all(share.order[-1] == "ashburn" for share in route.shares), "still the last resort"


def test_a_peer_whose_engine_lacks_the_model_is_the_last_resort() -> None:
    observations = {"ashburn": Observation(0.0, reachable=True, round_trip_s=0.01, load=LoadReport())}
    route = route_table(PLAN, frozenset(), observations, None, 0.0).models["m"]
    assert route.shares[0].order == ("singapore", "ashburn")
    assert next(place for place in route.places if place.site == "ashburn").state == "not_ready"


def test_orders_do_not_flap_on_noise() -> None:
    near = msgspec.structs.replace(PLAN, peers=(a_peer(ASHBURN, 0.050), a_peer(SINGAPORE, 0.051)))
    table = route_table(near, LOCAL, {}, None, 0.0)
    order = table.models["m"].shares[0].order
    for second in range(1, 20):
        wobble = 0.004 if second % 2 else -0.004
        observations = {
            "ashburn": seen(second, round_trip_s=0.050 + wobble),
            "singapore": seen(second, round_trip_s=0.050 - wobble),
        }
        table = route_table(near, LOCAL, observations, table, float(second))
        assert table.models["m"].shares[0].order == order


def test_residency_leaves_no_place() -> None:
    rule = ResidencyRule(policy="eu-only", models=("m",), allow_jurisdictions=("EU",))
    plan = msgspec.structs.replace(PLAN, residency=(rule,))
    route = route_table(plan, frozenset(), {}, None, 0.0).models["m"]
    assert route.verdict == "residency_refused"
    assert route.shares == ()
    assert route.policies == ("eu-only",)
    assert [place.site for place in route.refused] == ["ashburn", "singapore"]


def test_nobody_serves_it_yet() -> None:
    plan = msgspec.structs.replace(PLAN, peers=())
    assert route_table(plan, frozenset(), {}, None, 0.0).models["m"].verdict == "no_place_ready"


def test_nobody_serves_it_because_policies_close_every_site() -> None:
    plan = msgspec.structs.replace(PLAN, peers=(), closed={"m": ("moon",)})
    assert route_table(plan, frozenset(), {}, None, 0.0).models["m"].verdict == "residency_refused"


def test_old_load_is_not_believed() -> None:
    observations = {"frankfurt": seen(0.0, wait_s=60.0)}
    route = route_table(PLAN, LOCAL, observations, None, 100.0).models["m"]
    assert route.shares[0].order[0] == "frankfurt"


# --- nodes of one site -----------------------------------------------------------------------------------------------


def of_nodes(*names: str, draining: str = "") -> SitePlan:
    nodes = tuple(SiteNode(name=name, address="127.0.0.1:1", draining=name == draining) for name in names)
    return msgspec.structs.replace(PLAN, nodes=nodes)


def order_at(plan: SitePlan, node: str, local: frozenset[str] = LOCAL) -> tuple[str, ...]:
    (share,) = route_table(plan, local, {}, None, 0.0, node).models["m"].shares
    return share.order


def test_siblings_come_before_other_sites_and_leave_room_for_them() -> None:
    plan = of_nodes("n1", "n2", "n3", "n4")
    assert order_at(plan, "n1") == ("frankfurt", "frankfurt/n2", "frankfurt/n3", "ashburn", "singapore")
    assert order_at(plan, "n3") == ("frankfurt", "frankfurt/n4", "frankfurt/n1", "ashburn", "singapore"), "in a ring"
    assert order_at(plan, "n1", frozenset())[0] == "frankfurt/n2"


def test_a_node_that_drains_is_no_place_and_still_asks_others() -> None:
    plan = of_nodes("n1", "n2", draining="n2")
    assert order_at(plan, "n1") == ("frankfurt", "ashburn", "singapore")
    assert order_at(plan, "n2", frozenset()) == ("frankfurt/n1", "ashburn", "singapore")


def test_a_sibling_is_of_its_site_for_every_policy() -> None:
    rule = ResidencyRule(policy="abroad", models=("m",), origin_sites=("frankfurt",), allow_sites=("ashburn",))
    plan = msgspec.structs.replace(of_nodes("n1", "n2"), residency=(rule,))
    assert order_at(plan, "n1") == ("ashburn",)


def test_payloads_over_slow_links_are_a_term_of_the_cost() -> None:
    slow = msgspec.structs.replace(PLAN.peers[0], bytes_per_s=1e6)
    plan = msgspec.structs.replace(PLAN, peers=(slow, PLAN.peers[1]))
    route = route_table(plan, LOCAL, {}, None, 0.0, payload_bytes={"m": 500_000.0}).models["m"]
    transfers = {place.site: place.terms.transfer_s for place in route.places}
    assert transfers == {"frankfurt": 0.0, "ashburn": 0.5, "singapore": 0.0}
    assert [place.site for place in route.places] == ["frankfurt", "singapore", "ashburn"]


def test_the_plans_shares_are_the_beginning_unless_the_plan_is_too_old() -> None:
    shares = (PlannedShare(site="frankfurt", share=0.4), PlannedShare(site="singapore", share=0.6))
    plan = msgspec.structs.replace(PLAN, routes={"m": shares})
    guided = route_table(plan, LOCAL, {}, None, 0.0).models["m"]
    assert [(share.percent, share.order[0]) for share in guided.shares] == [(60, "singapore"), (40, "frankfurt")]
    alone = route_table(plan, LOCAL, {}, None, 0.0, guided=False).models["m"]
    assert [(share.percent, share.order[0]) for share in alone.shares] == [(100, "frankfurt")]


def test_a_rule_shuts_a_place_although_the_plan_names_it() -> None:
    rule = ResidencyRule(policy="eu", models=("m",), allow_jurisdictions=("EU",))
    plan = msgspec.structs.replace(PLAN, residency=(rule,), routes={"m": (PlannedShare(site="ashburn", share=1.0),)})
    route = route_table(plan, LOCAL, {}, None, 0.0).models["m"]
    assert [share.order for share in route.shares] == [("frankfurt",)]


def test_licence_and_tenancy_shut_places_although_the_plan_says_that_they_hold_the_model() -> None:
    licensed = msgspec.structs.replace(PLAN, holding={"m": HoldingRule(tiers=("cloud",))})
    assert route_table(licensed, LOCAL, {}, None, 0.0).models["m"].verdict == "no_place_ready"
    tenants = {"ashburn": ("acme",), "frankfurt": ("acme", "umbra")}
    foreign = msgspec.structs.replace(PLAN, holding={"m": HoldingRule(tenant="umbra")}, tenants=tenants)
    assert route_table(foreign, LOCAL, {}, None, 0.0).models["m"].shares[0].order == ("frankfurt", "singapore")
    nobodys = msgspec.structs.replace(PLAN, tenants=tenants)
    assert route_table(nobodys, LOCAL, {}, None, 0.0).models["m"].shares[0].order == ("singapore",)


def test_a_site_that_is_cut_off_goes_on_among_those_that_it_reaches_and_comes_back() -> None:
    """The region's way out is cut: no control plane, no Ashburn; Singapore answers still."""
    routes = {"m": (PlannedShare(site="ashburn", share=0.6), PlannedShare(site="frankfurt", share=0.4))}
    plan = msgspec.structs.replace(PLAN, routes=routes)

    def table_at(second: int, before: RouteTable | None, *, cut: bool, wait_s: float = 0.5) -> RouteTable:
        observations = {
            "frankfurt": seen(second, wait_s=wait_s),
            "ashburn": Observation(second, reachable=not cut, round_trip_s=0.088, load=load()),
            "singapore": seen(second, round_trip_s=0.160),
        }
        return route_table(plan, LOCAL, observations, before, float(second), guided=not cut)

    def parts(table: RouteTable) -> dict[str, float]:
        return {place.site: place.weight for place in table.models["m"].places if place.weight}

    table = table_at(0, None, cut=False)
    assert parts(table) == {"ashburn": 0.6, "frankfurt": 0.4}
    table = table_at(1, table, cut=True)
    assert "ashburn" not in parts(table), "at once"
    for second in range(2, 30):
        table = table_at(second, table, cut=True)
        assert {share.order[0] for share in table.models["m"].shares} <= {"frankfurt", "singapore"}
    assert parts(table)["singapore"] > 0.5, "the queue at home is longer than the way to Singapore"
    for second in range(30, 60):
        table = table_at(second, table, cut=False)
    assert parts(table) == pytest.approx({"ashburn": 0.6, "singapore": 0.4}), "as planned, but for the queue at home"
    for second in range(60, 90):
        table = table_at(second, table, cut=False, wait_s=0.0)
    assert parts(table) == pytest.approx({"ashburn": 0.6, "frankfurt": 0.4})
