"""A disk without room: what runs goes on, nothing is half written, and it catches up once there is room again.

The disk is a tmpfs of a few megabytes, which only root may mount; `tests/unit/test_durable.py` tries the same without.
"""

import contextlib
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from e2e.agent_node import BODY, AgentNode, Depot, agent_node
from e2e.local_fleet import resource
from nearcast.control.changes import apply
from nearcast.control.plane import ControlPlane, open_control_plane
from nearcast.control.settings import Settings
from nearcast.errors import NearcastError, Unavailable
from nearcast.resources.kinds import AnyResource
from nearcast.resources.manifest import parse_manifests

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ARCHIVE = Path(__file__).parents[1] / "data" / "previous" / "969b9a0.tar.gz"
NOW = datetime(2026, 11, 20, 20, tzinfo=UTC)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "nearcast-test", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return filler


def test_a_node_without_room_serves_on_restarts_and_catches_up(tmp_path: Path, small: Path) -> None:
    depot = Depot(tmp_path / "depot")
    for version, constant in (("1", 1.0), ("2", 2.0)):
        depot.push("adder", version, constant)
    depot.plan("adder@1")
    with agent_node(small, depot) as node:
        node.start()
        node.ready("adder@1")
        filler = _fill(small)
        depot.plan("adder@2")
        assert node.ask("adder") == ("adder@1", 1.0)

        node.kill_agent()
        node.start()  # on the full disk: it adopts what runs, and does not end
        os.kill(node.pid("gateway"), 9)
        url = node.url
        _until_answers(node, url)
        assert node.process is not None
        assert node.process.poll() is None, node.story("the agent ended")

        filler.unlink()
        node.ready("adder@2")
        assert node.ask("adder") == ("adder@2", 2.0)


def _until_answers(node: AgentNode, url: str) -> None:
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.post(f"{url}/v2/models/adder/infer", json=BODY, timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    raise AssertionError(node.story("no answer on the full disk"))


def test_a_control_plane_without_room_says_so_and_loses_nothing(small: Path) -> None:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(small, filter="tar")
    plane = open_control_plane(Settings(data_dir=small / "control"), lambda: NOW)
    try:
        before = plane.store.snapshot()
        filler = _fill(small)
        refused = _apply_many(plane)
        assert "full" in refused.message or "No space" in refused.message
        assert plane.store.snapshot() == before, "nothing half applied"
        filler.unlink()
        outcomes = apply(plane, _models(1), dry_run=False)
        assert [outcome.action for outcome in outcomes] == ["created"]
    finally:
        plane.close()
    plane = open_control_plane(Settings(data_dir=small / "control"), lambda: NOW)
    plane.close()


def _apply_many(plane: ControlPlane) -> NearcastError:
    with pytest.raises(Unavailable) as raised:
        apply(plane, _models(400), dry_run=False)
    return raised.value


def _models(count: int) -> list[AnyResource]:
    text = "\n---\n".join(
        json.dumps(resource("Model", f"m{number}", {"description": "x" * 200})) for number in range(count)
    )
    return [parsed.resource for parsed in parse_manifests(text, "test")]
