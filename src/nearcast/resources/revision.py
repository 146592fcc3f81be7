"""Content hashes: the identity of everything immutable. Equal content has an equal hash on every machine."""

import hashlib
from typing import Any

import msgspec

_encoder = msgspec.json.Encoder(order="deterministic")


def canonical_json(value: Any) -> bytes:
    """``value`` as JSON bytes, object keys sorted, no spaces: the form that is hashed, signed and compared."""
    return _encoder.encode(value)


def digest_of(data: bytes) -> str:
    """The content address of ``data``: ``sha256:`` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def revision_of(value: Any) -> str:
    """The revision (content hash) of a JSON-able value or struct."""
    return digest_of(canonical_json(value))
