"""Files of a node, damaged while it serves: its next agent has them again, and no request notices."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.local_fleet import LocalFleet, eventually, local_fleet
from e2e.tiny_models import adder
from e2e.traffic import load
from nearcast.agent.identity import check_root, read_identity, read_membership
from nearcast.agent.layout import Layout, layout_of
from nearcast.errors import IntegrityError

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SITE = "frankfurt"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFleet]:
    with local_fleet(tmp_path_factory.mktemp("damaged")) as running:
        running.push("adder", "1", adder(running.data_dir / "models", 1.0))
        running.deploy("adder", "1", SITE)
        yield running


def _cut(file: Path) -> None:
    data = file.read_bytes()
    mode = file.stat().st_mode
    file.chmod(0o600)
    file.write_bytes(data[: len(data) // 2])
    file.chmod(mode)


def _bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _identity(layout: Layout) -> None:
    _bit(layout.certificate)
    _cut(layout.key)
    layout.authority.write_bytes(b"")
    layout.plans_root.unlink()
    _bit(layout.releases_root)


def _all_else(layout: Layout) -> None:
    """Everything below the data directory that is no identity, no log and no record of a process: all of it at once."""
    kept = {layout.identity, layout.logs}
    files = [file for file in layout.data_dir.rglob("*") if file.is_file() and not kept & set(file.parents)]
    assert len(files) > 12
    for file in files:
        if file.suffix != ".lock" and file not in {layout.processes, layout.envoy / "process.json"}:
            _cut(file)


def _is_whole(layout: Layout) -> bool:
    member = read_membership(layout)
    assert member is not None
    try:
        read_identity(layout, member)
        check_root(layout.plans_root.read_bytes(), member.plans_root_sha256, "plans")
        check_root(layout.releases_root.read_bytes(), member.releases_root_sha256, "releases")
    except (IntegrityError, FileNotFoundError):
        return False
    return True


@pytest.mark.parametrize("damage", [_identity, _all_else])
def test_a_node_has_its_files_again(fleet: LocalFleet, damage: Callable[[Layout], object]) -> None:
    layout = layout_of(fleet.data_dir / "sites" / SITE)
    before = fleet.pids(SITE)
    with load(fleet.gateway("ashburn"), "adder") as running:
        eventually(lambda: running.outcome.total > 20, "a load")
        damage(layout)
        os.kill(before["agent"], signal.SIGKILL)
        eventually(lambda: fleet.pids(SITE).get("agent", before["agent"]) != before["agent"], "a new agent")
        eventually(lambda: _is_whole(layout), "its files again")
        running.fresh()
        fleet.deploy("adder", "1", SITE, "singapore")  # it follows a plan of now
        eventually(lambda: _serves(fleet), "a site that is ready")
        fleet.deploy("adder", "1", SITE)
    assert running.outcome.failures == []
    after = fleet.pids(SITE)
    assert (after["gateway"], after["engine"]) == (before["gateway"], before["engine"]), "adopted, not restarted"


def test_a_gateway_and_an_engine_that_no_record_names_are_found(fleet: LocalFleet) -> None:
    """They hold the ports and sockets that their successors need."""
    layout = layout_of(fleet.data_dir / "sites" / SITE)
    before = fleet.pids(SITE)
    _cut(layout.processes)
    (layout.envoy / "process.json").unlink()
    os.kill(before["agent"], signal.SIGKILL)
    eventually(lambda: fleet.pids(SITE).get("gateway", before["gateway"]) != before["gateway"], "another gateway")
    eventually(lambda: _serves(fleet), "a site that is ready")
    assert fleet.pids(SITE)["engine"] == before["engine"]
    eventually(lambda: not Path(f"/proc/{before['gateway']}").exists(), "the end of the one before")


def _serves(fleet: LocalFleet) -> bool:
    site = next(site for site in fleet.status()["sites"] if site["name"] == SITE)
    return bool(site["ready"] and [model["state"] for model in site["models"]] == ["ready"])
