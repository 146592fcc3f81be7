"""What an agent is told when it starts: read once, frozen, passed down."""

import ipaddress
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from nearcast.errors import InvalidInput
from nearcast.gateway.render import AccessLog, Collector
from nearcast.resources import wire
from nearcast.resources.device import parse_device
from nearcast.resources.names import SITE_RULE, is_site_name


@dataclass(frozen=True, slots=True)
class Address:
    """``host:port``; port 0 means any free one, chosen once and remembered."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_wildcard(self) -> bool:
        """Whether it means every interface, which nobody can connect to by that name."""
        return self.host in {"0.0.0.0", "::"}


BODY_LEAST: Final = 64 * 1024
BODY_MOST: Final = 1024**3
"""HTTP/2 windows end at 2 GiB, and a gateway may hold a body of this size for each request."""

LOOPBACK = Address("127.0.0.1", 0)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one agent.

    Attributes:
        data_dir: the node's data directory.
        join: text of a join token, or None for a node that has joined.
        control: URL of the control plane, or None for the one that the node joined.
        node: name of this node within its site; its host's by default.
        public: where clients reach the gateway. Loopback unless asked for.
        public_tls: certificate chain and key for clients, as PEM files; None for plain HTTP.
        peer: where peer sites reach it.
        advertise_peer: what peers are told to connect to, where that differs from ``peer``.
        poll_s: between two questions for a new plan.
        status_s: between two reports when nothing changes.
        model_bytes: disk that releases may take together; None for as much as there is.
        engine_threads: threads for one run of a model; 0 for as many as there are cores.
        device: where models run, of :data:`~nearcast.resources.device.DEVICE_RULE`.
        device_memory_bytes: of device memory that each model may take; 0 for as much as there is.
        max_body_bytes: largest body, or gRPC message, of a request.
        log_level: of the agent's own log.
        metrics: where ``/metrics`` is served; None for nowhere.
        access_log: which requests the gateway writes a line for.
        collector: of traces, or None.
    """

    data_dir: Path
    join: str | None = None
    control: str | None = None
    node: str | None = None
    public: Address = LOOPBACK
    public_tls: tuple[Path, Path] | None = None
    peer: Address = LOOPBACK
    advertise_peer: Address | None = None
    poll_s: float = 5.0
    status_s: float = 60.0
    model_bytes: int | None = None
    engine_threads: int = 0
    device: str = "auto"
    device_memory_bytes: int = 0
    max_body_bytes: int = wire.BODY_BYTES
    log_level: str = "info"
    metrics: Address | None = None
    access_log: AccessLog = "errors"
    collector: Collector | None = None

    def __post_init__(self) -> None:
        if not 0.05 <= self.poll_s <= 3600 or not 0.05 <= self.status_s <= 3600:
            raise InvalidInput(f"expected intervals of 0.05 to 3600 s, got poll {self.poll_s}, status {self.status_s}")
        parse_device(self.device)
        if self.device_memory_bytes < 0:
            raise InvalidInput(f"expected device memory of 0 bytes or more, got {self.device_memory_bytes}")
        if not BODY_LEAST <= self.max_body_bytes <= BODY_MOST:
            raise InvalidInput(
                f"expected a largest body of {BODY_LEAST} to {BODY_MOST}, got {self.max_body_bytes} bytes"
            )
        if self.node is not None and not is_site_name(self.node):
            raise InvalidInput(f"expected a node name of {SITE_RULE}; got {self.node!r}")
        if self.peer.is_wildcard and (self.advertise_peer is None or self.advertise_peer.is_wildcard):
            raise InvalidInput(
                f"peers cannot connect to {self.peer.host}: expected an address that they can reach",
                hint="name it with --advertise-peer IP[:PORT]",
            )


def address(text: str, *, port_required: bool = True) -> Address:
    """Parse ``IP:PORT``, ``[IPv6]:PORT``, or without ``port_required`` a bare IP address; ``localhost`` is one.

    Raises:
        InvalidInput: it is neither; the gateway and those of peers take addresses, no other names.
    """
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, "" if not port_required else "?"
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and (port.isdigit() or port == "")) or int(port or 0) > 65535:
        raise InvalidInput(f"expected HOST:PORT with a port from 0 to 65535, got {text!r}")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host != "localhost":
            raise InvalidInput(f"expected an IP address, got {host!r}") from None
        host = "127.0.0.1"
    return Address(host, int(port or 0))


def collector(endpoint: str, ratio: float) -> Collector:
    """Parse the base URL of an OTLP/HTTP collector, as in ``OTEL_EXPORTER_OTLP_ENDPOINT``: ``/v1/traces`` is added.

    Raises:
        InvalidInput: it is no such URL, or ``ratio`` is not from 0 to 1.
    """
    parts = urlsplit(endpoint)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == -1 or parts.query or parts.username:
        raise InvalidInput(
            f"expected the URL of an OTLP/HTTP collector, got {endpoint!r}", hint="such as http://127.0.0.1:4318"
        )
    if not 0 <= ratio <= 1:
        raise InvalidInput(f"expected a share of requests to trace, from 0 to 1; got {ratio:g}")
    tls = parts.scheme == "https"
    path = f"{parts.path.rstrip('/')}/v1/traces"
    return Collector(parts.hostname, port or (443 if tls else 80), path, tls, ratio)


def default_node_name() -> str:
    """A node name made of the host's, or ``node-1`` where that gives none."""
    name = re.sub(r"[^a-z0-9-]+", "-", platform.node().lower()).strip("-")[:63].strip("-")
    return name if is_site_name(name) else "node-1"
