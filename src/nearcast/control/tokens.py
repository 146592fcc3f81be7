"""Secrets that open the control plane: made from 256 random bits, kept only as SHA-256, compared in constant time.

A plain hash is enough here, and a slow one would only cost: nobody guesses 256 bits. Who may do what with a secret is
decided in `api.services` and `members`.
"""

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Final

from nearcast.durable import read_if_exists, write_whole
from nearcast.errors import InvalidInput

ADMIN_PREFIX: Final = "nca_"
NODE_PREFIX: Final = "ncn_"
METRICS_PREFIX: Final = "ncm_"


def new_secret(prefix: str = "") -> str:
    """A fresh secret: ``prefix`` and 43 characters of base64url."""
    return prefix + secrets.token_urlsafe(32)


def new_id() -> str:
    """A fresh public identifier: 16 hexadecimal digits."""
    return secrets.token_hex(8)


def hashed(secret: str) -> str:
    """What is stored of ``secret``: its SHA-256 in hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()


def matches(secret: str, stored: str) -> bool:
    """Whether ``secret`` is the one whose hash was ``stored``, in constant time."""
    return hmac.compare_digest(hashed(secret), stored)


def load_or_create_token(path: Path, prefix: str) -> str:
    """The hash of the token in ``path``; the token is made there (0600) at the first start.

    Raises:
        InvalidInput: others may read the file, or it is empty.
    """
    data = read_if_exists(path)
    if data is None:
        token = new_secret(prefix)
        write_whole(path, f"{token}\n".encode(), mode=0o600)
        return hashed(token)
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise InvalidInput(f"expected {path} to be readable by its owner alone, its mode is {mode:o}", hint="chmod 600")
    token = data.decode(errors="replace").strip()
    if len(token) < 32:
        raise InvalidInput(f"expected a token in {path}, got {len(token)} characters", hint=f"Remove {path}.")
    return hashed(token)
