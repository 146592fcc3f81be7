"""The certificate that clients are shown: two files of the operator's, looked at every two seconds.

Whoever renews the files (certbot, a secret of an orchestrator) writes them one after the other, so a pair is taken only
when it is one: readable, of a kind that the gateway knows, and the key fits the certificate. Until then the last good
pair stays, and the node says so. Does not judge names and dates: those are the operator's.
"""

import asyncio
from pathlib import Path
from typing import Final, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from nearcast.agent.report import Troubles
from nearcast.durable import DiskFull
from nearcast.errors import InvalidInput
from nearcast.gateway.render import PublicCertificate

LOOK_S: Final = 2.0
CONDITION: Final = "PublicCertificate"
FILE_MAX_BYTES: Final = 1024 * 1024
RSA_MIN_BITS: Final = 2048


class Shows(Protocol):
    """The gateway, as far as it shows a certificate."""

    def install_public(self, certificate: PublicCertificate) -> bool:
        """Show this one from now on; whether it is another one."""

    def has_public(self) -> bool:
        """Whether it has one to show."""


class PublicTls:
    """Keeps the certificate of one gateway's public listener.

    Args:
        certificate, key: PEM files.
        gateway: what shows them.
        troubles: where a pair that is none is noted.
    """

    def __init__(self, certificate: Path, key: Path, gateway: Shows, troubles: Troubles) -> None:
        self._files = (certificate, key)
        self._gateway = gateway
        self._troubles = troubles

    async def start(self) -> None:
        """Install the pair, or keep the one of the last run.

        Raises:
            InvalidInput: the files are no pair, and there never was one.
        """
        if not await self.look() and not self._gateway.has_public():
            read_pair(*self._files)  # says what is wrong

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> bool:
        """Install the pair if it is one; whether it is."""
        try:
            pair = await asyncio.to_thread(read_pair, *self._files)
            await asyncio.to_thread(self._gateway.install_public, pair)
        except (InvalidInput, DiskFull) as error:
            self._troubles.set(CONDITION, error)
            return False
        self._troubles.clear(CONDITION)
        return True


def read_pair(certificate: Path, key: Path) -> PublicCertificate:
    """The pair in two PEM files.

    Raises:
        InvalidInput: a file cannot be read or is something else, or the key is not the certificate's.
    """
    chain_pem, key_pem = _read(certificate), _read(key)
    try:
        leaf = x509.load_pem_x509_certificates(chain_pem)[0]
        public = leaf.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"expected a certificate chain in PEM, got something else in {certificate}") from error
    try:
        secret = load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"expected a private key in PEM without a password, got something else in {key}") from error
    if isinstance(secret, rsa.RSAPrivateKey):
        known = secret.key_size >= RSA_MIN_BITS
    else:
        known = isinstance(secret, ec.EllipticCurvePrivateKey) and secret.curve.name in {"secp256r1", "secp384r1"}
    if not known:
        raise InvalidInput(f"expected a key for RSA from {RSA_MIN_BITS} bits, P-256 or P-384, got another in {key}")
    if secret.public_key() != public:
        raise InvalidInput(f"the key in {key} is not that of the first certificate in {certificate}")
    return PublicCertificate(chain_pem.decode("ascii", "replace"), key_pem.decode("ascii", "replace"))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    if len(data) > FILE_MAX_BYTES:
        raise InvalidInput(f"expected at most {FILE_MAX_BYTES} bytes in {path}, got more")
    return data
