"""Who this node is: a private key that never leaves it, its certificate, its credential, and what it trusts.

Decides the form of the files and when a certificate is renewed: when a third of its life is over (ten of thirty days),
so that two thirds remain as grace while the control plane cannot be reached. The key stays the same over renewals: key
and certificate are two files, and one that does not fit the other would cut the node off.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from nearcast.agent.layout import Layout
from nearcast.durable import read_if_exists, write_whole
from nearcast.errors import IntegrityError, InvalidInput
from nearcast.gateway.render import Identity
from nearcast.resources.plan import node_id, server_name
from nearcast.resources.unreadable import UNREADABLE

SECRET: Final = 0o600
RENEW_AFTER: Final = 1 / 3


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """``node.json``: written last when a node joins, so its presence means that everything else is there.

    Attributes:
        control: URL of the control plane, or empty for a node that is carried its plans.
        repository: URL of the repository: below the control plane, any other ``https``, or a ``file`` folder.
        releases_root_sha256, plans_root_sha256: what the join token pinned.
    """

    fleet: str
    site: str
    node: str
    control: str
    repository: str
    ca_sha256: str
    releases_root_sha256: str
    plans_root_sha256: str

    @property
    def spiffe_id(self) -> str:
        """The name in the node's certificate."""
        return node_id(self.fleet, self.site, self.node)


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate is honoured."""

    begins: datetime
    ends: datetime

    def renew_at(self) -> datetime:
        """When to ask for the next one."""
        return self.begins + (self.ends - self.begins) * RENEW_AFTER

    def is_due(self, now: datetime) -> bool:
        """Whether that time has come."""
        return now >= self.renew_at()


def read_membership(layout: Layout) -> Membership | None:
    """Who this node is, or None before it has joined.

    Raises:
        IntegrityError: the file is damaged.
    """
    data = read_if_exists(layout.node)
    try:
        return None if data is None else msgspec.json.decode(data, type=Membership)
    except UNREADABLE as error:
        raise IntegrityError(
            f"{layout.node} is damaged: {error}",
            hint="join again with a new token: the node keeps its key and its files",
        ) from (error)


def load_or_make_key(layout: Layout) -> ec.EllipticCurvePrivateKey:
    """The node's private key (ECDSA P-256); made at the first call, 0600.

    Raises:
        IntegrityError: the file is damaged.
    """
    pem = read_if_exists(layout.key)
    if pem is None:
        key = ec.generate_private_key(ec.SECP256R1())
        write_whole(layout.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=SECRET)
        return key
    try:
        found = load_pem_private_key(pem, password=None)
    except ValueError as error:
        raise IntegrityError(f"{layout.key} is damaged: {error}", hint="remove it and join again") from error
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise IntegrityError(f"expected an ECDSA key in {layout.key}, found {type(found).__name__}")
    return found


def signing_request(key: ec.EllipticCurvePrivateKey, common_name: str) -> str:
    """A PKCS #10 request for ``key`` as PEM. The authority decides every name in the certificate itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def authority_sha256(pem: str) -> str:
    """SHA-256 (hex) of the certificate in ``pem``, in DER: what join tokens pin.

    Raises:
        IntegrityError: it is not one certificate.
    """
    return hashlib.sha256(_certificate(pem, "the authority").public_bytes(Encoding.DER)).hexdigest()


def check_certificate(
    pem: str, authority_pem: str, key: ec.EllipticCurvePrivateKey, spiffe_id: str, dns_name: str
) -> Validity:
    """Check that a certificate is ours: for our key, by our authority, in our name.

    Raises:
        IntegrityError: it is not; the message says which check failed.
    """
    certificate, authority = _certificate(pem, "the node"), _certificate(authority_pem, "the authority")
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise IntegrityError("expected a certificate of the fleet's authority, got another signer's") from error
    if _spki(certificate.public_key()) != _spki(key.public_key()):
        raise IntegrityError("expected a certificate for this node's key, got one for another key")
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise IntegrityError(f"expected a certificate for {spiffe_id}, got one without names") from error
    ids = names.get_values_for_type(x509.UniformResourceIdentifier)
    if ids != [spiffe_id] or names.get_values_for_type(x509.DNSName) != [dns_name]:
        raise IntegrityError(f"expected a certificate for {spiffe_id} and {dns_name}, got one for {ids}")
    return validity_of(pem)


def validity_of(pem: str) -> Validity:
    """From when to when the certificate in ``pem`` is honoured. Raises :class:`IntegrityError` if it is none."""
    certificate = _certificate(pem, "the node")
    return Validity(certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def read_identity(layout: Layout, membership: Membership) -> Identity:
    """The node's identity as the gateway needs it, checked.

    Raises:
        IntegrityError: a file is missing, damaged, or not what the join token pinned.
    """
    key = load_or_make_key(layout)
    try:
        certificate, authority = layout.certificate.read_text(), layout.authority.read_text()
    except FileNotFoundError as error:
        raise IntegrityError(f"the identity of this node is incomplete: {error.filename} is missing") from error
    except UnicodeDecodeError as error:
        raise IntegrityError(f"a certificate in {layout.identity} is damaged: {error.reason}") from error
    if authority_sha256(authority) != membership.ca_sha256:
        raise IntegrityError(f"{layout.authority} is not the authority that the join token pinned")
    dns_name = server_name(membership.fleet, membership.site)
    check_certificate(certificate, authority, key, membership.spiffe_id, dns_name)
    return Identity(certificate_pem=certificate, key_pem=layout.key.read_text(), authority_pem=authority)


def read_credential(layout: Layout) -> str:
    """What the node shows to the control plane; empty where it has none."""
    return (read_if_exists(layout.credential) or b"").decode().strip()


def check_root(data: bytes, sha256: str, name: str) -> None:
    """Check a TUF root against the hash in the join token. Raises :class:`IntegrityError`."""
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise IntegrityError(f"expected the root of {name} that the join token pins ({sha256}), got {found}")


def _certificate(pem: str, whose: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        raise IntegrityError(f"expected the certificate of {whose} in PEM: {error}") from error


def _spki(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise InvalidInput(f"expected an ECDSA key, got {type(key).__name__}")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
