"""A real engine process, and ways to talk to its sockets: raw bytes, httpx, a TCP port for clients that want one."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec

from nearcast.resources import wire
from nearcast.resources.release import ReleaseManifest


@dataclass
class Engine:
    """A running engine and its run directory."""

    process: subprocess.Popen[bytes]
    run_dir: Path
    log: Path

    def client(self, name: str) -> httpx.Client:
        """A client of the socket ``name`` in the run directory."""
        transport = httpx.HTTPTransport(uds=str(self.run_dir / name))
        return httpx.Client(transport=transport, base_url="http://engine", timeout=60)

    def socket_of(self, manifest: ReleaseManifest) -> Path:
        """Path of a model's socket."""
        return self.run_dir / wire.model_socket(manifest.model, manifest.version)

    def model(self, manifest: ReleaseManifest) -> httpx.Client:
        """A client of a model's socket."""
        return self.client(wire.model_socket(manifest.model, manifest.version))

    def load(self, directory: Path, manifest: ReleaseManifest, **more: object) -> httpx.Response:
        """Order a model."""
        order = {"directory": str(directory), "manifest": msgspec.to_builtins(manifest), **more}
        with self.client(wire.ENGINE_ADMIN) as client:
            return client.put(wire.admin_model_path(manifest.model, manifest.version), json=order)

    def unload(self, manifest: ReleaseManifest, drain_s: float = 5) -> httpx.Response:
        """Give a model up."""
        path = wire.admin_model_path(manifest.model, manifest.version)
        with self.client(wire.ENGINE_ADMIN) as client:
            return client.delete(path, params={"drain_s": drain_s})

    def raw(self, manifest: ReleaseManifest, data: bytes) -> bytes:
        """Send ``data`` to a model's socket, and read until the engine closes or falls silent for a second."""
        with self.connect(manifest) as sock:
            sock.sendall(data)
            return drain(sock)

    def connect(self, manifest: ReleaseManifest) -> socket.socket:
        """A connection to a model's socket."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(10)
        sock.connect(str(self.socket_of(manifest)))
        return sock

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def drain(sock: socket.socket, silence_s: float = 1.0) -> bytes:
    """What comes until the other side closes, or is silent for ``silence_s``."""
    sock.settimeout(silence_s)
    got = b""
    with contextlib.suppress(TimeoutError):
        while data := sock.recv(65536):
            got += data
    return got


@contextlib.contextmanager
def running_engine(*extra: str, run_dir: Path | None = None) -> Iterator[Engine]:
    """An engine in a short directory of its own, ready for orders; stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="nc-") as short:
        where = run_dir or Path(short)
        log = where / "engine.log"
        command = [sys.executable, "-m", "nearcast.engine", "--run-dir", str(where), "--threads", "1", *extra]
        with log.open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=dict(os.environ))
        try:
            wait_for(where / wire.ENGINE_ADMIN, process, log)
            yield Engine(process, where, log)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def wait_for(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until a connection to ``path`` succeeds."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError(f"the engine ended with {process.returncode}: {log.read_text()}")
        with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError):
            sock.connect(str(path))
            return
        time.sleep(0.02)
    raise AssertionError(f"no engine at {path} within 30 s: {log.read_text()}")


@contextlib.contextmanager
def on_tcp(path: Path) -> Iterator[int]:
    """A TCP port on loopback that leads to the Unix socket at ``path``, for clients that speak only TCP."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []
    open_sockets: list[socket.socket] = [listener]

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def start(call: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=call, args=arguments)
        threads.append(thread)
        thread.start()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.socket(socket.AF_UNIX)
                open_sockets.extend((near, far))
                far.connect(str(path))
                start(pump, near, far)
                start(pump, far, near)

    start(accept)
    try:
        yield listener.getsockname()[1]
    finally:
        for sock in open_sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)
        for sock in open_sockets:
            sock.close()
