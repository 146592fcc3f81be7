"""A data directory that was damaged or half restored: what is made anew, and what is refused in clear words."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from nearcast.control.plane import open_control_plane
from nearcast.control.server import Certificate
from nearcast.control.settings import Settings
from nearcast.errors import IntegrityError, InvalidInput

Fleet = Any


@pytest.mark.parametrize("lost", ["ca.key", "ca.pem", "online.key", "plans.root.json"])
def test_keys_are_made_once(fleet: Fleet, lost: str) -> None:
    """New ones would be believed by nobody, and would take the place of those that a backup brings back."""
    keys = fleet.settings.keys_dir
    before = {path.name: path.read_bytes() for path in keys.iterdir()}
    fleet.plane.close()
    (keys / lost).unlink()
    with pytest.raises(InvalidInput, match=rf"{lost} is missing in .*no node would believe in new keys"):
        open_control_plane(fleet.settings)
    assert {path.name: path.read_bytes() for path in keys.iterdir()} == {k: v for k, v in before.items() if k != lost}
    (keys / lost).write_bytes(before[lost])
    (keys / lost).chmod(0o600)
    fleet.start()


def test_a_first_start_that_died_before_all_keys_were_made_is_finished(fleet: Fleet) -> None:
    fleet.plane.close()
    with sqlite3.connect(fleet.settings.data_dir / "control.db") as database:
        database.execute("DELETE FROM settings WHERE key = 'keys_made'")
    database.close()
    (fleet.settings.keys_dir / "online.key").unlink()
    (fleet.settings.keys_dir / "plans.root.json").unlink()
    fleet.start()


def test_keys_without_their_database(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "c")
    plane = open_control_plane(settings)
    plane.close()
    for path in settings.data_dir.glob("control.db*"):
        path.unlink()
    with pytest.raises(InvalidInput, match="knows of none"):
        open_control_plane(settings)
    again = open_control_plane(Settings(data_dir=tmp_path / "c", fleet=plane.fleet))
    assert (again.fleet, again.authority.pem) == (plane.fleet, plane.authority.pem)
    again.close()


def test_a_database_that_is_none(fleet: Fleet) -> None:
    fleet.plane.close()
    (fleet.settings.data_dir / "control.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(IntegrityError, match="is damaged: file is not a database"):
        open_control_plane(fleet.settings)
    for path in fleet.settings.data_dir.glob("control.db*"):
        path.unlink()
    fleet.start()


def test_a_status_that_another_nearcast_wrote_down_is_waited_for_again(fleet: Fleet, make: Any) -> None:
    fleet.applied(make.site("fra"))
    fleet.start_releases()
    node = fleet.join("fra")
    assert node.report().status_code == 200
    fleet.plane.members.write_status("fra", "n1", '{"site": "fra", "field of tomorrow": 1}')
    fleet.restart()
    (view,) = fleet.plane.nodes.views()
    assert view.connected
    assert view.status is None
    assert fleet.call("GET", "/v1/status").status_code == 200
    assert node.report().status_code == 200
    assert fleet.plane.nodes.views()[0].status is not None


@pytest.mark.parametrize("damaged", ["server.key", "server.pem"])
@pytest.mark.parametrize("length", [0, 40, None])
def test_the_servers_own_certificate_is_made_anew(fleet: Fleet, damaged: str, length: int | None) -> None:
    key, certificate = Certificate(fleet.plane).files
    path = fleet.settings.keys_dir / damaged
    if length is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:length])
    Certificate(fleet.plane)
    private = load_pem_private_key(key.read_bytes(), password=None)
    assert load_pem_x509_certificate(certificate.read_bytes()).public_key() == private.public_key()
    assert key.stat().st_mode & 0o777 == 0o600
