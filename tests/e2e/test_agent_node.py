"""One real node: agent, engine and Envoy as processes, plans and releases from a folder, no control plane."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.agent_node import AgentNode, Depot, Traffic, agent_node

pytestmark = pytest.mark.e2e


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    made = Depot(tmp_path)
    made.push("m", "1", 1.0)
    made.push("m", "2", 2.0)
    made.push("other", "1", 10.0)
    return made


@pytest.fixture
def node(tmp_path: Path, depot: Depot) -> Iterator[AgentNode]:
    with agent_node(tmp_path, depot) as made:
        yield made


def test_a_node_converges_and_a_version_change_fails_no_request(node: AgentNode, depot: Depot) -> None:
    depot.plan("m@1", "other@1")
    node.start()
    node.ready("m@1", "other@1")
    assert node.ask("m") == ("m@1", 1.0)
    assert node.ask("other") == ("other@1", 10.0)
    with Traffic(node.url, "m") as traffic:
        time.sleep(0.3)
        depot.plan("m@2", "other@1")
        node.ready("m@2", "other@1")
        time.sleep(0.3)
    assert not traffic.failures
    assert set(traffic.answers) == {"m@1", "m@2"}
    assert node.ask("m") == ("m@2", 2.0)
    assert node.stop() == 0
    assert node.records() == {}
    last = node.status()
    assert last is not None
    assert not last.gateway.ready
    assert not last.engine.ready
