"""Every kind of file of a control plane, emptied, cut, changed by a bit, or gone: the same state, repaired, or an error
that names the file and says what to do. Never silently something else.

The files are those that the previous version wrote (`tests/data/previous`), settled by today's.
"""

import shutil
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nearcast.control.controllers import Controllers
from nearcast.control.observer import Observer
from nearcast.control.plane import open_control_plane
from nearcast.control.planner import Planner
from nearcast.control.server import Certificate
from nearcast.control.settings import Settings
from nearcast.errors import NearcastError

ARCHIVE = Path(__file__).parents[1] / "data" / "previous" / "969b9a0.tar.gz"
MANIFEST = "e953f8d23e65b03145e433979e4b8ac2476bf3b1e9b4f9736b32d4697de20cb7"
NOW = datetime(2026, 11, 20, 20, tzinfo=UTC)
"""Shortly after the archive was made, so that nothing in it has expired."""

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "bit": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
    "gone": lambda data: None,
}
REPAIRED = (
    "ca.pem",
    "control.lock",
    "keys/.lock",
    "keys/plans-root.key",
    "keys/server.key",
    "keys/server.pem",
    "repository/plans/frankfurt/metadata/1.root.json",
    "repository/plans/frankfurt/metadata/3.snapshot.json",
    "repository/plans/frankfurt/metadata/3.targets.json",
    "repository/plans/frankfurt/metadata/timestamp.json",
    "repository/plans/frankfurt/targets/5e69fddbd9c2be5ecb73dbee861932b0d75292e4814c5617d3293f21d6e83775.frankfurt.json",
    "repository/releases/metadata/1.snapshot.json",
    "repository/releases/metadata/1.targets.json",
    "repository/releases/metadata/3.snapshot.json",
    "repository/releases/metadata/timestamp.json",
)
TOLD = {
    "control.db": "control.db",
    "keys/ca.key": "ca.key",
    "keys/ca.pem": "ca.pem",
    "keys/online.key": "online.key",
    "keys/plans.root.json": "plans.root.json",
    "repository/releases/metadata/1.root.json": "1.root.json",
    "repository/releases/metadata/3.targets.json": "3.targets.json",
    f"repository/releases/targets/adder/{MANIFEST}.2.json": "adder",
}
"""File -> what the error says of it."""


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object]:
    folder = tmp_path_factory.mktemp("damaged")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="tar")
    return folder / "control", _state(folder / "control")


@pytest.fixture
def data_dir(settled: tuple[Path, object], tmp_path: Path) -> Iterator[Path]:
    return shutil.copytree(settled[0], tmp_path / "control")


def _state(data_dir: Path) -> object:
    """Everything that a control plane knows and hands out, after it has had time to repair."""
    plane = open_control_plane(Settings(data_dir=data_dir), lambda: NOW)
    try:
        controllers = Controllers(plane, Observer(plane), Planner(plane), Certificate(plane).renew)
        for work in (controllers.step, controllers.renew, controllers.step):
            work()
        releases = plane.releases.list()
        plans = {site: plane.plans.latest(site) for site in plane.plans.sites()}
        return (
            *(plane.fleet, plane.authority.sha256, plane.plans_root, releases),
            tuple(plane.releases.manifest(entry.model, entry.version) for entry in releases),
            {site: plan and plan.revision for site, plan in plans.items()},
        )
    finally:
        plane.close()


def _damage(file: Path, damage: str) -> None:
    mode, data = file.stat().st_mode, DAMAGES[damage](file.read_bytes())
    file.unlink()
    if data is not None:
        file.write_bytes(data)
        file.chmod(mode)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", REPAIRED, ids=lambda file: file[-40:])
def test_what_can_be_made_again_is(settled: tuple[Path, object], data_dir: Path, file: str, damage: str) -> None:
    if (data_dir / file).stat().st_size:
        _damage(data_dir / file, damage)
    assert _state(data_dir) == settled[1]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("file", "named"), TOLD.items(), ids=lambda file: file[-40:])
def test_what_cannot_be_made_again_is_told(
    settled: tuple[Path, object], data_dir: Path, file: str, named: str, damage: str
) -> None:
    _damage(data_dir / file, damage)
    found: object
    try:
        found = _state(data_dir)
    except NearcastError as error:
        found = error
    if isinstance(found, NearcastError):
        assert named in found.message
        assert found.hint
    else:
        assert found == settled[1], "silently something else"  # the bit was in a free page of the database, say


def test_every_kind_of_file_is_here(settled: tuple[Path, object]) -> None:
    """A file that a later version adds must be added here, too."""
    known = {*REPAIRED, *TOLD, "admin.token", "metrics.token", "control.log", "control.db-wal", "control.db-shm"}
    found = {str(path.relative_to(settled[0])) for path in settled[0].rglob("*") if path.is_file()}
    named = {path for path in found if not path.startswith("repository/")}
    assert named <= known, named - known


def test_an_older_list_of_releases_is_never_signed_anew(data_dir: Path) -> None:
    """Without its newest list a store holds fewer releases than sites have seen: that is nothing to be guessed at."""
    metadata = data_dir / "repository/releases/metadata"
    (metadata / "3.targets.json").unlink()
    (metadata / "timestamp.json").write_bytes(b"")
    with pytest.raises(NearcastError, match="timestamp") as raised:
        _state(data_dir)
    assert "backup" in raised.value.hint
