"""Processes by id and start time, and ports: what ``up`` and ``down`` ask the system."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nearcast.cli.fleet import ProcessRecord, free_ports, is_free
from nearcast.cli.pids import end, is_alive, record_of, running_below, send

pytestmark = pytest.mark.e2e


def test_free_ports_are_free_and_different() -> None:
    ports = free_ports(8)
    assert len(set(ports)) == 8
    assert all(is_free(port) for port in ports)


@pytest.fixture
def sleeper() -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def test_a_process_is_known_by_its_start_too(sleeper: "subprocess.Popen[bytes]") -> None:
    record = record_of(sleeper.pid)
    assert record is not None
    assert is_alive(record)
    stranger = ProcessRecord(pid=sleeper.pid, started="another time")
    assert not is_alive(stranger)
    assert not send(stranger, signal.SIGKILL)
    assert end([stranger, record], grace_s=5.0) == []
    assert sleeper.wait() == -signal.SIGTERM
    assert record_of(sleeper.pid) is None


def test_what_does_not_stop_is_killed(sleeper: "subprocess.Popen[bytes]") -> None:
    record = record_of(sleeper.pid)
    assert record is not None
    os.kill(sleeper.pid, signal.SIGSTOP)
    assert end([record], grace_s=0.0) == [record]
    assert sleeper.wait() == -signal.SIGKILL


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found in /proc")
def test_only_our_modules_on_this_very_directory_are_found(tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text("import time; time.sleep(60)")
    home = tmp_path / "data"
    lines_ = (
        ["-m", "ours", "--data-dir", str(home / "sites" / "a")],
        ["-m", "ours", "--data-dir", f"{home}-2"],
        ["ours.py", str(home)],
    )
    started = [subprocess.Popen([sys.executable, *line], cwd=tmp_path) for line in lines_]
    try:
        assert [record.pid for record in running_below([home], ["ours"])] == [started[0].pid]
    finally:
        for process in started:
            process.kill()
            process.wait()
