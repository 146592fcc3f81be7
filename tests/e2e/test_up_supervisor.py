"""The process behind a local fleet, on one without sites: it restarts, takes over, stops, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.local_fleet import LocalFleet, eventually
from nearcast.cli.fleet import FleetFile, LocalPaths, ProcessRecord, free_ports
from nearcast.cli.pids import is_alive

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


class Supervised:
    """One data directory with a control plane only."""

    def __init__(self, folder: Path) -> None:
        self.paths = LocalPaths(folder)
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *more: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "nearcast.cli.supervisor", "--data-dir", str(self.paths.data_dir), *more]
        with (self.paths.data_dir / "out").open("ab") as out:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True)
        self.started.append(process)
        return process

    def control(self) -> ProcessRecord | None:
        """The control plane on record, if it runs."""
        processes = self.paths.read_processes()
        record = processes.children.get("control") if processes else None
        return record if record and is_alive(record) else None

    def await_control(self, other_than: ProcessRecord | None = None) -> ProcessRecord:
        eventually(lambda: self.control() not in {None, other_than}, "a control plane that runs")
        record = self.control()
        assert record is not None
        return record

    def said(self) -> str:
        return (self.paths.data_dir / "out").read_text()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Supervised]:
    found = Supervised(tmp_path)
    found.paths.write_fleet(FleetFile(control_port=free_ports(1)[0]))
    yield found
    for process in found.started:
        process.terminate()
        process.wait(30)
        if process.stdin:
            process.stdin.close()
    LocalFleet(tmp_path).run("down")


def test_a_child_that_is_killed_comes_back_and_all_stop_in_the_end(fleet: Supervised) -> None:
    supervisor = fleet.start()
    first = fleet.await_control()
    os.kill(first.pid, signal.SIGKILL)
    second = fleet.await_control(other_than=first)
    supervisor.terminate()
    assert supervisor.wait(30) == 0
    assert not is_alive(second)
    assert not fleet.paths.processes.exists()
    assert "killed by SIGKILL" in fleet.said()


def test_a_new_supervisor_takes_over_what_a_killed_one_left(fleet: Supervised) -> None:
    first = fleet.start()
    control = fleet.await_control()
    first.kill()
    first.wait()
    assert is_alive(control)
    second = fleet.start()
    eventually(lambda: "still runs" in fleet.said(), "the new supervisor to look around")
    assert fleet.control() == control
    os.kill(control.pid, signal.SIGKILL)
    third = fleet.await_control(other_than=control)
    second.terminate()
    second.wait(30)
    assert not is_alive(third)


def test_a_damaged_fleet_file_and_a_disk_that_takes_nothing_end_no_process(fleet: Supervised) -> None:
    fleet.start()
    control = fleet.await_control()
    wanted = fleet.paths.fleet.read_bytes()
    fleet.paths.fleet.write_bytes(wanted[:20])
    eventually(lambda: "fleet.json is not what nearcast wrote there" in fleet.said(), "the damage to be told")
    fleet.paths.fleet.write_text('{"format": 2}')
    eventually(lambda: "fleet.json is of format 2" in fleet.said(), "the newer form to be told")
    assert is_alive(control)
    fleet.paths.fleet.write_bytes(wanted)
    fleet.paths.processes.unlink()
    fleet.paths.processes.mkdir()  # so that writing it fails, as on a full disk
    os.kill(control.pid, signal.SIGKILL)
    eventually(lambda: "cannot start or write down processes" in fleet.said(), "the trouble to be told")
    fleet.paths.processes.rmdir()
    assert is_alive(fleet.await_control(other_than=control))


def test_down_needs_no_sound_files(fleet: Supervised) -> None:
    fleet.start()
    control = fleet.await_control()
    fleet.paths.fleet.write_text("{")
    fleet.paths.processes.write_text('{"supervisor')
    done = LocalFleet(fleet.paths.data_dir).run("down")
    assert "none of its processes is left" in done.stderr
    assert not is_alive(control)


def test_there_is_one_supervisor_per_directory(fleet: Supervised) -> None:
    fleet.start()
    fleet.await_control()
    assert fleet.start().wait(30) == 1
    assert "another supervisor runs" in fleet.said()


def test_in_the_foreground_it_ends_with_the_command_that_started_it(fleet: Supervised) -> None:
    supervisor = fleet.start("--tied")
    control = fleet.await_control()
    assert supervisor.stdin is not None
    supervisor.stdin.close()
    assert supervisor.wait(30) == 0
    assert not is_alive(control)


def test_down_ends_what_has_no_supervisor_any_more(fleet: Supervised) -> None:
    supervisor = fleet.start()
    control = fleet.await_control()
    supervisor.kill()
    supervisor.wait()
    bystander = subprocess.Popen(["tail", "-f", str(fleet.paths.control_log)], stdout=subprocess.DEVNULL)
    try:
        done = LocalFleet(fleet.paths.data_dir).run("down")
        assert "none of its processes is left" in done.stderr
        assert not is_alive(control)
        assert bystander.poll() is None, "whoever only reads a file of the fleet is left alone"
    finally:
        bystander.kill()
        bystander.wait()


def test_two_commands_do_not_start_and_stop_at_the_same_time(fleet: Supervised) -> None:
    from nearcast.cli.lock import exclusively

    with exclusively(fleet.paths):
        done = LocalFleet(fleet.paths.data_dir).run("down", check=False)
    assert done.returncode == 5
    assert "is at work" in done.stderr
