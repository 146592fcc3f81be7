"""How a node joins a fleet: the token that it is given, and the two answers that make it a member.

The token carries the hashes of everything that the node will trust (the certificate authority and both TUF roots), so
that nothing is trusted on first use: what :class:`JoinAnswer` and ``GET /v1/trust`` deliver must match them. Checking a
token's secret, issuing certificates and storing anything are not decided here.
"""

import base64
import binascii
from typing import Final

import msgspec

from nearcast.errors import InvalidInput
from nearcast.resources.revision import canonical_json

TOKEN_PREFIX: Final = "ncj_"  # noqa: S105  (a prefix, not a secret)
TOKEN_VERSION: Final = 1
MAX_TOKEN_CHARACTERS: Final = 4096


class JoinToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a join token says. Whoever holds it may become one node of ``site``.

    Attributes:
        id: public name of the token, for listing and revoking it.
        secret: proves that the bearer was given it; 256 random bits.
        site: the site that the node will belong to.
        fleet: trust domain.
        ca_sha256: SHA-256 (hex) of the authority's certificate in DER.
        releases_root_sha256: SHA-256 (hex) of the root metadata, version 1, of the releases repository.
        plans_root_sha256: the same of the plans repositories.
        expires_at: RFC 3339, UTC.
    """

    id: str
    secret: str
    site: str
    fleet: str
    ca_sha256: str
    releases_root_sha256: str
    plans_root_sha256: str
    expires_at: str
    v: int = TOKEN_VERSION

    def __repr__(self) -> str:
        """Never shows the secret: tokens end up in logs by their representation."""
        return f"JoinToken(id={self.id!r}, site={self.site!r}, fleet={self.fleet!r}, expires_at={self.expires_at!r})"


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/join``. ``token`` is the text of the token, ``csr_pem`` a PKCS #10 request (ECDSA P-256)."""

    token: str
    node: str
    csr_pem: str


class JoinAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to it. Both roots are base64 of the exact bytes whose hashes stand in the token.

    Attributes:
        certificate_pem: the node's certificate, then nothing: the authority signs leaves directly.
        credential: bearer credential of this node for the control plane; a second join replaces it.
        repository_url: where releases, plans and blobs are.
    """

    certificate_pem: str
    ca_pem: str
    credential: str
    fleet: str
    site: str
    node: str
    repository_url: str
    releases_root: str
    plans_root: str


def encode_token(token: JoinToken) -> str:
    """The text of ``token``: what a person pastes."""
    return TOKEN_PREFIX + base64.urlsafe_b64encode(canonical_json(token)).rstrip(b"=").decode()


_decoder = msgspec.json.Decoder(JoinToken, strict=True)


def decode_token(text: str) -> JoinToken:
    """The inverse of :func:`encode_token`.

    Raises:
        InvalidInput: it is not a join token of this version. The message never repeats the text.
    """
    text = text.strip()
    hint = "Ask for a new one: nearcast join-token SITE"
    if not text.startswith(TOKEN_PREFIX) or len(text) > MAX_TOKEN_CHARACTERS:
        raise InvalidInput(f"expected a join token, which begins with {TOKEN_PREFIX!r}; got something else", hint=hint)
    body = text.removeprefix(TOKEN_PREFIX)
    try:
        token = _decoder.decode(base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        raise InvalidInput("the join token is damaged: it was cut short or changed on its way", hint=hint) from error
    if token.v != TOKEN_VERSION:
        raise InvalidInput(f"expected a join token of version {TOKEN_VERSION}, got version {token.v}", hint=hint)
    return token
