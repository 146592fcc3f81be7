"""The certificate for clients: a pair is taken when it is one, and the last good one stays."""

import asyncio
import base64
import datetime
import errno
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from nearcast.agent.arguments import parse
from nearcast.agent.public_tls import CONDITION, PublicTls, read_pair
from nearcast.agent.report import Troubles
from nearcast.durable import DiskFull
from nearcast.errors import InvalidInput
from nearcast.gateway.render import PublicCertificate

SHORT = rsa.generate_private_key(65537, 1024)  # noqa: S505  (it is refused)
P256_OID = bytes.fromhex("2a8648ce3d030107")
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class Gateway:
    def __init__(self) -> None:
        self.shown: list[PublicCertificate] = []

    def install_public(self, certificate: PublicCertificate) -> bool:
        self.shown.append(certificate)
        return True

    def has_public(self) -> bool:
        return bool(self.shown)


def p256() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def certificate_of(key: Key) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway.test")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM)


def secret_of(key: Key, encryption: KeySerializationEncryption | None = None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "tls.pem", tmp_path / "tls.key"


def write(files: tuple[Path, Path], key: Key) -> None:
    files[0].write_bytes(certificate_of(key))
    files[1].write_bytes(secret_of(key))


@pytest.mark.parametrize(
    "key", [p256(), ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)]
)
def test_a_pair_is_read(files: tuple[Path, Path], key: Key) -> None:
    write(files, key)
    pair = read_pair(*files)
    assert (pair.certificate_pem, pair.key_pem) == (files[0].read_text(), files[1].read_text())
    assert pair.key_pem not in repr(pair)


@pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), SHORT])
def test_a_key_that_the_gateway_does_not_take_is_refused(files: tuple[Path, Path], key: Key) -> None:
    write(files, key)
    with pytest.raises(InvalidInput, match="expected a key for RSA from 2048 bits, P-256 or P-384"):
        read_pair(*files)


def test_what_is_no_pair_is_refused_and_named(files: tuple[Path, Path]) -> None:
    key = p256()
    with pytest.raises(InvalidInput, match="cannot read"):
        read_pair(*files)
    write(files, key)
    files[1].write_bytes(secret_of(p256()))
    with pytest.raises(InvalidInput, match="is not that of the first certificate"):
        read_pair(*files)
    files[1].write_bytes(secret_of(key, BestAvailableEncryption(b"password")))
    with pytest.raises(InvalidInput, match="without a password"):
        read_pair(*files)
    files[0].write_bytes(certificate_of(key)[:100])
    with pytest.raises(InvalidInput, match="expected a certificate chain in PEM"):
        read_pair(*files)


def test_the_last_good_pair_stays_while_the_files_are_none(files: tuple[Path, Path]) -> None:
    gateway, troubles = Gateway(), Troubles()
    tls = PublicTls(*files, gateway, troubles)
    with pytest.raises(InvalidInput, match="cannot read"):
        asyncio.run(tls.start())
    first, second = p256(), p256()
    write(files, first)
    asyncio.run(tls.start())
    files[0].write_bytes(certificate_of(second))  # the key is written a moment later
    assert asyncio.run(tls.look()) is False
    assert [item.type for item in troubles.now()] == [CONDITION]
    asyncio.run(tls.start())  # an agent that starts just then has something to show, too
    assert {pair.key_pem for pair in gateway.shown} == {secret_of(first).decode()}
    files[1].write_bytes(secret_of(second))
    assert asyncio.run(tls.look()) is True
    assert troubles.now() == ()
    assert gateway.shown[-1].key_pem == secret_of(second).decode()


def test_a_key_of_a_curve_that_nobody_knows_is_refused(files: tuple[Path, Path]) -> None:
    key = p256()
    write(files, key)
    known = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    unknown = base64.encodebytes(known.replace(P256_OID, P256_OID[:-1] + b"\x7f"))
    files[1].write_bytes(b"-----BEGIN %b-----\n%b-----END %b-----\n" % (b"PRIVATE KEY", unknown, b"PRIVATE KEY"))
    with pytest.raises(InvalidInput, match="expected a private key in PEM"):
        read_pair(*files)


def test_a_full_disk_is_a_trouble_and_no_end(files: tuple[Path, Path]) -> None:
    class Full(Gateway):
        def install_public(self, certificate: PublicCertificate) -> bool:
            raise DiskFull(Path("public.yaml"), OSError(errno.ENOSPC, "no space"))

    troubles = Troubles()
    write(files, p256())
    assert asyncio.run(PublicTls(*files, Full(), troubles).look()) is False
    assert [item.reason for item in troubles.now()] == ["DiskFull"]


def test_both_files_are_named_or_none() -> None:
    assert parse(["--data-dir", "d"]).public_tls is None
    settings = parse(["--data-dir", "d", "--public-tls-cert", "a.pem", "--public-tls-key", "a.key"])
    assert settings.public_tls == (Path("a.pem").absolute(), Path("a.key").absolute())
    with pytest.raises(InvalidInput, match="together"):
        parse(["--data-dir", "d", "--public-tls-cert", "a.pem"])
