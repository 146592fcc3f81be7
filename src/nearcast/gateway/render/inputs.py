"""What the renderer is given. It reads nothing else: no clock, no disk, no environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from nearcast.planning.holding import barred
from nearcast.planning.routes import RouteTable
from nearcast.resources import wire
from nearcast.resources.plan import Peer, SitePlan, siblings

HEAP_BYTES: Final = 1024 * 1024 * 1024
"""Room for a dozen of the largest bodies at once, and for thousands of usual requests."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the gateway listens: for clients (``public_*``) and for peer sites (``peer_*``). IP addresses, no names.

    Attributes:
        public_tls: whether clients speak TLS; the certificate is a file of its own (`Gateway.install_public`).
    """

    public_host: str
    public_port: int
    peer_host: str
    peer_port: int
    public_tls: bool = False


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model version whose engine socket is up on this node."""

    model: str
    version: str
    socket_path: str


AccessLog = Literal["off", "errors", "all"]


@dataclass(frozen=True, slots=True)
class Collector:
    """An OTLP/HTTP collector of traces, and the share of requests (0 to 1) that is traced where no caller decided."""

    host: str
    port: int
    path: str
    tls: bool
    ratio: float

    @property
    def url(self) -> str:
        """Where traces go."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.path}"


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What the gateway tells of its requests beside its statistics.

    Attributes:
        access_log: which requests get a line: none, those with a status of 400 or more, all.
        access_log_file: where to, absolute.
        collector: of traces; None for no traces.
    """

    access_log: AccessLog = "off"
    access_log_file: str = ""
    collector: Collector | None = None


@dataclass(frozen=True, slots=True)
class GatewayInputs:
    """Everything that the configuration of one gateway follows from.

    Attributes:
        plan: the verified site plan.
        node: name of this node.
        listen: addresses of its listeners.
        run_dir: directory of its sockets, short enough for ``sun_path``.
        envoy_dir: directory that the rendered files will be read from (absolute).
        local: model versions whose sockets are up.
        active: model -> the local version that new requests go to; a model that is missing here, or whose version is
            not in ``local``, is not served locally.
        max_body_bytes: largest body of a request.
        routes: shares and orders per model; the own site's name means the local engine, ``site/node`` a sibling.
        telemetry: access log and traces.
        heap_bytes: what the gateway's memory may grow to before it refuses requests.
        leaving: whether it is about to be stopped: peers are told to go elsewhere.
    """

    plan: SitePlan
    node: str
    listen: Listen
    run_dir: str
    envoy_dir: str
    local: tuple[LocalModel, ...] = ()
    active: Mapping[str, str] = field(default_factory=dict)
    routes: RouteTable = field(default_factory=RouteTable)
    max_body_bytes: int = wire.BODY_BYTES
    telemetry: Telemetry = field(default_factory=Telemetry)
    heap_bytes: int = HEAP_BYTES
    leaving: bool = False

    def others(self) -> dict[str, Peer]:
        """Every place beyond this node that may be asked, by name: siblings, then peer sites."""
        return siblings(self.plan, self.node) | {peer.site.name: peer for peer in self.plan.peers}

    def serving(self, model: str) -> LocalModel | None:
        """The local model version that new requests for ``model`` go to, or None; none that the site must not hold."""
        if barred(self.plan, model, self.plan.site):
            return None
        version = self.active.get(model)
        return next((item for item in self.local if item.model == model and item.version == version), None)
