"""What agents of release 0.2.0 read and write: plans that they accept, statuses that today's control plane does."""

import msgspec
import pytest

from fleets import plan_of_0_2
from nearcast.control.nodes import NodeView
from nearcast.control.publisher import facts_of
from nearcast.planning.fleet.guidance import Guidance
from nearcast.planning.plans import FleetFacts, site_plans
from nearcast.resources.kinds import KINDS, AnyResource
from nearcast.resources.plan import PlannedShare, decode_plan, encode_plan
from nearcast.resources.state import DesiredState
from nearcast.resources.status import NodeCapacity, NodeStatus

STATUS = b"""{
  "site": "frankfurt", "node": "n1", "software": "nearcast/0.2.0", "started_at": "2026-11-20T12:00:00Z",
  "plan_version": 4, "plan_revision": "sha256:1", "routed_version": 4,
  "gateway": {"url": "http://192.0.2.1:8080", "peer_address": "192.0.2.1:7443", "ready": true, "accepted": "x",
              "message": ""},
  "engine": {"ready": true, "restarts": 0, "message": ""},
  "models": [{"model": "m", "version": "1", "release": "sha256:0", "state": "ready", "reason": "", "message": "",
              "done_bytes": 8, "total_bytes": 8}],
  "load": {"application_utilization": 0.1, "named_metrics": {"m.wait_s": 0.0, "m.service_s": 0.01}},
  "peers": [{"site": "ashburn", "reachable": true, "round_trip_s": 0.09, "age_s": 1.0, "load": null, "message": ""}],
  "routes": {"m": [{"percent": 100, "order": ["frankfurt", "ashburn"]}]},
  "conditions": []
}"""
"""As an agent of 0.2.0 reports."""


def resource(kind: str, name: str, **spec: object) -> AnyResource:
    document = {"apiVersion": "nearcast.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return KINDS[kind].model_validate(document)


STATE = DesiredState.of(
    [
        resource("Site", "frankfurt", country="DE", link={"mbps": 100}, tenants=["acme"]),
        resource("Site", "ashburn", country="US", link={"mbps": 50}),
        resource("Model", "m", tiers=["edge"]),
        resource(
            "Deployment",
            "m",
            model="m",
            version="1",
            placement={"everywhere": True},
            tenant="acme",
            latencyTarget="150ms",
        ),
        resource("Policy", "p", match={"models": ["m"]}, residency={"countries": ["DE", "US"]}),
    ]
)
"""Everything that came after 0.2.0 is in use."""
GUIDANCE = Guidance(
    routes={
        name: {"m": (PlannedShare(site="frankfurt", share=0.5), PlannedShare(site="ashburn", share=0.5))}
        for name in ("frankfurt", "ashburn")
    }
)


CAPACITY = NodeCapacity(workers=1.0, memory_bytes=1)


def facts(status: NodeStatus) -> FleetFacts:
    """A fleet of the node of ``status``, and one of today in Ashburn."""
    new = msgspec.structs.replace(status, site="ashburn", capacity=CAPACITY)
    nodes = [NodeView(each.site, "n1", connected=True, status=each) for each in (status, new)]
    return facts_of("f", {("m", "1"): "sha256:0"}, nodes, [])


def test_its_status_is_understood_and_its_plan_has_nothing_that_it_does_not_know() -> None:
    status = msgspec.json.decode(STATUS, type=NodeStatus)
    found = facts(status)
    assert found.older == {"frankfurt"}
    plans = site_plans(STATE, found, "f", 5, GUIDANCE)
    old = plan_of_0_2.read(encode_plan(plans["frankfurt"]))
    assert [planned.model for planned in old.models] == ["m"]
    assert [peer.site.name for peer in old.peers] == ["ashburn"]
    assert old.revision == plans["frankfurt"].revision
    assert plans["ashburn"].routes, "the others get what they understand"
    assert plans["ashburn"].holding
    assert plans["ashburn"].targets_s == {"m": 0.15}
    assert plans["ashburn"].tenants == {"frankfurt": ("acme",)}
    assert plans["ashburn"].peers[0].bytes_per_s > 0.0
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        plan_of_0_2.read(encode_plan(plans["ashburn"]))


def test_its_plans_are_read_by_todays_agents() -> None:
    known = facts(msgspec.json.decode(STATUS, type=NodeStatus))
    old = plan_of_0_2.read(encode_plan(site_plans(STATE, known, "f", 5)["frankfurt"]))
    plan = decode_plan(msgspec.json.encode(old))
    assert (plan.site.name, plan.version, plan.holding, plan.routes) == ("frankfurt", 5, {}, {})


def test_a_node_that_is_upgraded_gets_everything() -> None:
    status = msgspec.json.decode(STATUS, type=NodeStatus)
    assert facts(msgspec.structs.replace(status, software="nearcast/0.3.0")).older == frozenset()
    told = msgspec.structs.replace(status, capacity=CAPACITY)
    assert facts(told).older == frozenset()
