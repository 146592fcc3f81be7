"""Serving: HTTPS with a certificate of the fleet's own authority, the loop beside it, one process, one lock.

``control.json`` is there while requests are answered, and only then: whoever waits for readiness waits for it. The port
of the first run is kept for later ones. SIGTERM and SIGINT end it in order; ``kill -9`` loses nothing acknowledged.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
import uvicorn
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from nearcast import __version__
from nearcast.control.api import failures
from nearcast.control.api.services import Services
from nearcast.control.app import create_app
from nearcast.control.authority import LEAF_LIFETIME
from nearcast.control.controllers import Controllers
from nearcast.control.observer import Observer
from nearcast.control.plane import ControlPlane, open_control_plane
from nearcast.control.planner import Planner
from nearcast.control.settings import Settings
from nearcast.durable import write_whole
from nearcast.errors import Conflict
from nearcast.notify import READY, STOPPING, ignore_signals, notify, stay_alive

log = logging.getLogger(__name__)

SHUTDOWN_S: Final = 2
HANG_UP_S: Final = 0.02
"""Idle TLS connections of nodes are not worth waiting for."""


def serve(settings: Settings) -> None:
    """Serve until a signal ends it.

    Raises:
        Conflict: another control plane serves this directory, or the port is taken.
        InvalidInput: a setting or a file is not what it must be.
    """
    os.umask(0o077)
    plane = open_control_plane(settings)
    try:
        settings.url_file.unlink(missing_ok=True)  # left by a kill; we hold the lock
        listener = _listen(plane)
        with listener:
            asyncio.run(_serve(plane, listener))
    finally:
        plane.close()


class Certificate:
    """The server's own certificate: made anew in time, taken into use without a restart."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._key = plane.settings.own_keys_dir / "server.key"
        self._certificate = plane.settings.own_keys_dir / "server.pem"
        self.contexts: list[ssl.SSLContext] = []
        self.renew(plane.clock())

    @property
    def files(self) -> tuple[Path, Path]:
        """Key and certificate."""
        return self._key, self._certificate

    def renew(self, now: datetime) -> None:
        """Make a new one where less than two thirds of its life are left, or it lacks a name."""
        names = self._plane.settings.host_names()
        if self._serves(names, now):
            return
        key, issued = self._plane.authority.issue_server(names, now)
        self._certificate.unlink(missing_ok=True)  # never a certificate beside the key of another
        write_whole(self._key, key, mode=0o600)
        write_whole(self._certificate, issued.pem.encode())
        for context in self.contexts:
            context.load_cert_chain(self._certificate, self._key)

    def _serves(self, names: tuple[str, ...], now: datetime) -> bool:
        try:
            certificate = x509.load_pem_x509_certificate(self._certificate.read_bytes())
            key = load_pem_private_key(self._key.read_bytes(), password=None)
            if key.public_key() != certificate.public_key():
                return False
        except (FileNotFoundError, ValueError, TypeError, UnsupportedAlgorithm):
            return False
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        listed = {str(item.value) for item in held}
        ours = certificate.issuer == self._plane.authority.certificate.subject
        return ours and set(names) <= listed and certificate.not_valid_after_utc - now > LEAF_LIFETIME * 2 / 3


class Protocol(HttpToolsProtocol):
    """Uvicorn's HTTP/1.1, with our own shape for what is none, and without answers into a connection that has ended.

    Of requests that a client sent together, the first is answered while the others wait; uvicorn tells only the last of
    them that the connection is gone, and the first one's answer failed over a TLS transport that had been let go.
    """

    _answered: RequestResponseCycle | None = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._let_go()
        super().connection_lost(exc)

    def _let_go(self) -> bool:
        """Nobody waits for an answer any more. Whether one had begun."""
        self.pipeline.clear()
        cycle = self._answered
        if cycle is None or cycle.response_complete:
            return False
        cycle.disconnected = True
        cycle.message_event.set()
        return bool(cycle.response_started)

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that cannot be parsed, and end the connection.

        Once: what comes behind them is no news, and a TLS transport that is closed twice takes no more writes. A
        request that was before them is answered by the end of the connection; its own answer has nowhere to go.
        """
        if self.transport.is_closing():
            return
        if self._let_go():
            self.transport.close()
            return
        refusal = failures.answer("invalid_input", 400, f"expected HTTP/1.1, got something else: {msg}")
        lines = [b"%b: %b" % header for header in (*refusal.raw_headers, (b"connection", b"close"))]
        self.transport.write(b"\r\n".join([b"HTTP/1.1 400 Bad Request", *lines, b"", bytes(refusal.body)]))
        self.transport.close()


class Server(uvicorn.Server):
    """Uvicorn that says when it is ready, and leaves signals to us."""

    def __init__(self, config: uvicorn.Config, url_file: Path, description: bytes) -> None:
        super().__init__(config)
        self._url_file = url_file
        self._description = description

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, then say so."""
        await super().startup(sockets)
        if not self.should_exit:
            write_whole(self._url_file, self._description)
            notify(READY)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is under way, hang up on whoever is idle: a TLS client may take its time to say goodbye."""
        notify(STOPPING)
        hanging_up = asyncio.create_task(self._hang_up())
        try:
            await super().shutdown(sockets)
        finally:
            hanging_up.cancel()

    async def _hang_up(self) -> None:
        while True:
            for connection in list(self.server_state.connections):
                cycle, transport = getattr(connection, "cycle", None), getattr(connection, "transport", None)
                answered = cycle is None or cycle.response_complete
                if answered and transport is not None and transport.get_write_buffer_size() == 0:
                    transport.abort()
            await asyncio.sleep(HANG_UP_S)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Not uvicorn's way, which ends the process by the signal before anything is closed."""
        yield


async def _serve(plane: ControlPlane, listener: socket.socket) -> None:
    settings = plane.settings
    port = int(listener.getsockname()[1])
    url = settings.url(port)
    observer, planner = Observer(plane), Planner(plane)
    certificate = Certificate(plane)
    key, chain = certificate.files
    config = uvicorn.Config(
        create_app(Services(plane, observer, planner, url)),
        http=Protocol,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        ssl_keyfile=str(key),
        ssl_certfile=str(chain),
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    config.load()
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        certificate.contexts.append(config.ssl)
    server = Server(config, settings.url_file, _description(plane, url))
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, _end, server)
    controllers = asyncio.create_task(Controllers(plane, observer, planner, certificate.renew).run())
    controllers.add_done_callback(lambda _task: _end(server))
    watchdog = asyncio.create_task(stay_alive())
    log.info("serving the fleet %s at %s", plane.fleet, url)
    try:
        await server.serve([listener])
    finally:
        settings.url_file.unlink(missing_ok=True)
        watchdog.cancel()
        controllers.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await controllers
        ignore_signals()


def _end(server: uvicorn.Server) -> None:
    """Stop in order; when told once more, at once."""
    server.force_exit = server.should_exit
    server.should_exit = True


def _description(plane: ControlPlane, url: str) -> bytes:
    settings = plane.settings
    found = {
        "url": url,
        "fleet": plane.fleet,
        "pid": os.getpid(),
        "version": __version__,
        "ca_file": str(settings.ca_file),
        "admin_token_file": str(settings.admin_token_file),
    }
    return msgspec.json.format(msgspec.json.encode(found), indent=2)


def _listen(plane: ControlPlane) -> socket.socket:
    """The listening socket: on the port asked for, else on that of the last run, else on a free one."""
    settings = plane.settings
    held = int(plane.database.setting(_port_key(plane)) or 0)
    listener = _bound(settings.host, settings.port or held, may_change=settings.port == 0)
    port = int(listener.getsockname()[1])
    if port != held:
        plane.database.set_setting(_port_key(plane), str(port))
    return listener


def _port_key(plane: ControlPlane) -> str:
    """Replicas share the database, and each has a port of its own."""
    return f"port:{socket.gethostname()}:{plane.settings.data_dir}" if plane.database.is_shared else "port"


def _bound(host: str, port: int, *, may_change: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if may_change and port:
            log.warning("port %d of the last run is taken; a free one is used", port)
            return _bound(host, 0, may_change=False)
        raise Conflict(f"cannot listen on {host}:{port}: {error.strerror}", hint="Choose another --port.") from error
    return listener
