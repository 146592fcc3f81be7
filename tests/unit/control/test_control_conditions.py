"""What plans say of a model, and since when: the part of readiness that must not flap."""

import msgspec

from nearcast.control.conditions import introduced, slices
from nearcast.resources.plan import Peer, PlannedModel, ResidencyRule, ServedModel, SiteFacts, SitePlan

FRA = SiteFacts(name="fra", tier="edge", country="DE")
IAD = SiteFacts(name="iad", tier="edge", country="US")


def plan(
    version: int, *, own: str = "", peer: str = "", address: str = "iad:1", catalog: tuple[str, ...] = ("m",)
) -> SitePlan:
    models = (PlannedModel(model="m", version=own, release="", deployment="m"),) if own else ()
    served = (ServedModel(model="m", version=peer),) if peer else ()
    peers = (Peer(site=IAD, addresses=(address,) if address else (), server_name="", round_trip_s=0.1, models=served),)
    return SitePlan(fleet="f", site=FRA, version=version, revision="", models=models, peers=peers, catalog=catalog)


def test_a_plan_says_of_a_model_where_it_is_and_whether_it_can_be_reached() -> None:
    assert slices(plan(1, own="1", peer="2")) == {"m": (("fra", "1", True), ("iad", "2", True))}
    assert slices(plan(1, peer="2", address="")) == {"m": (("iad", "2", False),)}
    assert slices(plan(1)) == {"m": ()}


def test_the_version_that_introduced_it_stays_while_the_same_is_said() -> None:
    first = introduced(plan(3, own="1"), None)
    assert first.introduced["m"][1] == 3
    moved_port = introduced(plan(4, own="1", peer=""), first)
    assert moved_port.introduced["m"][1] == 3
    more = introduced(plan(5, own="1", catalog=("m", "other")), moved_port)
    assert (more.introduced["m"][1], more.introduced["other"][1]) == (3, 5)
    new_version = introduced(plan(6, own="2"), more)
    assert new_version.introduced["m"][1] == 6


def test_another_port_of_a_peer_is_the_same_but_a_first_address_is_not() -> None:
    unreachable = introduced(plan(1, peer="1", address=""), None)
    reachable = introduced(plan(2, peer="1", address="iad:1"), unreachable)
    elsewhere = introduced(plan(3, peer="1", address="iad:2"), reachable)
    assert [item.introduced["m"][1] for item in (unreachable, reachable, elsewhere)] == [1, 2, 2]


def test_a_rule_is_enforced_from_the_version_that_brought_it() -> None:
    rule = ResidencyRule(policy="eu", allow_jurisdictions=("EU",))
    first = introduced(plan(version=4), None)
    second = introduced(msgspec.structs.replace(plan(version=5), residency=(rule,)), first)
    third = introduced(msgspec.structs.replace(plan(version=6), residency=(rule,)), second)
    assert first.bound == {}
    assert second.bound == {"eu": (rule, 5)}
    assert third.bound == {"eu": (rule, 5)}, "another change of the plan is none of the rule"
    changed = msgspec.structs.replace(rule, models=("m",))
    assert introduced(msgspec.structs.replace(plan(version=7), residency=(changed,)), third).bound == {
        "eu": (changed, 7)
    }
