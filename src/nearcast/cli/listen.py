"""How a local fleet listens besides its ports: TLS for clients, and an address of metrics for each node.

Decides what ``up`` makes of what it was told; that is kept from start to start, until it is told otherwise. Serving is
the agents'. Commands on this machine know a gateway by the very certificate that it was given, whatever names stand in
it: other clients need the authority behind it.
"""

import itertools
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from nearcast.agent.public_tls import read_pair
from nearcast.agent.settings import Address, address
from nearcast.cli.fleet import FleetFile, LocalSite, free_ports, is_free
from nearcast.cli.gateway import answers
from nearcast.errors import Conflict, InvalidInput

PORT_LAST: Final = 65_535
NO_CHECK_TIME: Final = 0x200000
"""OpenSSL's ``X509_V_FLAG_NO_CHECK_TIME``, for which the ``ssl`` module has no name."""


@dataclass(frozen=True, slots=True)
class Listening:
    """What ``up`` was told. None, and False, keep what the fleet has."""

    public_tls: tuple[Path, Path] | None = None
    metrics: Address | None = None
    no_public_tls: bool = False
    no_metrics: bool = False

    def over(self, fleet: FleetFile) -> FleetFile:
        """``fleet`` as it shall listen from now on.

        Raises:
            InvalidInput: there are not enough ports for all sites.
            Conflict: another program listens on one of them.
        """
        if self.no_public_tls:
            fleet = msgspec.structs.replace(fleet, public_tls_cert=None, public_tls_key=None)
        elif self.public_tls is not None:
            certificate, key = (str(path) for path in self.public_tls)
            fleet = msgspec.structs.replace(fleet, public_tls_cert=certificate, public_tls_key=key)
        if self.no_metrics:
            sites = {name: msgspec.structs.replace(site, metrics_port=0) for name, site in fleet.sites.items()}
            return msgspec.structs.replace(fleet, metrics=None, sites=sites)
        if self.metrics is not None:
            return _with_metrics(fleet, self.metrics)
        return _with_metrics(fleet, address(fleet.metrics)) if fleet.metrics else fleet


def listening(
    certificate: Path | None, key: Path | None, metrics: str | None, *, no_public_tls: bool, no_metrics: bool
) -> Listening:
    """What the options of ``up`` ask for.

    Raises:
        InvalidInput: they contradict one another, or the files are no certificate and its key.
    """
    if (certificate is None) != (key is None):
        raise InvalidInput("expected --public-tls-cert and --public-tls-key together, got one of them")
    if no_public_tls and certificate is not None:
        raise InvalidInput("expected a certificate or --no-public-tls, got both")
    if no_metrics and metrics is not None:
        raise InvalidInput("expected --metrics or --no-metrics, got both")
    pair = None
    if certificate is not None and key is not None:
        pair = certificate.expanduser().absolute(), key.expanduser().absolute()
        read_pair(*pair)
    return Listening(pair, address(metrics) if metrics else None, no_public_tls, no_metrics)


def metrics_url(fleet: FleetFile, site: str) -> str | None:
    """Where the node of ``site`` serves its metrics, for somebody on this machine; None for nowhere."""
    told = fleet.metrics_address(site)
    if told is None:
        return None
    served = address(told)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(served.host, served.host)
    return f"http://{Address(host, served.port)}/metrics"


def trust_in(fleet: FleetFile) -> ssl.SSLContext | None:
    """How a gateway of ``fleet`` is known: by the certificate that it was given. None where it speaks plain HTTP.

    Raises:
        InvalidInput: the files are no certificate and its key any more.
    """
    if fleet.public_tls_cert is None or fleet.public_tls_key is None:
        return None
    pair = read_pair(Path(fleet.public_tls_cert), Path(fleet.public_tls_key))
    own = x509.load_pem_x509_certificates(pair.certificate_pem.encode())[0].public_bytes(Encoding.PEM).decode()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # it is this certificate or none; dates are its owner's affair, as for the agent
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | NO_CHECK_TIME
    context.load_verify_locations(cadata=own)
    return context


def gateway_answers(fleet: FleetFile, site: str) -> bool:
    """Whether the gateway of ``site`` says that it is ready, as the fleet shall listen now."""
    try:
        trust = trust_in(fleet)
    except InvalidInput:
        return False
    return answers(f"{fleet.gateway_url(site)}/readyz", trust)


def metrics_answer(fleet: FleetFile, site: str) -> bool:
    """Whether the node of ``site`` serves its metrics where it shall, or shall serve none."""
    url = metrics_url(fleet, site)
    return url is None or answers(url)


def _with_metrics(fleet: FleetFile, base: Address) -> FleetFile:
    """``fleet`` with a port of metrics for each site: ``base`` for the first, those that follow for the others.

    Sites that have one on the same base keep it.
    """
    is_same = fleet.metrics == str(base)
    before = {site.metrics_port for site in fleet.sites.values() if site.metrics_port}
    new = [name for name, site in fleet.sites.items() if not (is_same and site.metrics_port)]
    held = {fleet.control_port, *(port for site in fleet.sites.values() for port in (site.public_port, site.peer_port))}
    held |= before if is_same else set()
    ports = iter(free_ports(len(new), base.host)) if base.port == 0 else _following(base.port, held)
    sites: dict[str, LocalSite] = {}
    for name in new:
        port = next(ports, None)
        if port is None:
            raise InvalidInput(f"expected --metrics with a port that leaves one for each site, got {base}")
        if port not in before and not is_free(port, base.host):
            raise Conflict(
                f"another program listens on {Address(base.host, port)}, where {name} should serve its metrics",
                hint="give --metrics another port: each site takes one, from that one on; 0 takes free ones",
            )
        sites[name] = msgspec.structs.replace(fleet.sites[name], metrics_port=port)
    return msgspec.structs.replace(fleet, metrics=str(base), sites=fleet.sites | sites)


def _following(first: int, held: set[int]) -> Iterator[int]:
    return itertools.filterfalse(held.__contains__, range(first, PORT_LAST + 1))
