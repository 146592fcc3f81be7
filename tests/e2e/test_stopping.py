"""Told to stop: every process ends with 0, leaves nothing behind, and writes no error; told twice, it hurries."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx
import msgspec
import pytest

from e2e.agent_node import AgentNode, Depot, agent_node
from e2e.local_fleet import eventually, local_fleet
from nearcast.agent.book import is_alive
from nearcast.cli.fleet import LocalPaths
from nearcast.cli.pids import is_alive as process_lives
from nearcast.notify import interval_s, notify

BAD = ("Traceback", " ERROR ", " CRITICAL ")


def quiet(text: str) -> None:
    assert not [line for line in text.splitlines() if any(word in line for word in BAD)], text


@pytest.fixture
def told(tmp_path: Path):
    """A service manager that listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.settimeout(60)
        heard.bind(str(tmp_path / "notify"))
        yield heard


@pytest.mark.parametrize("signals", [1, 2])
def test_a_control_plane_with_idle_connections(tmp_path: Path, told: socket.socket, signals: int):
    home = tmp_path / "c"
    log = tmp_path / "log"
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    with log.open("wb") as output:
        command = [sys.executable, "-m", "nearcast.control", "--data-dir", str(home)]
        process = subprocess.Popen(command, stderr=output, env=environment)
    try:
        messages = set()
        while not {"READY=1", "WATCHDOG=1"} <= messages:
            messages.add(told.recv(100).decode())
        url = msgspec.json.decode((home / "control.json").read_bytes())["url"]
        verify = ssl.create_default_context(cafile=str(home / "ca.pem"))
        with httpx.Client(verify=verify, timeout=10) as client, httpx.Client(verify=verify, timeout=10) as another:
            assert client.get(f"{url}/healthz").status_code == another.get(f"{url}/readyz").status_code == 200
            for _ in range(signals):
                process.send_signal(signal.SIGTERM)
                time.sleep(0.01)
            assert process.wait(20) == 0
    finally:
        process.kill()
    quiet(log.read_text())
    assert not (home / "control.json").exists()


@pytest.mark.parametrize("signals", [1, 2])
def test_an_agent_with_its_gateway_and_engine(tmp_path: Path, told: socket.socket, signals: int, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    depot = Depot(tmp_path)
    depot.push("adder", "1", 1.0)
    depot.plan("adder@1")
    with agent_node(tmp_path, depot) as node:
        node.start()
        node.ready("adder@1")
        assert told.recv(100) == b"READY=1"
        with httpx.Client() as idle:
            assert idle.get(f"{node.url}/v2/health/live").status_code == 200
            assert _stopped(node, signals) == 0
        assert told.recv(100) == b"STOPPING=1"
        quiet(node.log_file.read_text() + node.layout.engine_log.read_text())
        assert not node.layout.run_dir.exists()


def _stopped(node: AgentNode, signals: int) -> int:
    records = node.records()
    assert node.process is not None
    for _ in range(signals):
        node.process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    code = node.process.wait(30)
    assert not [name for name, record in records.items() if is_alive(record)]
    return code


@pytest.mark.parametrize("signals", [1, 2])
def test_an_engine(tmp_path: Path, signals: int):
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "nearcast.engine", "--run-dir", str(tmp_path / "r")], stderr=output
        )
    eventually(lambda: "listens in" in log.read_text(), "the engine")
    for _ in range(signals):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    assert process.wait(20) == 0
    quiet(log.read_text())


def test_a_fleet_whose_supervisor_is_told_twice(tmp_path: Path):
    with local_fleet(tmp_path / "fleet") as fleet:
        paths = LocalPaths(fleet.data_dir)
        processes = paths.read_processes()
        assert processes is not None
        everything = [processes.supervisor, *processes.children.values(), *paths.node_processes().values()]
        os.kill(processes.supervisor.pid, signal.SIGTERM)
        time.sleep(0.2)
        os.kill(processes.supervisor.pid, signal.SIGTERM)
        eventually(lambda: not any(map(process_lives, everything)), "nothing is left", timeout_s=60)
        for log in (paths.supervisor_log, paths.control_log, *paths.sites.glob("*/logs/agent.log")):
            quiet(log.read_text())
        assert "was killed" not in paths.supervisor_log.read_text()


def test_nobody_needs_to_listen(tmp_path: Path):
    notify("READY=1", {})
    notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    assert (interval_s({}), interval_s({"WATCHDOG_USEC": "60000000"}), interval_s({"WATCHDOG_USEC": "x"})) == (
        None, 30.0, None,
    )  # fmt: skip
