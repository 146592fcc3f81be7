"""Machines on a network: joining by address and by name, a site of several nodes, and what happens when ways are cut.

One fleet for the module: lisbon has two nodes, madrid one, porto one whose peer listener nobody can reach. Every test
leaves it whole. Loads come from clients inside the hosts, and never retry by themselves.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from e2e.fleet_of_hosts import PEER, HostFleet, Machine, enter, fleet_of_hosts
from e2e.local_fleet import eventually, resource
from e2e.tiny_models import adder
from e2e.traffic import Load, load

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

UNREACHABLE = "10.77.0.250"
REFUSED = (
    "import socket, sys; s = socket.socket(); s.settimeout(5); sys.exit(s.connect_ex((sys.argv[1], int(sys.argv[2]))))"
)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostFleet]:
    with fleet_of_hosts(tmp_path_factory.mktemp("machines")) as made:
        made.apply(*(resource("Site", name, {"country": "PT"}) for name in ("lisbon", "madrid", "porto")))
        for version, constant in (("1", 1.0), ("2", 2.0)):
            made.push("adder", version, adder(made.folder / "models" / version, constant))
        made.join("lisbon", "l1", round_trip_ms=1)
        made.join("lisbon", "l2", f"https://{made.control.address}:7643", round_trip_ms=1)
        made.join("madrid", "m1", round_trip_ms=30)
        made.join("porto", "p1", made.url, "--advertise-peer", UNREACHABLE, round_trip_ms=10)
        eventually(lambda: [node["phase"] for node in made.nodes().values()] == ["Ready"] * 4, "four nodes")
        made.deploy("adder", "1", "lisbon", "porto")
        yield made


def asked(machine: Machine, *, clients: int = 4) -> AbstractContextManager[Load]:
    """A load by clients on the machine's own host."""
    return load(machine.gateway, "adder", clients=clients, pause_s=0.02, enter=enter(machine.host))


def more(running: Load, count: int, what: str) -> None:
    """Wait for so many more answers."""
    goal = running.outcome.total + count
    eventually(lambda: running.outcome.total >= goal, what)


def routed_locally(machine: Machine) -> bool:
    shares = machine.status()["routes"].get("adder", [])
    return bool(shares) and shares[0]["order"][0] == machine.site


def _only(running: Load, site: str) -> bool:
    """Whether ten answers in a row came from ``site``: a busy place lends a few of its requests to the next one."""
    seen = running.fresh()
    time.sleep(1.0)
    assert seen.failures == []
    return running.outcome.total >= 10 and running.outcome.sites == {site}


def test_every_gateway_answers_and_the_nearest_place_does(fleet: HostFleet) -> None:
    """Joined by name and by address; porto can be asked by nobody, serves its own clients, and asks others."""
    expected = {"lisbon/l1": "lisbon", "lisbon/l2": "lisbon", "madrid/m1": "lisbon", "porto/p1": "porto"}
    for name, machine in fleet.machines.items():
        with asked(machine, clients=1) as running:
            eventually(lambda running=running: running.outcome.total > 10, f"answers at {name}")
            eventually(lambda running=running, name=name: _only(running, expected[name]), f"{name}'s nearest place")
        assert running.outcome.failures == [], name


def test_listeners_are_bound_to_their_addresses_alone(fleet: HostFleet) -> None:
    machine = fleet.machines["lisbon/l1"]
    for host, port, answers in ((machine.host.address, PEER, True), ("127.0.0.1", PEER, False)):
        done = subprocess.run(machine.host.command([sys.executable, "-c", REFUSED, host, str(port)]), check=False)
        assert (done.returncode == 0) is answers, (host, port)


def test_round_trips_are_those_of_the_network(fleet: HostFleet) -> None:
    def trips(name: str) -> dict[str, float]:
        return {peer["site"]: peer["round_trip_s"] * 1000 for peer in fleet.machines[name].status()["peers"]}

    eventually(
        lambda: 30 <= trips("madrid/m1").get("lisbon", 0) < 90, "31 ms from madrid to lisbon, and some computing"
    )
    eventually(lambda: 0 < trips("lisbon/l1").get("lisbon/l2", 0) < 30, "a sibling is near")
    places = {
        place["site"]: place for place in fleet.json("route", "explain", "adder", "--site", "lisbon/l1")["places"]
    }
    assert places["lisbon"]["standing"] == "serving"
    assert places["lisbon/l2"]["standing"] == "standby"
    assert "lisbon/l2" in fleet.run("status").stdout


def test_loss_of_packets_fails_no_request(fleet: HostFleet) -> None:
    madrid = fleet.machines["madrid/m1"]
    madrid.host.link.loss = 0.05
    try:
        with asked(madrid) as running:
            more(running, 150, "answers over a lossy way")
    finally:
        madrid.host.link.loss = 0.0
    assert running.outcome.failures == []


def test_the_engine_of_a_node_dies(fleet: HostFleet) -> None:
    """Its own clients are answered by the sibling; those of others, too."""
    died, other = fleet.machines["lisbon/l1"], fleet.machines["madrid/m1"]
    with asked(died) as at_home, asked(other) as abroad:
        more(at_home, 30, "a load")
        more(abroad, 10, "a load")
        before = died.pid("engine")
        died.kill("engine")
        eventually(lambda: died.pid("engine") != before, "another engine")
        more(at_home, 50, "answers")
        more(abroad, 20, "answers")
        eventually(lambda: routed_locally(died), "a local place again")
    assert at_home.outcome.failures == []
    assert abroad.outcome.failures == []
    assert at_home.outcome.sites == {"lisbon"}, "a sibling comes before another site"


def test_a_way_between_two_nodes_is_cut_while_both_reach_the_control_plane(fleet: HostFleet) -> None:
    one, other = fleet.machines["lisbon/l1"].host, fleet.machines["madrid/m1"].host
    with asked(fleet.machines["madrid/m1"]) as running:
        more(running, 20, "a load")
        one.part_from(other)
        more(running, 100, "answers by the other node")
        one.meet(other)
        more(running, 20, "answers")
        one.lose_way_to(other)  # one way: requests arrive, answers do not
        more(running, 100, "answers by the other node")
        one.find_way_to(other)
    assert running.outcome.failures == []


def test_a_site_that_the_control_plane_cannot_reach_goes_on_and_catches_up(fleet: HostFleet) -> None:
    lisbon, control = [fleet.machines["lisbon/l1"], fleet.machines["lisbon/l2"]], fleet.control
    with asked(lisbon[0]) as at_home, asked(fleet.machines["madrid/m1"]) as abroad:
        for machine in lisbon:
            machine.host.part_from(control)
        eventually(lambda: not fleet.nodes()["lisbon/l1"]["connected"], "silence", timeout_s=60)
        fleet.deploy("adder", "2", "lisbon", "porto", wait=False)
        more(at_home, 30, "answers")
        more(abroad, 10, "answers through a peer")
        assert at_home.outcome.values == {2.0}, "version 1 goes on: 1.0 and its constant"
        for machine in lisbon:
            machine.host.meet(control)
        fleet.run("wait", "deployment/adder", "--for", "ready", "--timeout", "60s")
        eventually(lambda: 3.0 in at_home.outcome.values and 3.0 in abroad.outcome.values, "the new version")
    assert at_home.outcome.failures == []
    assert abroad.outcome.failures == []


def test_the_control_plane_is_gone_and_back(fleet: HostFleet) -> None:
    with asked(fleet.machines["madrid/m1"]) as running:
        fleet.control.power_off()
        assert fleet.process is not None
        fleet.process.wait(10)
        more(running, 50, "answers without a control plane")
        fleet.control.mend()
        fleet.start_control()
        eventually(lambda: all(node["connected"] for node in fleet.nodes().values()), "every node again")
    assert running.outcome.failures == []


def test_a_site_that_reaches_nobody_serves_its_own(fleet: HostFleet) -> None:
    porto = fleet.machines["porto/p1"]
    with asked(porto) as running:
        porto.host.pull_cable()
        more(running, 50, "answers")
        porto.host.mend()
        eventually(lambda: fleet.nodes()["porto/p1"]["connected"], "its reports")
    assert running.outcome.failures == []


def test_drain_a_node_and_bring_it_back(fleet: HostFleet) -> None:
    """No request fails, its own gateway goes on answering, and nothing forgets it."""
    node = fleet.machines["lisbon/l1"]
    with asked(node) as at_home, asked(fleet.machines["madrid/m1"]) as abroad:
        more(at_home, 20, "a load")
        refused = fleet.run("delete", "node/lisbon/l1", check=False)
        assert refused.returncode != 0
        assert "nearcast drain lisbon/l1" in refused.stderr
        assert fleet.json("drain", "lisbon/l1")["phase"] == "Drained"
        assert node.status()["models"] == []
        more(at_home, 20, "answers by the sibling")
        node.stop()
        fleet.control.power_off()
        assert fleet.process is not None
        fleet.process.wait(10)
        fleet.control.mend()
        fleet.start_control()
        before = at_home.fresh()  # its gateway is stopped with it, and so are the connections of its own clients
        node.start()
        eventually(lambda: fleet.nodes()["lisbon/l1"]["gateway_ready"], "the gateway again")
        assert fleet.nodes()["lisbon/l1"]["phase"] == "Drained"
        at_home.fresh()
        more(at_home, 20, "answers by the sibling")
        fleet.run("undrain", "lisbon/l1")
        eventually(lambda: routed_locally(node), "its own engine again")
        more(at_home, 20, "answers")
    broken = ("Connect", "Disconnect", "Can not write request body")
    other = [each for each in before.failures if not any(words in each for words in broken)]
    assert other == [], "of a gateway that is stopped clients see broken connections, and nothing else"
    assert at_home.outcome.failures == []
    assert abroad.outcome.failures == []


def test_a_node_is_powered_off_and_removed(fleet: HostFleet) -> None:
    """The last one, since the node does not come back."""
    dead = fleet.machines["lisbon/l2"]
    with asked(fleet.machines["lisbon/l1"]) as sibling, asked(fleet.machines["madrid/m1"]) as abroad:
        more(abroad, 20, "a load")
        dead.host.power_off()
        more(abroad, 60, "answers")
        more(sibling, 60, "answers")
        eventually(lambda: not fleet.nodes()["lisbon/l2"]["connected"], "silence", timeout_s=60)
        assert "l2" in fleet.run("describe", "site/lisbon").stdout
        fleet.run("delete", "node/lisbon/l2")
        assert "lisbon/l2" not in fleet.nodes()
        fleet.run("wait", "deployment/adder", "--for", "ready", "--timeout", "60s")
        more(abroad, 20, "answers")
    assert sibling.outcome.failures == []
    assert abroad.outcome.failures == []
