"""The fleet's certificate authority: who is a node of which site, and that the control plane is itself.

ECDSA P-256 throughout, which Envoy's BoringSSL takes everywhere. A node's certificate carries its SPIFFE id (URI) and
the DNS name of its site's peer listener; nothing in a signing request but the public key is believed. Not decided here:
who may ask for a certificate (`members`), and revocation (a deny list in every site plan).
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nearcast.durable import read_if_exists, write_whole
from nearcast.errors import InvalidInput
from nearcast.resources.plan import node_id, server_name
from nearcast.resources.revision import digest_of

AUTHORITY_LIFETIME: Final = timedelta(days=3650)
LEAF_LIFETIME: Final = timedelta(days=30)
"""Longer than the grace for which a site may be cut off."""
CLOCK_SKEW: Final = timedelta(hours=2)
"""Certificates begin so much earlier: a node whose clock is an hour behind believes in them, too."""
MAX_CSR_CHARACTERS: Final = 16_384
_BACKUP: Final = "Restore the directory from a backup: no node would believe in a new authority."


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate. ``key_sha256`` is the hash of the public key that it is for."""

    pem: str
    serial: str
    expires_at: datetime
    key_sha256: str


@dataclass(frozen=True, slots=True)
class Authority:
    """Issues certificates. Make one with :func:`load_or_create_authority`."""

    fleet: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    node_lifetime: timedelta = LEAF_LIFETIME

    @property
    def pem(self) -> str:
        """The authority's certificate: what everybody trusts."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def sha256(self) -> str:
        """SHA-256 (hexadecimal) of the certificate in DER: what join tokens pin."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def issue_node(self, csr_pem: str, site: str, node: str, now: datetime) -> Issued:
        """A certificate for a node, for client and server side of mutual TLS.

        Raises:
            InvalidInput: ``csr_pem`` is not a signing request with its own valid signature by an ECDSA P-256 key.
        """
        key = _requested_key(csr_pem)
        names = [
            x509.UniformResourceIdentifier(node_id(self.fleet, site, node)),
            x509.DNSName(server_name(self.fleet, site)),
        ]
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        return self._issue(key, f"{site}/{node}", names, usages, now, self.node_lifetime)

    def issue_server(self, names: Sequence[str], now: datetime) -> tuple[bytes, Issued]:
        """A fresh private key (PEM) and a certificate for the control plane's own API, valid for ``names``."""
        key = ec.generate_private_key(ec.SECP256R1())
        issued = self._issue(
            key.public_key(),
            "control",
            [_name(name) for name in names],
            [ExtendedKeyUsageOID.SERVER_AUTH],
            now,
            LEAF_LIFETIME,
        )
        return _private_pem(key), issued

    def _issue(
        self,
        key: ec.EllipticCurvePublicKey,
        common_name: str,
        names: Sequence[x509.GeneralName],
        usages: Sequence[x509.ObjectIdentifier],
        now: datetime,
        lifetime: timedelta,
    ) -> Issued:
        expires_at = min(now + lifetime, self.certificate.not_valid_after_utc)
        own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_subject(self.fleet, common_name))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - min(CLOCK_SKEW, lifetime / 10))
            .not_valid_after(expires_at)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return Issued(
            pem=certificate.public_bytes(Encoding.PEM).decode(),
            serial=f"{certificate.serial_number:x}",
            expires_at=certificate.not_valid_after_utc,
            key_sha256=key_hash(key),
        )


def load_or_create_authority(directory: Path, fleet: str, now: datetime) -> Authority:
    """The authority whose ``ca.key`` and ``ca.pem`` lie in ``directory``; both are made where there are none.

    The key is written before the certificate, so that a crash between them makes a new pair and strands nobody.

    Raises:
        InvalidInput: the files are damaged, or belong to another fleet.
    """
    key_file, certificate_file = directory / "ca.key", directory / "ca.pem"
    pem = read_if_exists(certificate_file)
    if pem is None:
        authority = _new_authority(fleet, now)
        write_whole(key_file, _private_pem(authority.key), mode=0o600)
        write_whole(certificate_file, authority.pem.encode())
        return authority
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = load_pem_private_key(key_file.read_bytes(), password=None)
    except (ValueError, TypeError, OSError, UnsupportedAlgorithm) as error:
        raise InvalidInput(
            f"the authority in {key_file} and {certificate_file} cannot be read: {error}", hint=_BACKUP
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not _same_key(key, certificate):
        raise InvalidInput(f"{key_file} and {certificate_file} do not belong together: one is damaged", hint=_BACKUP)
    organization = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if not organization or organization[0].value != fleet:
        raise InvalidInput(f"the authority in {directory} is not that of the fleet {fleet!r}")
    return Authority(fleet, certificate, key)


def _same_key(key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> bool:
    """Whether ``certificate`` is for ``key``, and is what its own signature says."""
    try:
        certificate.verify_directly_issued_by(certificate)
        return key_hash(key.public_key()) == key_hash(certificate.public_key())
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False


def requested_key_sha256(csr_pem: str) -> str:
    """The hash of the key that a signing request is for; nothing is signed. Raises :class:`InvalidInput`."""
    return key_hash(_requested_key(csr_pem))


def key_hash(key: object) -> str:
    """SHA-256 (hexadecimal) of a public key (SubjectPublicKeyInfo in DER)."""
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise InvalidInput(f"expected an ECDSA P-256 key, got {type(key).__name__}")
    return digest_of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).removeprefix("sha256:")


def _new_authority(fleet: str, now: datetime) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(fleet, "nearcast authority")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(fleet, certificate, key)


def _requested_key(csr_pem: str) -> ec.EllipticCurvePublicKey:
    """The public key of a signing request, once its owner has proved to hold the private one."""
    if len(csr_pem) > MAX_CSR_CHARACTERS:
        raise InvalidInput(f"expected a signing request of at most {MAX_CSR_CHARACTERS} characters")
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        key = request.public_key()
        valid = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise InvalidInput("expected a PKCS #10 signing request in PEM, got something else") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidInput("expected a signing request with an ECDSA P-256 key, got another kind of key")
    if not valid:
        raise InvalidInput("the signing request is not signed by the key that it names")
    return key


def _subject(fleet: str, common_name: str) -> x509.Name:
    """A name for people; at most 64 characters by X.509. Nothing is decided by it."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, fleet),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
        ]
    )


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
