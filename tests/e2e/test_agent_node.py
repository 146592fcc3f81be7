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
    assert node.layout.run_dir.is_dir()
    assert node.stop() == 0
    assert node.records() == {}
    assert not node.layout.run_dir.exists(), "a clean stop leaves nothing outside of the data directory"
    last = node.status()
    assert last is not None
    assert not last.gateway.ready
    assert not last.engine.ready


def test_a_killed_agent_leaves_everything_serving_and_the_next_one_adopts_it(node: AgentNode, depot: Depot) -> None:
    depot.plan("m@1")
    node.start()
    node.ready("m@1")
    before = node.records()
    url = node.url
    with Traffic(url, "m") as traffic:
        node.kill_agent()
        time.sleep(0.5)
        node.start()
        node.until("a gateway that is adopted", lambda _: "gateway adopted" in node.log_file.read_text())
        node.ready("m@1")
        assert node.records() == before
    assert not traffic.failures
    assert traffic.answers
    log = node.log_file.read_text()
    assert log.count("engine adopted") == log.count("gateway adopted") == 1
    depot.plan("m@2")
    node.ready("m@2")
    assert node.url == url
    assert node.records() == before, "a change needs no new process either"


def test_a_killed_engine_comes_back_with_all_its_models(node: AgentNode, depot: Depot) -> None:
    depot.plan("m@1", "other@1")
    node.start()
    node.ready("m@1", "other@1")
    first = node.pid("engine")
    os.kill(first, signal.SIGKILL)
    node.until("a new engine", lambda status: status.engine.restarts == 1 and node.pid("engine") != first)
    node.ready("m@1", "other@1")
    assert node.ask("m") == ("m@1", 1.0)
    assert node.ask("other") == ("other@1", 10.0)


def test_a_killed_gateway_comes_back_on_its_port(node: AgentNode, depot: Depot) -> None:
    depot.plan("m@1")
    node.start()
    node.ready("m@1")
    first, url = node.pid("gateway"), node.url
    os.kill(first, signal.SIGKILL)
    node.until("a new gateway", lambda status: status.gateway.ready and node.pid("gateway") != first)
    node.ready("m@1")
    assert node.url == url
    assert node.ask("m") == ("m@1", 1.0)


def test_a_node_boots_and_serves_without_an_uplink_on_the_ports_of_before(node: AgentNode, depot: Depot) -> None:
    depot.plan("m@1")
    node.start()
    node.ready("m@1")
    url = node.url
    assert node.stop() == 0
    depot.folder.rename(depot.folder.with_name("gone"))
    node.layout.status.unlink()
    node.start()
    node.ready("m@1")
    assert node.url == url
    assert node.ask("m") == ("m@1", 1.0)
    status = node.until("trouble is told", lambda status: status.conditions)
    assert [(item.type, item.reason) for item in status.conditions] == [("PlanTrusted", "Unreachable")]


def test_a_tampered_blob_is_refused_and_what_runs_keeps_running(node: AgentNode, depot: Depot) -> None:
    depot.plan("m@1")
    node.start()
    node.ready("m@1")
    depot.tamper("m@2")
    with Traffic(node.url, "m") as traffic:
        depot.plan("m@2")
        status = node.until(
            "the refusal", lambda status: any(item.reason == "DigestMismatch" for item in status.models)
        )
    assert not traffic.failures
    assert set(traffic.answers) == {"m@1"}
    found = {(item.version, item.state) for item in status.models}
    assert found == {("1", "ready"), ("2", "failed")}
    depot.push("m", "3", 3.0)
    depot.plan("m@3")
    node.ready("m@3")


def test_a_model_on_disk_that_was_changed_is_fetched_again_at_boot(node: AgentNode, depot: Depot) -> None:
    depot.plan("m@1")
    node.start()
    node.ready("m@1")
    assert node.stop() == 0
    (changed,) = node.layout.models.glob("[0-9a-f]*/model.onnx")
    changed.chmod(0o644)
    changed.write_bytes(b"\0" * changed.stat().st_size)
    node.layout.status.unlink()
    node.start()
    node.ready("m@1")
    assert node.ask("m") == ("m@1", 1.0)


def test_a_second_agent_on_one_directory_is_refused(node: AgentNode, depot: Depot) -> None:
    depot.plan("m@1")
    node.start()
    node.ready("m@1")
    command = [sys.executable, "-m", "nearcast.agent", "--data-dir", str(node.layout.data_dir)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 5
    assert f"another agent (process {node.process.pid if node.process else 0}) runs on" in second.stderr
    assert node.ask("m") == ("m@1", 1.0)


def test_a_hung_engine_is_replaced(node: AgentNode, depot: Depot) -> None:
    depot.plan("m@1")
    node.start()
    node.ready("m@1")
    first = node.pid("engine")
    os.kill(first, signal.SIGSTOP)
    node.until("a new engine", lambda status: status.engine.restarts == 1 and node.pid("engine") != first, 90.0)
    node.ready("m@1")
    node.until("the gateway to see it well", lambda _: node.answers("m"))
    assert node.ask("m") == ("m@1", 1.0)
