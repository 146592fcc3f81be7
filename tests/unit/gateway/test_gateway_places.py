"""From a route table to what the gateway may do: the last checks before Envoy."""

import dataclasses

import msgspec
import pytest

from nearcast.gateway.render import GatewayInputs, Listen, LocalModel, render
from nearcast.gateway.render.places import NotReady, Refused, Routed, decisions, patience_s, turn_cluster, turns
from nearcast.planning.cost import Terms
from nearcast.planning.routes import ModelRoute, PlaceCost, RefusedPlace, RouteTable
from nearcast.resources.plan import Peer, ResidencyRule, ServedModel, SiteFacts, SitePlan
from nearcast.resources.status import Share

FRA = SiteFacts(name="fra", tier="edge", country="DE", jurisdictions=("EU",))
IAD = SiteFacts(name="iad", tier="edge", country="US")
HOME = ResidencyRule(policy="home", models=("m",), allow_countries=("DE",))


def inputs(
    *shares: tuple[int, str], rules=(), addresses=("192.0.2.1:1",), local=True, refused=(), longest_ms=()
) -> GatewayInputs:
    peer = Peer(
        site=IAD,
        addresses=addresses,
        server_name="iad.f",
        round_trip_s=0.1,
        models=(ServedModel(model="m", version="1"),),
    )
    plan = SitePlan(fleet="f", site=FRA, version=1, revision="", peers=(peer,), residency=rules, catalog=("m",))
    rows = tuple(Share(percent=percent, order=tuple(order.split(">"))) for percent, order in shares)
    return GatewayInputs(
        plan=plan,
        node="n",
        listen=Listen("127.0.0.1", 1, "127.0.0.1", 2),
        run_dir="/r",
        envoy_dir="/e",
        local=(LocalModel("m", "2", "/r/m"),) if local else (),
        active={"m": "2"},
        routes=RouteTable(models={"m": ModelRoute("routed", rows, refused=refused, longest_ms=longest_ms)}),
    )


def decided(given: GatewayInputs):
    return decisions(given)["m"]


def orders(decision) -> list[tuple[int, str]]:
    assert isinstance(decision, Routed)
    return [(share.percent, ">".join(share.order)) for share in decision.shares]


def test_what_the_table_says_is_done_where_nothing_speaks_against_it():
    assert orders(decided(inputs((70, "fra>iad"), (30, "iad>fra")))) == [(70, "fra>iad"), (30, "iad>fra")]


def test_unknown_unreachable_repeated_and_refused_sites_are_left_out():
    assert orders(decided(inputs((100, "fra>mars>iad>fra")))) == [(100, "fra>iad")]
    assert orders(decided(inputs((100, "iad>fra"), addresses=()))) == [(100, "fra")]
    assert orders(decided(inputs((100, "fra>iad"), local=False))) == [(100, "iad")]
    assert orders(decided(inputs((100, "iad>fra"), rules=(HOME,)))) == [(100, "fra")]


def test_shares_that_become_equal_are_added():
    assert orders(decided(inputs((70, "fra>iad"), (30, "iad>fra"), addresses=()))) == [(100, "fra")]
    assert orders(decided(inputs((70, "fra>iad"), (0, "iad>fra")))) == [(70, "fra>iad")]


def test_no_place_allowed_is_refused_and_no_place_ready_is_not():
    abroad = ResidencyRule(policy="abroad", allow_countries=("SG",))
    assert decided(inputs((100, "fra>iad"), rules=(abroad, HOME))) == Refused(("abroad", "home"))
    assert decided(inputs((100, "iad"), rules=(HOME,), local=False)) == Refused(("home",))
    assert decided(inputs((100, "fra"), local=False, addresses=())) == NotReady()


def test_a_refusal_that_only_the_route_table_knows_of_counts():
    given = inputs(refused=(RefusedPlace("sin", ("table",)),), local=False)
    plan = SitePlan(fleet="f", site=FRA, version=1, revision="", catalog=("m",))
    assert decided(dataclasses.replace(given, plan=plan)) == Refused(("table",))


def test_a_model_that_nobody_holds_because_policies_close_every_site_is_refused():
    plan = SitePlan(fleet="f", site=FRA, version=1, revision="", catalog=("m",), closed={"m": ("moon",)})
    given = dataclasses.replace(inputs(local=False), plan=plan)
    assert decided(given) == Refused(("moon",))
    assert "moon" in str(render(given).routes["public"].resources)


def test_an_order_with_another_local_version_is_another_cluster():
    given = inputs((100, "fra>iad"))
    other = dataclasses.replace(given, local=(LocalModel("m", "3", "/r/m3"),), active={"m": "3"})
    names = {turn_cluster(each, "m", turns(each, decided(each))[0]) for each in (given, other)}
    assert names == {"order:m:fra@2>iad>fra@2", "order:m:fra@3>iad>fra@3"}
    assert turn_cluster(given, "m", ("fra",)) == "engine:m@2"


def test_who_has_asked_all_asks_the_first_once_more_and_this_site_at_last():
    given = inputs((70, "fra>iad"), (30, "iad>fra"))
    # As many attempts in each share: Envoy has one number for all, and an attempt beyond the last place is lost.
    assert turns(given, decided(given)) == (("fra", "iad", "fra", "fra"), ("iad", "fra", "iad", "fra"))
    (route,) = [route for route in routes_of(given) if "route" in route]
    assert route["route"]["retry_policy"]["num_retries"] == 3


def test_the_only_place_is_asked_no_more_often_for_another_share():
    given = inputs((70, "iad"), (30, "iad>fra"))
    assert turns(given, decided(given)) == (("iad",), ("iad", "fra", "iad", "fra"))


def test_nodes_of_a_site_are_tried_twice_in_turn():
    given = inputs((100, "iad>fra"), addresses=("192.0.2.1:1", "192.0.2.2:1"))
    assert turns(given, decided(given)) == (("iad", "iad", "fra", "iad", "fra"),)


def test_listeners_and_bootstrap_do_not_follow_models_peers_or_shares():
    first, second = (
        render(inputs((100, "fra>iad"))),
        render(inputs((100, "fra"), addresses=(), rules=(HOME,), local=False)),
    )
    assert first.listeners.version == second.listeners.version
    assert first.bootstrap == second.bootstrap
    assert first.clusters.version != second.clusters.version


def test_another_emulated_site_changes_routes_and_no_listener():
    given = inputs((100, "fra"))

    def emulating(*sites: str):
        plan = msgspec.structs.replace(given.plan, emulated_round_trip_s=dict.fromkeys(sites, 0.1))
        return render(dataclasses.replace(given, plan=plan))

    one, two = emulating("iad"), emulating("iad", "sin")
    assert one.listeners.version == two.listeners.version
    assert one.routes["peer"].version != two.routes["peer"].version
    assert emulating().listeners.version != one.listeners.version
    nine = emulating(*(f"s{n}" for n in range(9)))
    slots = [name for name in str(nine.listeners.resources).split("'") if name.startswith("delay:")]
    used = nine.routes["peer"].resources[0]["typed_per_filter_config"]
    assert set(used) <= set(slots)
    assert len(used) == 9


def test_an_address_that_is_none_costs_that_peer_only():
    usable = ("192.0.2.1:1",)
    for odd in ("a:b", "evil host:1", "edge.example:7001", "192.0.2.1:99999", "192.0.2.1:0", "", "::1:7001"):
        assert render(inputs((100, "fra>iad"), addresses=(odd, *usable))) == render(
            inputs((100, "fra>iad"), addresses=usable)
        )
        assert render(inputs((100, "fra>iad"), addresses=(odd,))) == render(inputs((100, "fra>iad"), addresses=()))


@pytest.mark.parametrize(
    ("expected_s", "patience"),
    [
        ({"fra": 0.004, "iad": 0.1}, 15),
        ({"fra": 1.5, "iad": 0.1}, 15),
        ({"fra": 0.004, "iad": 1.6}, 30),  # the slowest place counts
        ({"fra": 12, "iad": 0.1}, 120),
        ({"fra": 0.004, "iad": 12.1}, None),
        ({"fra": 0.004, "iad": None}, 120),  # nothing was told of it
        ({"fra": 0.004}, 120),
        ({"fra": 0.004, "iad": 0.1, "sin": 60}, 15),  # not asked
        ({}, 120),
    ],
)
def test_patience_follows_from_the_slowest_place_that_is_asked(expected_s, patience):
    places = tuple(
        PlaceCost(name, "ready", Terms() if seconds is None else Terms(wait_s=seconds * 0.75, service_s=seconds / 4), 0)
        for name, seconds in expected_s.items()
    )
    given = inputs((50, "fra>iad"), (50, "fra"))
    route = dataclasses.replace(given.routes.models["m"], places=places)
    given = dataclasses.replace(given, routes=RouteTable(models={"m": route}))
    assert patience_s(given, "m", decided(given).shares) == patience


def test_where_there_is_one_place_nobody_else_is_asked():
    (alone,) = (route for route in routes_of(inputs((100, "iad"))) if "route" in route)
    assert "hedge_policy" not in alone["route"]
    assert "per_try_timeout" not in alone["route"]["retry_policy"]
    (several,) = (route for route in routes_of(inputs((100, "fra>iad"))) if "route" in route)
    assert several["route"]["hedge_policy"] == {"hedge_on_per_try_timeout": True}
    assert several["route"]["retry_policy"]["per_try_timeout"] == "120s"


def routes_of(given: GatewayInputs) -> list[dict]:
    (public,) = render(given).routes["public"].resources
    tree = public["virtual_hosts"][0]["matcher"]["matcher_tree"]
    return tree["exact_match_map"]["map"]["m"]["action"]["typed_config"]["routes"]


def longest(given: GatewayInputs) -> tuple[tuple[tuple[str, int], ...], ...]:
    decision = decided(given)
    assert isinstance(decision, Routed)
    return decision.longest_ms


def test_how_long_a_request_may_wait_goes_with_the_places_that_are_left():
    assert longest(inputs((70, "fra>iad"), (30, "iad>fra"), longest_ms=((20,), (40, 80)))) == (
        (("fra", 20),),
        (("iad", 40), ("fra", 80)),
    )
    # iad is left out, so fra is the last place: it takes what it has room for
    assert longest(inputs((100, "fra>iad"), addresses=(), longest_ms=((20,),))) == ((),)
    assert longest(inputs((100, "fra>iad"))) == ((),)


def test_longest_waits_are_told_to_places_and_are_no_matter_of_shape():
    given = inputs((70, "fra>iad"), (30, "iad>fra"), longest_ms=((20,), (40, 80)))
    files = render(given)
    text = files.routes["public"].encode().decode()
    assert '"key":"x-nearcast-longest-wait","value":"fra=20;2"' in text
    assert '"key":"x-nearcast-longest-wait","value":"iad=40,fra=80"' in text
    assert render(inputs((70, "fra>iad"), (30, "iad>fra"), longest_ms=((10,), (40, 160)))).shape == files.shape
    only = render(inputs((100, "fra>iad"), longest_ms=((20,),))).routes["public"].encode().decode()
    assert only.count('"value":"fra=20;2"') == 1
