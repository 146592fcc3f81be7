"""Signing keys on disk: Ed25519, made once, readable by their owner alone.

Not decided here: which key holds which role (:mod:`releases`, :mod:`plans`). Any other ``securesystemslib`` signer (a
hardware token, a cloud KMS) can stand wherever these functions' signers stand.
"""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from nearcast.durable import sync_directory, write_whole
from nearcast.errors import InvalidInput, NotFound


def load_signer(path: Path) -> CryptoSigner:
    """The signer whose private key lies at ``path``.

    Raises:
        NotFound: there is no such file.
        InvalidInput: others may read it, or it is not an Ed25519 key in PEM.
    """
    try:
        mode = path.stat().st_mode & 0o777
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(f"no signing key at {path}") from error
    if mode & 0o077:
        raise InvalidInput(f"expected {path} to be readable by its owner alone, its mode is {mode:o}", hint="chmod 600")
    try:
        private = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidInput(
            f"expected an unencrypted private key in PEM at {path}: {error}",
            hint="restore it from a backup: nobody would believe in a new key",
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise InvalidInput(f"expected an Ed25519 key at {path}, got {type(private).__name__}")
    return CryptoSigner(private)


def load_or_create_signer(path: Path) -> CryptoSigner:
    """The signer at ``path``; its key is made there (0600, parents 0700) where there is none.

    Two callers at once end with the same key: the first one's.
    """
    try:
        return load_signer(path)
    except NotFound:
        pass
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.urandom(8).hex()}"
    write_whole(temporary, CryptoSigner.generate_ed25519().private_bytes, mode=0o600)
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    sync_directory(path.parent)
    return load_signer(path)
