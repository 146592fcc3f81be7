"""`kill -9` in the middle of commands and duties: the state is whole afterwards, and saying it again completes it.

Moments are drawn from a seed, which `NEARCAST_TEST_SEED` sets. One fleet of one site, whose start is the first test.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.local_fleet import NEARCAST, LocalFleet, eventually, resource
from e2e.tiny_models import adder, heavy_adder
from e2e.traffic import load
from nearcast.cli.fleet import LocalPaths
from nearcast.cli.pids import is_alive

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SITE = "lisbon"
SEED = int(os.environ.get("NEARCAST_TEST_SEED", "20261120"))


@pytest.fixture
def moments() -> random.Random:
    return random.Random(SEED)  # noqa: S311 - reproducible, not secret


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFleet]:
    """Begun by an `up` that is killed with all that it has started, again and again, and then left in peace."""
    found = LocalFleet(tmp_path_factory.mktemp("killed"))
    site = found.data_dir.parent / "site.yaml"
    site.write_text(json.dumps(resource("Site", SITE, {"country": "PT"})))
    up = ("up", "--detach", "--file", str(site))
    moments = random.Random(SEED)  # noqa: S311 - reproducible, not secret
    try:
        for _ in range(4):
            _cut(found, moments.uniform(0.3, 4.0), *up)
            _kill_all(found.data_dir)
        found.run(*up)
        yield found
    finally:
        found.run("down", check=False)


def _cut(fleet: LocalFleet, after_s: float, *arguments: str) -> bool:
    """Run a command and kill it after a while; whether it was still at work."""
    command = [*NEARCAST, *arguments, "--data-dir", str(fleet.data_dir)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after_s)
        process.kill()
        return process.wait(10) != 0


def _kill_all(data_dir: Path) -> None:
    """As a power cut: every process of the fleet, the ones that started others first."""
    for _ in range(3):
        for entry in sorted(Path("/proc").iterdir()):
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
                where = (entry / "cwd").resolve()
                if str(data_dir) in line or data_dir in {where, *where.parents}:
                    os.kill(int(entry.name), signal.SIGKILL)
        time.sleep(0.05)


def _control(fleet: LocalFleet) -> int:
    records = json.loads((fleet.data_dir / "processes.json").read_bytes())
    return int(records["children"]["control"]["pid"])


def _released(fleet: LocalFleet) -> list[str]:
    return [item["version"] for item in fleet.json("model", "ls")["releases"] if item["model"] == "adder"]


def test_up(fleet: LocalFleet) -> None:
    assert [(site["name"], site["ready"]) for site in fleet.status()["sites"]] == [(SITE, True)]


def test_push(fleet: LocalFleet, moments: random.Random) -> None:
    for version in ("1", "2", "3"):
        push = ("model", "push", "adder", "--version", version, str(adder(fleet.data_dir / version, float(version))))
        _cut(fleet, moments.uniform(0.2, 1.6), *push)
        fleet.run(*push)
        assert version in _released(fleet)
    assert sorted(_released(fleet)) == ["1", "2", "3"]
    fleet.deploy("adder", "3", SITE)


def test_push_while_the_control_plane_dies(fleet: LocalFleet, moments: random.Random) -> None:
    for version in ("5", "6"):
        push = ("model", "push", "adder", "--version", version, str(adder(fleet.data_dir / version, float(version))))
        command = [*NEARCAST, *push, "--data-dir", str(fleet.data_dir)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            time.sleep(moments.uniform(0.6, 1.6))
            os.kill(_control(fleet), signal.SIGKILL)
            _, said = process.communicate(timeout=60)
        assert process.returncode in {0, 6}, said
        assert process.returncode == 0 or "control plane" in said, said
        _again(fleet, *push)
        assert version in _released(fleet)


def _again(fleet: LocalFleet, *arguments: str) -> None:
    """Say it until the control plane is back; nothing else may be wrong with it."""

    def done() -> bool:
        said = fleet.run(*arguments, check=False)
        assert said.returncode in {0, 6}, said.stderr
        return said.returncode == 0

    eventually(done, " ".join(arguments[:2]))


def test_apply(fleet: LocalFleet, moments: random.Random) -> None:
    for turn in range(3):
        names = [f"m{turn}-{number}" for number in range(40)]
        file = fleet.data_dir / "many.yaml"
        file.write_text("\n---\n".join(json.dumps(resource("Model", name, {})) for name in names))
        _cut(fleet, moments.uniform(0.2, 1.2), "apply", "-f", str(file))
        found = {item["metadata"]["name"] for item in fleet.json("get", "models")["items"]}
        assert found.issuperset(names) or found.isdisjoint(names), "all or nothing"
        fleet.run("apply", "-f", str(file))
        assert {item["metadata"]["name"] for item in fleet.json("get", "models")["items"]}.issuperset(names)


def test_publication(fleet: LocalFleet, moments: random.Random) -> None:
    with load(fleet.gateway(SITE), "adder") as running:
        eventually(lambda: running.outcome.total > 20, "a load")
        for version in ("1", "3", "2"):
            fleet.deploy("adder", version, SITE, wait=False)
            time.sleep(moments.uniform(0.0, 0.5))
            os.kill(_control(fleet), signal.SIGKILL)
            eventually(lambda: fleet.run("get", "sites", check=False).returncode == 0, "a control plane")
        fleet.run("wait", "deployment/adder", "--for", "ready", "--timeout", "60s")
        running.fresh()
        eventually(lambda: running.outcome.values == {3.0}, "the version that was acknowledged last")
    assert running.outcome.failures == []


def test_fetch(fleet: LocalFleet, moments: random.Random) -> None:
    folder = heavy_adder(fleet.data_dir / "heavy", 9.0, 48 << 20)
    fleet.push("heavy", "1", folder)
    site = fleet.data_dir / "sites" / SITE
    before = _size(site)
    fleet.deploy("heavy", "1", SITE, wait=False)
    for _ in range(2):
        eventually(_more_than(site, before + moments.randrange(1 << 20, 40 << 20)), "some of the file", pause_s=0.005)
        died = fleet.kill(SITE, "agent")
        eventually(lambda died=died: fleet.pids(SITE).get("agent", died) != died, "a new agent")
    fleet.run("wait", "deployment/heavy", "--for", "ready", "--timeout", "60s")
    with load(fleet.gateway(SITE), "heavy", clients=1) as running:
        eventually(lambda: running.outcome.total > 3, "answers")
    assert running.outcome.values == {10.0}
    eventually(lambda: _size(site) - before < 3 * (48 << 20), "no halves that are left")


def _more_than(folder: Path, size: int) -> Callable[[], bool]:
    return lambda: _size(folder) > size


def _size(folder: Path) -> int:
    seen: dict[int, int] = {}
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            about = file.lstat()
            seen[about.st_ino] = about.st_size
    return sum(seen.values())


def test_the_supervisor(fleet: LocalFleet) -> None:
    paths = LocalPaths(fleet.data_dir)
    before, control = fleet.pids(SITE), _control(fleet)
    records = paths.read_processes()
    assert records is not None
    with load(fleet.gateway(SITE), "adder") as running:
        os.kill(records.supervisor.pid, signal.SIGKILL)
        eventually(lambda: not is_alive(records.supervisor), "its end")
        fleet.run("up", "--detach")
        eventually(_has_other_supervisor(paths, records.supervisor.pid), "another supervisor")
        eventually(lambda: running.outcome.total > 20, "answers")
    assert running.outcome.failures == []
    assert (fleet.pids(SITE), _control(fleet)) == (before, control), "taken over, not started again"
    died = fleet.kill(SITE, "agent")
    eventually(lambda: fleet.pids(SITE).get("agent", died) != died, "a new agent, by the new supervisor")


def _has_other_supervisor(paths: LocalPaths, pid: int) -> Callable[[], bool]:
    def answer() -> bool:
        found = paths.read_processes()
        return found is not None and found.supervisor.pid != pid and is_alive(found.supervisor)

    return answer
