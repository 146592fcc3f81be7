"""``nearcast up`` and its kin on a whole fleet: run again, broken, repaired, looked at, and gone."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.local_fleet import NEARCAST, LocalFleet, eventually, local_fleet
from e2e.tiny_models import adder
from nearcast.cli.fleet import LocalPaths
from nearcast.cli.pids import is_alive

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SITES = ("frankfurt", "ashburn", "singapore")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFleet]:
    with local_fleet(tmp_path_factory.mktemp("up")) as running:
        running.push("adder", "1", adder(running.data_dir / "models" / "1", 1.0))
        running.deploy("adder", "1", "frankfurt")
        yield running


def gateways(fleet: LocalFleet) -> dict[str, str]:
    return {site["name"]: site["gateway_url"] for site in fleet.status()["sites"]}


def kill_recorded(fleet: LocalFleet, *names: str) -> None:
    """``kill -9`` of processes by their names in ``processes.json``."""
    processes = LocalPaths(fleet.data_dir).read_processes()
    assert processes is not None
    records = {"supervisor": processes.supervisor, **processes.children}
    for name in names:
        os.kill(records[name].pid, signal.SIGKILL)
    eventually(lambda: not any(is_alive(records[name]) for name in names), "the killed ones to be gone")


def test_status_tells_what_programs_rely_on(fleet: LocalFleet) -> None:
    status = fleet.status()
    assert status["control"]["url"].startswith("https://127.0.0.1:")
    assert {(site["name"], site["country"], site["ready"]) for site in status["sites"]} == {
        ("frankfurt", "DE", True),
        ("ashburn", "US", True),
        ("singapore", "SG", True),
    }
    table = fleet.run("status").stdout
    assert all(url in table for url in gateways(fleet).values())
    eventually(lambda: "reachable" in fleet.run("status").stdout, "round trips between the sites")


@pytest.mark.parametrize("site", SITES)
def test_infer_tells_where_the_answer_comes_from(fleet: LocalFleet, site: str) -> None:
    found = json.loads(fleet.run("infer", "adder", "--site", site, "--input", "x=[[1, 2, 3, 4]]", "-o", "json").stdout)
    assert found["answer"]["outputs"][0]["data"] == [[2.0, 3.0, 4.0, 5.0]]
    assert (found["site"], found["model"]) == ("frankfurt", "adder@1")
    assert found["reason"].startswith("local" if site == "frankfurt" else "nearest")
    assert found["timings_ms"].keys() >= {"gateway", "upstream", "queue", "compute", "total"}
    floor_ms = {"frankfurt": 0.0, "ashburn": 88.0, "singapore": 160.0}[site]
    assert found["timings_ms"]["total"] >= floor_ms, "the emulated round trip"


def test_route_explain_tells_every_term(fleet: LocalFleet) -> None:
    found = fleet.json("route", "explain", "adder", "--site", "singapore")
    assert found["verdict"] == "routed"
    places = {place["site"]: place for place in found["places"]}
    assert places["frankfurt"]["share_percent"] == 100
    assert places["frankfurt"]["round_trip_ms"] >= 150
    assert places["ashburn"]["standing"] == "not_placed"


def test_an_unknown_model_is_not_found(fleet: LocalFleet) -> None:
    done = fleet.run("infer", "addr", "--site", "ashburn", "--input", "[1]", check=False)
    assert done.returncode == 4
    assert "model_not_found" in done.stderr


def test_up_on_a_running_fleet_says_so_and_prints_the_same_table(fleet: LocalFleet) -> None:
    done = fleet.run("up", "--detach")
    assert "is running already" in done.stderr
    assert all(url in done.stdout for url in gateways(fleet).values())
    assert done.stdout.count("model push magika") == 1


def test_logs_of_every_component(fleet: LocalFleet) -> None:
    assert "serving the fleet" in fleet.run("logs", "control", "--tail", "1000").stdout
    assert fleet.run("logs", "frankfurt", "--component", "agent").stdout.strip()
    everything = fleet.run("logs").stdout
    assert "supervisor" in everything
    assert "singapore/agent" in everything


def test_without_a_control_plane_the_nodes_are_asked_and_up_repairs(fleet: LocalFleet) -> None:
    before = gateways(fleet)
    kill_recorded(fleet, "supervisor", "control", "agent:ashburn")
    done = fleet.run("status", "-o", "json")
    status = json.loads(done.stdout)
    assert status["control"]["reachable"] is False
    assert {site["name"]: site["gateway_url"] for site in status["sites"]} == before
    assert all(site["ready"] for site in status["sites"]), "gateways outlive the agents"
    assert "what the nodes say themselves" in done.stderr
    assert fleet.run("get", "sites", check=False).returncode == 6
    assert fleet.run("infer", "adder", "--site", "ashburn", "--input", "[1, 2, 3, 4]").returncode == 0
    engines = {site: fleet.pids(site)["engine"] for site in SITES}
    fleet.run("up", "--detach")
    assert gateways(fleet) == before
    assert {site: fleet.pids(site)["engine"] for site in SITES} == engines, "adopted, not restarted"


def test_ports_survive_a_restart_and_down_leaves_nothing(fleet: LocalFleet) -> None:
    before = gateways(fleet)
    done = fleet.run("down")
    assert "none of its processes is left" in done.stderr
    assert all(fleet.pids(site) == {} for site in SITES)
    assert fleet.run("status", check=False).returncode == 6
    port = int(before["ashburn"].rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        refused = fleet.run("up", "--detach", check=False)
    assert refused.returncode == 5
    assert f"{port} (gateway of ashburn)" in refused.stderr
    fleet.run("up", "--detach")
    assert gateways(fleet) == before
    fleet.run("wait", "deployment/adder", "--for", "ready", "--timeout", "60s")
    assert fleet.run("infer", "adder", "--site", "singapore", "--input", "[1, 2, 3, 4]").returncode == 0


def test_a_site_whose_folder_is_gone_comes_back_as_a_new_node(fleet: LocalFleet) -> None:
    before = gateways(fleet)
    fleet.run("down")
    shutil.rmtree(fleet.data_dir / "sites" / "frankfurt")
    fleet.run("up", "--detach")
    frankfurt = next(site for site in fleet.status()["sites"] if site["name"] == "frankfurt")
    assert [node["name"] for node in frankfurt["nodes"]] == ["frankfurt-2"]
    assert gateways(fleet) == before
    fleet.run("wait", "deployment/adder", "--for", "ready")


def test_down_removes_data_only_when_told(fleet: LocalFleet) -> None:
    refused = subprocess.run(
        [*NEARCAST, "down", "--delete-data", "--data-dir", str(fleet.data_dir)],
        input="n\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 2
    assert all(site["ready"] for site in fleet.status()["sites"])


def test_in_the_foreground_an_interrupt_stops_everything(tmp_path: Path) -> None:
    sites = tmp_path / "sites.yaml"
    sites.write_text("apiVersion: nearcast.dev/v1alpha1\nkind: Site\nmetadata: {name: alone}\nspec: {country: DE}\n")
    fleet = LocalFleet(tmp_path / "data")
    command = [*NEARCAST, "up", "--file", str(sites), "--data-dir", str(fleet.data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            table = [process.stdout.readline() for _ in range(2)]
            assert table[1].startswith("alone")
            assert fleet.status()["sites"][0]["ready"]
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.communicate()
            fleet.run("down", check=False)
    assert fleet.pids("alone") == {}
    (run_dir,) = LocalPaths(fleet.data_dir).run_dirs()
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)  # as an agent that was killed leaves it
    assert fleet.run("down", "--delete-data", "--yes").returncode == 0
    assert not fleet.data_dir.exists()
    assert not run_dir.exists()


def test_a_first_start_that_was_killed_is_finished_by_the_next_one(tmp_path: Path) -> None:
    sites = tmp_path / "sites.yaml"
    sites.write_text("apiVersion: nearcast.dev/v1alpha1\nkind: Site\nmetadata: {name: alone}\nspec: {country: DE}\n")
    fleet = LocalFleet(tmp_path / "data")
    paths = LocalPaths(fleet.data_dir)
    command = [*NEARCAST, "up", "--detach", "--file", str(sites), "--data-dir", str(fleet.data_dir)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        eventually(paths.fleet.exists, "the first start to write down what it wants")
        process.kill()
    try:
        fleet.run("up", "--detach")
        assert [(site["name"], site["ready"]) for site in fleet.status()["sites"]] == [("alone", True)]
    finally:
        fleet.run("down")
