"""Signing keys on disk."""

import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from nearcast.errors import InvalidInput, NotFound
from nearcast.registry.keys import load_or_create_signer, load_signer


def test_a_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "online.pem"
    signer = load_or_create_signer(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0
    assert [entry.name for entry in path.parent.iterdir()] == ["online.pem"]
    again = load_or_create_signer(path)
    assert again.public_key == signer.public_key
    signer.public_key.verify_signature(again.sign(b"data"), b"data")


def test_many_at_once_end_with_one_key(tmp_path: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(load_or_create_signer(tmp_path / "k.pem").public_key.keyid))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    load_or_create_signer(path)
    path.chmod(0o640)
    with pytest.raises(InvalidInput, match="its mode is 640"):
        load_signer(path)


def test_what_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        load_signer(tmp_path / "absent.pem")
    path = tmp_path / "k.pem"
    path.touch(mode=0o600)
    with pytest.raises(InvalidInput, match="PEM"):
        load_or_create_signer(path)
    other = generate_private_key(SECP256R1())
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(InvalidInput, match="Ed25519"):
        load_signer(path)
