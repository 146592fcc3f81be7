"""A fleet of real Envoys on loopback with fake engines on Unix sockets, certificates made on the spot."""

import asyncio
import contextlib
import datetime
import http.client
import json
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from nearcast.gateway.apply import Gateway
from nearcast.gateway.render import GatewayInputs, Identity, Listen, LocalModel, render
from nearcast.planning.routes import ModelRoute, RouteTable
from nearcast.resources import wire
from nearcast.resources.plan import (
    Peer,
    PlannedModel,
    ResidencyRule,
    ServedModel,
    SiteFacts,
    SitePlan,
    node_id,
    server_name,
)
from nearcast.resources.status import Share

FLEET = "fleet.test"
COUNTRIES = {"fra": "DE", "iad": "US", "sin": "SG"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


# --- identities ------------------------------------------------------------------------------------------------------


class Authority:
    """The fleet's certificate authority."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        builder = self._builder(name, name, self.key).add_extension(constraints, critical=True)
        self.certificate = builder.sign(self.key, hashes.SHA256())

    def identity(self, site: str, node: str = "n1") -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName(
            [
                x509.UniformResourceIdentifier(node_id(FLEET, site, node)),
                x509.DNSName(server_name(FLEET, site)),
            ]
        )
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site)])
        builder = self._builder(subject, self.certificate.subject, key).add_extension(names, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        pem = serialization.Encoding.PEM
        return Identity(
            certificate_pem=certificate.public_bytes(pem).decode(),
            key_pem=key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode(),
            authority_pem=self.certificate.public_bytes(pem).decode(),
        )

    @staticmethod
    def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
        )


# --- fake engines ----------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """A request as an engine got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    trailers: dict[str, str]


class Engine:
    """An HTTP/1.1 server on a Unix socket that behaves as its ``mode`` says.

    Modes: ok, full, late (full until all places have been asked), broken (plain 503), failing (plain 500), dying (reads
    the request, then resets), stream, lockstep (a stream whose next chunk waits for :meth:`go_on`).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str, label: str) -> None:
        self.loop, self.path, self.label = loop, path, label
        self.mode = "ok"
        self.seen: list[Seen] = []
        self._server: asyncio.AbstractServer | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._steps = asyncio.Semaphore(0)

    def go_on(self) -> None:
        self.loop.call_soon_threadsafe(self._steps.release)

    def start(self) -> "Engine":
        Path(self.path).unlink(missing_ok=True)
        self._call(self._start())
        return self

    def stop(self) -> None:
        """As by SIGKILL: connections break, the socket's file stays."""
        self._call(self._stop())

    def _call(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    async def _start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path, backlog=512)

    async def _stop(self) -> None:
        if self._server:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                request = await self._read(reader)
                self.seen.append(request)
                if self.mode == "dying":
                    writer.transport.abort()
                    return
                await self._answer(request, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Seen:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = b""
        trailers: dict[str, str] = {}
        if "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            while size := int((await reader.readline()).strip(), 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
            while line := (await reader.readline()).decode("latin-1").rstrip("\r\n"):
                name, _, value = line.partition(": ")
                trailers[name] = value
        return Seen(method, path, headers, body, trailers)

    async def _answer(self, request: Seen, writer: asyncio.StreamWriter) -> None:
        status, extra = "200 OK", ""
        tries = request.headers.get(wire.LONGEST_WAIT, "").partition(";")[2]
        is_late = self.mode == "late" and int(request.headers[wire.ATTEMPT]) <= int(tries)
        if self.mode == "full" or is_late:
            status, extra = "503 Service Unavailable", f"{wire.FULL}: queue\r\nretry-after: 1\r\n"
        elif self.mode == "broken":
            status = "503 Service Unavailable"
        elif self.mode == "failing":
            status = "500 Internal Server Error"
        body = json.dumps({"by": self.label, "path": request.path, "bytes": len(request.body)}).encode()
        head = (
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{wire.MODEL}: {self.label}\r\n"
            f"server-timing: queue;dur=0.1, compute;dur=1.0\r\nendpoint-load-metrics: TEXT cpu=0.3\r\n{extra}"
        )
        if self.mode in {"stream", "lockstep"}:
            writer.write(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
            for _ in range(4):
                writer.write(b"5\r\nchunk\r\n")
                await writer.drain()
                if self.mode == "stream":
                    await asyncio.sleep(0.05)
                else:
                    async with asyncio.timeout(10):
                        await self._steps.acquire()
            writer.write(b"0\r\n\r\n")
        else:
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()


# --- clients ---------------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    port: int,
    path: str,
    body: Any = None,
    *,
    method: str | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    return exchange(connection, path, body, method=method, headers=headers)


def exchange(
    connection: http.client.HTTPConnection,
    path: str,
    body: Any = None,
    *,
    method: str | None = None,
    headers: dict[str, str] | None = None,
    close: bool = True,
) -> Answer:
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, data, headers or {})
        response = connection.getresponse()
        received: dict[str, str] = {}
        for name, value in response.getheaders():
            received[name.lower()] = ", ".join(filter(None, (received.get(name.lower()), value)))
        return Answer(response.status, received, response.read())
    finally:
        if close:
            connection.close()


class PipeConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def until(happens: Callable[[], bool], what: str) -> None:
    """Wait for something that comes by itself; its absence after 20 s is a failure."""
    deadline = time.monotonic() + 20
    while not happens():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


# --- sites -----------------------------------------------------------------------------------------------------------


def facts(site: str) -> SiteFacts:
    country = COUNTRIES[site]
    return SiteFacts(name=site, tier="edge", country=country, jurisdictions=("EU",) if country == "DE" else ())


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]


@dataclass
class Site:
    """One gateway, its directories and its fake engines."""

    name: str
    root: Path
    identity: Identity
    loop: asyncio.AbstractEventLoop
    engines: dict[tuple[str, str], Engine] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.public, self.peer_port = free_ports(2)
        (self.root / "run").mkdir(parents=True)
        self.status = Engine(self.loop, str(self.root / "run" / wire.ENGINE_STATUS), "status").start()
        self.gateway = self.agent()
        self.gateway.install_identity(self.identity)

    def agent(self) -> Gateway:
        """A new `Gateway` object, as a new agent would make one."""
        return Gateway(self.root / "envoy", self.root / "run", self.root / "gateway.log")

    def add(self, model: str, version: str = "1") -> Engine:
        path = str(self.root / "run" / wire.model_socket(model, version))
        engine = Engine(self.loop, path, wire.model_at(model, version)).start()
        self.engines[model, version] = engine
        return engine

    def as_peer(self, round_trip_s: float = 0.01) -> Peer:
        return Peer(
            site=facts(self.name),
            addresses=(f"127.0.0.1:{self.peer_port}",),
            server_name=server_name(FLEET, self.name),
            round_trip_s=round_trip_s,
            models=tuple(ServedModel(model=model, version=version) for model, version in sorted(self.engines)),
        )

    def inputs(
        self,
        shares: dict[str, list[tuple[int, str]]],
        *,
        peers: tuple["Site", ...] = (),
        callers: tuple[str, ...] = (),
        catalog: tuple[str, ...] = (),
        rules: tuple[ResidencyRule, ...] = (),
        active: dict[str, str] | None = None,
        emulated: dict[str, float] | None = None,
        revoked: tuple[str, ...] = (),
        longest_ms: dict[str, tuple[tuple[int, ...], ...]] | None = None,
    ) -> GatewayInputs:
        """Inputs with ``shares``: model -> [(percent, "fra>iad")]."""
        models = dict(sorted(self.engines))
        plan = SitePlan(
            fleet=FLEET,
            site=facts(self.name),
            version=1,
            revision="r",
            models=tuple(
                PlannedModel(model=model, version=version, release="d", deployment=model)
                for model, version in models.items()
            ),
            peers=tuple(peer.as_peer() for peer in peers),
            callers=tuple(facts(caller) for caller in callers),
            residency=rules,
            catalog=tuple(sorted({*catalog, *shares})),
            revoked_nodes=revoked,
            emulated_round_trip_s=emulated or {},
        )
        table = {
            model: ModelRoute(
                "routed",
                tuple(Share(percent=percent, order=tuple(order.split(">"))) for percent, order in rows),
                longest_ms=(longest_ms or {}).get(model, ()),
            )
            for model, rows in shares.items()
        }
        return GatewayInputs(
            plan=plan,
            node="n1",
            listen=Listen("127.0.0.1", self.public, "127.0.0.1", self.peer_port),
            run_dir=str(self.root / "run"),
            envoy_dir=str(self.root / "envoy"),
            local=tuple(LocalModel(m, v, engine.path) for (m, v), engine in sorted(self.engines.items())),
            active=models | (active or {}),
            routes=RouteTable(models=table),
        )

    def run(self, inputs: GatewayInputs) -> str:
        return self.gateway.start_or_adopt(render(inputs))

    def probe(self, path: str) -> Answer:
        return exchange(PipeConnection(self.root / "run" / wire.ENVOY_PROBE), path)

    def ejections(self) -> dict[str, int]:
        """Cluster -> how many hosts it has ever ejected, where any. Statistics write ':' as '_'."""
        stats = self.gateway.stats(r"outlier_detection\.ejections_enforced_total$")
        counts = {name.split(".")[1].replace("_", ":", 1): int(value) for name, value in stats.items()}
        return {name: count for name, count in counts.items() if count}

    def wait_healthy(self) -> None:
        """Until no host is ejected."""
        active = r"outlier_detection\.ejections_active$"
        until(lambda: set(self.gateway.stats(active).values()) <= {"0"}, "no host is ejected")


class Fleet:
    """What a test needs to make sites, and what is cleaned up after it."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="gw-", dir="/tmp"))
        self.authority = Authority()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.sites: list[Site] = []
        self.ask = ask
        self.exchange = exchange
        self.until = until

    def site(self, name: str, node: str = "n1") -> Site:
        site = Site(name, self.root / f"{name}{len(self.sites)}", self.authority.identity(name, node), self.loop)
        self.sites.append(site)
        return site

    def close(self) -> None:
        for site in self.sites:
            site.gateway.kill()
            for engine in (site.status, *site.engines.values()):
                engine.stop()
        asyncio.run_coroutine_threadsafe(self._settle(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()
        shutil.rmtree(self.root, ignore_errors=True)

    async def _settle(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    made = Fleet()
    yield made
    made.close()


@pytest.fixture
def own_fleet() -> Iterator[Fleet]:
    """A fleet for one test only."""
    made = Fleet()
    yield made
    made.close()


@pytest.fixture
def rule() -> Callable[..., ResidencyRule]:
    return lambda **fields: ResidencyRule(policy="eu-only", **fields)


__all__ = ["replace"]
