"""Envoys to measure: one that only proxies, and ours, with the configuration that a site has."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.ports import await_port, free_port
from bench.running import Running, pin
from nearcast.control.authority import load_or_create_authority
from nearcast.gateway.apply import Gateway
from nearcast.gateway.envoy import binary
from nearcast.gateway.render import GatewayInputs, Identity, Listen, LocalModel, PublicCertificate, Telemetry, render
from nearcast.planning.routes import ModelRoute, RouteTable
from nearcast.resources import wire
from nearcast.resources.plan import Peer, PlannedModel, ServedModel, SiteFacts, SitePlan, server_name
from nearcast.resources.status import Share

FLEET = "bench.nearcast.internal"
TYPE = "type.googleapis.com/envoy.extensions."


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in memory and as files."""

    certificate: Path
    key: Path

    @property
    def public(self) -> PublicCertificate:
        """As our gateway takes it."""
        return PublicCertificate(self.certificate.read_text(), self.key.read_text())


def self_signed(folder: Path) -> Pair:
    """A P-256 certificate for loopback, the same for everybody who is measured."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    made = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    pair = Pair(folder / "tls.pem", folder / "tls.key")
    pair.certificate.write_bytes(made.public_bytes(Encoding.PEM))
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return pair


def plain_config(port: int, engine: Path, tls: Pair | None = None) -> dict[str, Any]:
    """The configuration of an Envoy that only proxies."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": "engine", "timeout": "0s"}}
    manager = {
        "@type": f"{TYPE}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "plain",
        "generate_request_id": False,
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPE}filters.http.router.v3.Router"}}
        ],
    }
    chain: dict[str, Any] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    }
    if tls is not None:
        files = {
            "certificate_chain": {"filename": str(tls.certificate)},
            "private_key": {"filename": str(tls.key)},
        }
        chain["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{TYPE}transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {"tls_certificates": [files]},
            },
        }
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(engine)}}}}
    cluster = {
        "name": "engine",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "engine", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    listener = {
        "name": "public",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [chain],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


@contextmanager
def static(folder: Path, name: str, config: dict[str, Any]) -> Iterator[Running]:
    """An Envoy with a static configuration, whose listener `public` is measured."""
    file = folder / f"{name}.json"
    file.write_text(json.dumps(config))
    command = [str(binary()), "-c", str(file), "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"]
    listeners = config["static_resources"]["listeners"]
    (public,) = [listener for listener in listeners if listener["name"] == "public"]
    port = public["address"]["socket_address"]["port_value"]
    with subprocess.Popen(command) as process:
        try:
            await_port(port)
            pin(process.pid)
            yield Running(port, process.pid)
        finally:
            process.kill()


def plain(folder: Path, engine: Path, tls: Pair | None = None) -> Any:
    """An Envoy that only proxies."""
    return static(folder, "plain-tls" if tls else "plain", plain_config(free_port(), engine, tls))


@dataclass(frozen=True)
class Place:
    """A site of the benchmark: its directory, its name, its addresses."""

    folder: Path
    name: str
    listen: Listen

    @property
    def facts(self) -> SiteFacts:
        """What a plan says about it."""
        return SiteFacts(name=self.name, tier="edge", country="DE", jurisdictions=("EEA", "EU"))

    @property
    def run_dir(self) -> Path:
        """Where its sockets are."""
        return self.folder / "run"

    def socket(self, model: str) -> Path:
        """Where its engine listens for `model`."""
        return self.run_dir / wire.model_socket(model, "1")

    @property
    def status_socket(self) -> Path:
        """Where its engine tells how it is."""
        return self.run_dir / wire.ENGINE_STATUS

    def as_peer(self, model: str) -> Peer:
        """What another site's plan says about it."""
        return Peer(
            site=self.facts,
            addresses=(f"127.0.0.1:{self.listen.peer_port}",),
            server_name=server_name(FLEET, self.name),
            round_trip_s=0.001,
            models=(ServedModel(model=model, version="1"),),
        )


def place(folder: Path, name: str, *, tls: bool = False) -> Place:
    """A site with free ports and empty directories."""
    made = Place(folder / name, name, Listen("127.0.0.1", free_port(), "127.0.0.1", free_port(), tls))
    made.run_dir.mkdir(parents=True, mode=0o700)
    return made


def inputs(site: Place, model: str, *, callers: tuple[Place, ...] = (), peer: Place | None = None) -> GatewayInputs:
    """What the renderer is given for a site that serves `model`, or that sends its requests to `peer`."""
    here = peer is None
    planned = (PlannedModel(model=model, version="1", release="sha256:0", deployment=model),) if here else ()
    order = (site.name,) if peer is None else (peer.name,)
    return GatewayInputs(
        plan=SitePlan(
            fleet=FLEET,
            site=site.facts,
            version=1,
            revision="r",
            models=planned,
            catalog=(model,),
            peers=() if peer is None else (peer.as_peer(model),),
            callers=tuple(caller.facts for caller in callers),
        ),
        node="n",
        listen=site.listen,
        run_dir=str(site.run_dir),
        envoy_dir=str(site.folder / "envoy"),
        local=(LocalModel(model, "1", str(site.socket(model))),) if here else (),
        active={model: "1"} if here else {},
        routes=RouteTable(models={model: ModelRoute("routed", (Share(percent=100, order=order),))}),
        telemetry=Telemetry(access_log="errors", access_log_file=str(site.folder / "access.log")),
    )


@contextmanager
def ours(folder: Path, site: Place, given: GatewayInputs, tls: Pair | None = None) -> Iterator[Running]:
    """Our gateway at `site`: the same code as at a node, the same files, the same start."""
    gateway = Gateway(site.folder / "envoy", site.run_dir, site.folder / "envoy.log", concurrency=1)
    gateway.install_identity(identity(folder, site.name))
    if tls is not None:
        gateway.install_public(tls.public)
    gateway.start_or_adopt(render(given))
    pid = gateway.pid()
    assert pid is not None
    try:
        pin(pid)
        await_port(site.listen.public_port)
        time.sleep(0.5)  # the first health check
        yield Running(site.listen.public_port, pid)
    finally:
        gateway.kill()


def identity(folder: Path, site: str) -> Identity:
    """A node of `site`, by the authority of the benchmark."""
    now = datetime.now(UTC)
    authority = load_or_create_authority(folder / "ca", FLEET, now)
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    issued = authority.issue_node(request.public_bytes(Encoding.PEM).decode(), site, "n", now)
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return Identity(issued.pem, key_pem, authority.pem)
