"""Demand, profile and capacity on their way from a client's requests to the control plane's API."""

from collections.abc import Iterator
from typing import Any

import pytest

from e2e.local_fleet import LocalFleet, eventually
from e2e.tiny_models import adder
from e2e.traffic import load

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def deployed(fleet: LocalFleet) -> Iterator[LocalFleet]:
    fleet.push("adder", "demand", adder(fleet.data_dir / "models" / "demand", 1.0))
    fleet.deploy("adder", "demand", "frankfurt")
    yield fleet
    fleet.run("delete", "deployment", "adder")


def told(fleet: LocalFleet, site: str) -> dict[str, Any]:
    """The whole status of a site's node, as the API has it."""
    nodes = fleet.json("get", "nodes")
    (found,) = [node for node in nodes["items"] if node["site"] == site]
    return found["status"]  # type: ignore[no-any-return]


def profiles(fleet: LocalFleet, site: str) -> list[dict[str, Any]]:
    return [profile for profile in told(fleet, site)["profiles"] if profile["model"] == "adder"]


def demand(fleet: LocalFleet, site: str) -> dict[str, float]:
    nothing = {"rate_per_s": 0.0, "request_bytes": 0.0, "answer_bytes": 0.0}
    return nothing | told(fleet, site)["demand"].get("adder", {})


def test_demand_is_told_where_clients_ask_and_cost_where_it_is_computed(deployed: LocalFleet) -> None:
    with load(deployed.gateway("singapore"), "adder", clients=2, pause_s=0.05) as running:
        # Reports come every thirty seconds or more without news; a demand that has come is news.
        eventually(lambda: demand(deployed, "singapore")["rate_per_s"] > 3, "the demand of singapore's clients")
        # Sizes are sampled: the first report may be without.
        eventually(lambda: demand(deployed, "singapore")["answer_bytes"] > 0, "the sizes of what they asked")
        asked = demand(deployed, "singapore")
        # The agent asks the engine for it every two seconds, and later where the cores are busy.
        eventually(lambda: bool(profiles(deployed, "frankfurt")), "the profile of frankfurt's node", timeout_s=90)
        here = told(deployed, "frankfurt")
    assert not running.outcome.failures
    assert running.outcome.sites == {"frankfurt"}
    assert "adder" not in here["demand"]  # it computes for singapore; none of its own clients asked
    assert asked["request_bytes"] > 0
    assert asked["answer_bytes"] > 0
    (profile,) = profiles(deployed, "frankfurt")
    assert 0 < profile["work_s"] <= profile["service_s"]
    assert here["capacity"]["workers"] == 1.0
    assert here["capacity"]["memory_bytes"] > profile["footprint_bytes"] > 0
    eventually(lambda: demand(deployed, "singapore")["rate_per_s"] < 0.5, "the demand to fade", timeout_s=50)
