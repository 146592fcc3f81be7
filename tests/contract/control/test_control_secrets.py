"""Secrets stay where they belong: not in logs, not in the database, not in answers, not in files that others read."""

import logging
from pathlib import Path
from typing import Any

import pytest

from nearcast.control.tokens import ADMIN_PREFIX, load_or_create_token
from nearcast.errors import InvalidInput
from nearcast.resources.join import decode_token

Fleet = Any
Make = Any


def test_no_secret_in_logs_or_at_rest(fleet: Fleet, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    fleet.applied(make.site("fra"))
    fleet.start_releases()
    token = fleet.token("fra")
    node = fleet.join("fra")
    lost = type(node)(fleet, "fra", "n2")
    lost.ask(token)
    lost.ask(token[:-4])
    type(node)(fleet, "fra", "n3").ask(token)
    node.report()
    fleet.call("GET", "/v1/status", token="nca_wrong")
    fleet.call("POST", "/v1/join", token="", content=f'{{"token": "{token}"'.encode())
    fleet.call("POST", "/v1/join", token="", json={"token": token, "node": 1, "csr_pem": ""})
    fleet.controllers.step()
    fleet.push("m", "1")
    status = fleet.call("GET", "/v1/status").text
    nodes = fleet.call("GET", "/v1/nodes").text
    secrets = [fleet.admin, node.credential, token, decode_token(token).secret]
    texts = [caplog.text, status, nodes, repr(fleet.plane), repr(fleet.plane.members.all())]
    fleet.plane.database.close()
    for path in fleet.settings.data_dir.rglob("*"):
        if path.is_file() and path.name != "admin.token":
            texts.append(path.read_bytes().decode(errors="replace"))
    for secret in secrets:
        assert not any(secret in text for text in texts)


def test_private_files_are_private(fleet: Fleet) -> None:
    private = [fleet.settings.admin_token_file, *fleet.settings.keys_dir.glob("*.key")]
    assert len(private) >= 4
    for path in private:
        assert path.stat().st_mode & 0o777 == 0o600, path
    for folder in (fleet.settings.data_dir, fleet.settings.keys_dir):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_the_admin_token_is_made_once_and_must_be_private(tmp_path: Path) -> None:
    path = tmp_path / "admin.token"
    first = load_or_create_token(path, ADMIN_PREFIX)
    assert load_or_create_token(path, ADMIN_PREFIX) == first
    path.chmod(0o644)
    with pytest.raises(InvalidInput, match="readable by its owner alone"):
        load_or_create_token(path, ADMIN_PREFIX)
    path.chmod(0o600)
    path.write_text("\n")
    with pytest.raises(InvalidInput, match="expected a token in"):
        load_or_create_token(path, ADMIN_PREFIX)
