"""SIGSTOP: a process that neither works nor dies. Its sockets still accept, so only time tells.

One fleet for the whole module; every test leaves it whole. Requests have 20 seconds in all, with every client.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from e2e.local_fleet import LocalFleet, eventually, local_fleet
from e2e.tiny_models import adder
from e2e.traffic import Load, load

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

HOLDERS = ("frankfurt", "ashburn")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFleet]:
    with local_fleet(tmp_path_factory.mktemp("grey")) as running:
        running.push("adder", "1", adder(running.data_dir / "models", 1.0))
        running.deploy("adder", "1", *HOLDERS)
        yield running


def _stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def _is_new(fleet: LocalFleet, site: str, component: str, pid: int) -> Callable[[], bool]:
    return lambda: fleet.pids(site).get(component, pid) != pid


def test_a_stopped_engine_is_routed_around_and_then_replaced(fleet: LocalFleet) -> None:
    with load(fleet.gateway("frankfurt"), "adder") as running:
        eventually(lambda: running.outcome.total > 50, "a load")
        engine = fleet.pids("frankfurt")["engine"]
        _stop(engine)
        began_s = time.monotonic()
        running.fresh()
        eventually(lambda: "ashburn" in running.outcome.sites, "answers from the other place", pause_s=0.05)
        assert time.monotonic() - began_s < 10, "built for 3 s"
        eventually(_is_new(fleet, "frankfurt", "engine", engine), "a new engine")
        before = running.fresh()
        eventually(lambda: "frankfurt" in running.outcome.sites, "answers from the new engine")
    assert before.failures == []
    assert running.outcome.failures == []


def test_a_stopped_gateway_of_a_peer_is_routed_around_and_then_replaced(fleet: LocalFleet) -> None:
    with load(fleet.gateway("singapore"), "adder") as running:
        eventually(lambda: running.outcome.total > 20, "a load")
        nearest = running.outcome.answers.most_common(1)[0][0][0]
        other = next(site for site in HOLDERS if site != nearest)
        gateway = fleet.pids(nearest)["gateway"]
        _stop(gateway)
        running.fresh()
        eventually(lambda: other in running.outcome.sites, "answers from the other place")
        eventually(_is_new(fleet, nearest, "gateway", gateway), "a new gateway")
        before = running.fresh()
        eventually(lambda: running.outcome.total > 20, "answers")
    assert before.failures == []
    assert running.outcome.failures == []


def test_a_stopped_gateway_is_replaced_on_its_port(fleet: LocalFleet) -> None:
    """A client that is connected to it has no other way; what is inside ends as a broken connection, not as silence."""
    address = fleet.gateway("frankfurt")
    with load(address, "adder") as running:
        eventually(lambda: running.outcome.total > 20, "a load")
        gateway = fleet.pids("frankfurt")["gateway"]
        _stop(gateway)
        eventually(_is_new(fleet, "frankfurt", "gateway", gateway), "a new gateway")
        broken = running.fresh()
        eventually(lambda: running.outcome.total > 20, "answers on the same port")
    assert not any("TimeoutError" in failure for failure in broken.failures), broken.failures
    assert fleet.gateway("frankfurt") == address


def test_a_stopped_agent_costs_nothing_and_catches_up(fleet: LocalFleet) -> None:
    before = fleet.pids("frankfurt")
    with load(fleet.gateway("frankfurt"), "adder") as running:
        eventually(lambda: running.outcome.total > 20, "a load")
        _stop(before["agent"])
        fleet.push("adder", "2", adder(fleet.data_dir / "models2", 2.0))
        fleet.deploy("adder", "2", *HOLDERS, wait=False)
        eventually(_answers(running, 3.0), "the version of now, once the agent goes on", timeout_s=60)
        fleet.run("wait", "deployment/adder", "--for", "ready", "--timeout", "60s")
    assert running.outcome.failures == []
    assert fleet.pids("frankfurt") == before, "it went on, and nothing else was touched"
    assert "told to go on" in (fleet.data_dir / "supervisor.log").read_text()


def _answers(running: Load, value: float) -> Callable[[], bool]:
    return lambda: ("frankfurt", value) in running.outcome.answers


def test_a_stopped_control_plane_is_said_in_words_and_costs_no_answer(fleet: LocalFleet) -> None:
    control = _control_pid(fleet)
    with load(fleet.gateway("frankfurt"), "adder") as running:
        eventually(lambda: running.outcome.total > 20, "a load")
        _stop(control)
        try:
            refused = fleet.run("get", "sites", check=False)
        finally:
            os.kill(control, signal.SIGCONT)
        eventually(lambda: fleet.run("get", "sites", check=False).returncode == 0, "a control plane that goes on")
    assert refused.returncode != 0
    assert "did not answer in 5 s" in refused.stderr
    assert "stopped, hung or overloaded" in refused.stderr
    assert running.outcome.failures == []
    assert _control_pid(fleet) == control


def _control_pid(fleet: LocalFleet) -> int:
    records = json.loads((fleet.data_dir / "processes.json").read_bytes())
    return int(records["children"]["control"]["pid"])
