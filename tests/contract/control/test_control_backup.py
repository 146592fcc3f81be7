"""A backup taken while it serves, and the fleet that goes on from it: no number that a site has seen comes again."""

import sqlite3
import tarfile
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from nearcast.control.backup import back_up, restore
from nearcast.control.plane import open_control_plane
from nearcast.control.settings import Settings
from nearcast.errors import Conflict, IntegrityError, InvalidInput, NotFound
from nearcast.registry.client import TrustedRepository
from nearcast.registry.fetch import FolderFetch
from nearcast.resources.join import decode_token

Fleet = Any
Make = Any


def site_of(fleet: Fleet, folder: Path, trust: Path) -> TrustedRepository:
    """What a node of fra believes, kept in ``trust``; it reads the repository in ``folder``."""
    token = decode_token(fleet.token("fra"))
    root = fleet.plane.releases.root()
    return TrustedRepository(
        trust,
        fleet="fleet.test",
        site="fra",
        fetch=FolderFetch(folder / "repository"),
        now=lambda: fleet.now,
        plans_root=fleet.plane.plans_root,
        plans_root_sha256=token.plans_root_sha256,
        releases_root=root,
        releases_root_sha256=token.releases_root_sha256,
    )


def test_a_fleet_goes_on_from_a_backup(fleet: Fleet, make: Make, tmp_path: Path, fleet_type: Any) -> None:
    fleet.applied(make.site("fra"), make.site("iad", "US"))
    fleet.start_releases()
    fleet.push("m", "1")
    fleet.applied(make.deployment("m", "1"))
    node = fleet.join("fra")
    assert fleet.controllers.step() == ("fra", "iad")
    file = tmp_path / "fleet.tar"
    written = back_up(fleet.settings, file)
    assert written.fleet == "fleet.test"
    assert file.stat().st_mode & 0o777 == 0o600

    for country in ("FR", "DE", "FR"):  # what comes after the backup, is seen by the site, and is lost
        fleet.applied(make.site("fra", country))
        fleet.controllers.step()
    site = site_of(fleet, fleet.settings.data_dir, tmp_path / "trust")
    seen = site.poll_plan()
    assert seen is not None
    site.refresh_releases()
    site.release("m", "1", seen.models[0].release)
    fleet.plane.close()

    restored = tmp_path / "restored"
    restore(Settings(restored), file)
    again = fleet_type(restored)
    fleet.plane = again.plane  # the fixture closes it
    again.now += timedelta(hours=1)
    assert again.controllers.step() == ("fra", "iad")
    after = site_of(again, restored, tmp_path / "trust").poll_plan()
    assert after is not None
    assert after.version > seen.version
    assert after.site.country == "DE"
    site_of(again, restored, tmp_path / "trust").refresh_releases()
    node.fleet = again
    assert node.report().status_code == 200
    again.releaser = fleet.releaser
    again.push("m", "2")
    assert {"fra"} <= set(again.controllers.step())  # whose node has an address now
    assert {path.stat().st_mode & 0o777 for path in (restored / "keys").glob("*.key")} == {0o600}


def test_weights_may_be_left_out(fleet: Fleet, make: Make, tmp_path: Path) -> None:
    fleet.start_releases()
    fleet.push("m", "1")
    back_up(fleet.settings, tmp_path / "all.tar")
    back_up(fleet.settings, tmp_path / "some.tar", with_blobs=False)
    with tarfile.open(tmp_path / "all.tar") as whole, tarfile.open(tmp_path / "some.tar") as some:
        names, fewer = set(whole.getnames()), set(some.getnames())
    assert names - fewer == {name for name in names if name.startswith("repository/blobs/")}
    assert fewer < names


def test_what_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "fleet.tar"
    with pytest.raises(NotFound, match="no database"):
        back_up(Settings(tmp_path / "none"), file)
    back_up(fleet.settings, file)
    with pytest.raises(Conflict, match="exists already"):
        back_up(fleet.settings, file)
    with pytest.raises(Conflict, match="not empty"):
        restore(fleet.settings, file)
    for length in (0, 100, 5000):
        half = tmp_path / f"half-{length}"
        half.write_bytes(file.read_bytes()[:length])
        with pytest.raises(IntegrityError):
            restore(Settings(tmp_path / f"into-{length}"), half)


def test_a_copy_that_was_cut_anywhere_is_refused_and_starts_nothing(fleet: Fleet, tmp_path: Path) -> None:
    """Cut between two files, too, where a tar looks whole to whoever reads it."""
    file, cut = tmp_path / "fleet.tar", tmp_path / "cut.tar"
    back_up(fleet.settings, file)
    data = file.read_bytes()
    with tarfile.open(file) as whole:
        members = whole.getmembers()
    for index, member in enumerate(members[2:]):
        cut.write_bytes(data[: member.offset + index % 2 * 256])
        into = Settings(tmp_path / f"into-{index}")
        with pytest.raises(IntegrityError, match="not a whole backup"):
            restore(into, cut)
        assert not (into.data_dir / "control.db").exists()
        if index > len(members) - 5:  # with all keys: a new fleet must not begin where half of one lies
            with pytest.raises(InvalidInput, match="the database"):
                open_control_plane(into)
    restore(Settings(tmp_path / "into"), file)
    with tarfile.open(file) as whole, tarfile.open(cut, "w") as fewer:
        for member in members:
            if not member.name.endswith("plans.root.json"):
                fewer.addfile(member, whole.extractfile(member))
    with pytest.raises(IntegrityError, match="not a whole backup"):
        restore(Settings(tmp_path / "fewer"), cut)


def test_a_backup_that_was_killed_hinders_no_later_one(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / ".fleet.tar.part").write_bytes(b"half")
    back_up(fleet.settings, tmp_path / "fleet.tar")
    with pytest.raises(InvalidInput, match="cannot write"):
        back_up(fleet.settings, tmp_path / "nowhere" / "fleet.tar")


def test_a_file_that_leads_out_of_the_directory_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    file, evil = tmp_path / "fleet.tar", tmp_path / "evil.tar"
    back_up(fleet.settings, file)
    with tarfile.open(file) as source, tarfile.open(evil, "w") as target:
        head = source.next()
        target.addfile(head, source.extractfile(head))
        target.addfile(tarfile.TarInfo("../outside"))
    with pytest.raises(IntegrityError, match="no plain file"):
        restore(Settings(tmp_path / "into"), evil)
    assert not (tmp_path / "outside").exists()


def test_a_damaged_database_is_not_backed_up(fleet: Fleet, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    (folder / "keys").mkdir(parents=True)
    with closing(sqlite3.connect(folder / "control.db")) as made:
        made.execute("CREATE TABLE settings (key TEXT, value TEXT)")
        made.commit()
    data = bytearray((folder / "control.db").read_bytes())
    data[100:200] = b"\xff" * 100
    (folder / "control.db").write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match="is damaged"):
        back_up(Settings(folder), tmp_path / "b.tar")
    assert not (tmp_path / "b.tar").exists()
    assert list(tmp_path.glob(".b.tar*")) == []
