"""What a real node tells of its clients' demand, of its models' cost and of its capacity."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from e2e.agent_node import BODY, AgentNode, Depot, agent_node

REQUESTS = 120


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentNode]:
    folder: Path = tmp_path_factory.mktemp("demand")
    depot = Depot(folder)
    depot.push("adder", "1", 1.0)
    depot.push("nowhere", "1", 1.0)
    depot.plan("adder@1")
    with agent_node(folder, depot) as started:
        started.start()
        started.ready("adder@1")
        yield started


def test_what_clients_ask_is_told_with_the_size_of_what_they_send(node: AgentNode) -> None:
    body = httpx.Request("POST", "http://any", json=BODY).content
    with httpx.Client() as client:
        for _ in range(REQUESTS):
            answer = client.post(f"{node.url}/v2/models/adder/infer", json=BODY)
            assert answer.status_code == 200
            # neither of these is demand: nobody deployed the one, the other is the caller's to change
            client.post(f"{node.url}/v2/models/nobody/infer", json=BODY)
            assert client.post(f"{node.url}/v2/models/adder/infer", json={"inputs": []}).status_code == 400
    status = node.until("demand is told", lambda told: told.demand.get("adder") and told.demand["adder"].request_bytes)
    assert set(status.demand) == {"adder"}
    demand = status.demand["adder"]
    assert 0 < demand.rate_per_s < REQUESTS
    assert demand.request_bytes == pytest.approx(len(body))
    assert demand.answer_bytes == pytest.approx(len(answer.content), rel=0.2)


def test_a_model_that_no_place_has_is_asked_for_all_the_same(node: AgentNode) -> None:
    for _ in range(20):
        assert httpx.post(f"{node.url}/v2/models/nowhere/infer", json=BODY).status_code == 503
    status = node.until("demand is told", lambda told: "nowhere" in told.demand)
    assert status.demand["nowhere"].rate_per_s > 0


def test_a_demand_that_has_ended_fades(node: AgentNode) -> None:
    before = node.until("some demand", lambda told: told.demand).demand
    model, asked = next(iter(before.items()))
    node.until(
        "it fades",
        lambda told: told.demand[model].rate_per_s < asked.rate_per_s / 2 if model in told.demand else True,
    )


def test_the_profile_and_the_capacity_are_told(node: AgentNode) -> None:
    status = node.until("a profile", lambda told: told.profiles)
    (profile,) = status.profiles
    assert (profile.model, profile.version) == ("adder", "1")
    assert 0 < profile.work_s <= profile.service_s
    assert profile.curve
    assert profile.footprint_bytes > 0
    assert profile.load_s > 0
    assert status.capacity is not None
    assert status.capacity.workers == 1.0
    assert status.capacity.memory_bytes > profile.footprint_bytes
