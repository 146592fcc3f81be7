"""HTTP/1.1 by hand: bytes that no client library would send, and answers as they come.

One exchange at a time on a connection that is kept as long as the other side keeps it, as a proxy would: whoever sends
garbage sees whether the next, honest request on the same connection is still answered rightly.
"""

import contextlib
import json
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Reply:
    """One answer. ``closed``: the other side ended the connection after it."""

    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The text of an error, in whichever shape the path's callers read."""
        error = self.json["error"]
        return str(error["message"] if isinstance(error, dict) else error)


class Closed(Exception):
    """The other side closed without a whole answer. ``got`` is what came."""

    def __init__(self, got: bytes) -> None:
        super().__init__(f"closed after {got[:200]!r}")
        self.got = got


class Connection:
    """A connection that is made anew when the other side has closed it."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._sock: socket.socket | None = None
        self._left = b""
        self.made = 0

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Send; what the other side no longer reads is not an error here."""
        if self._sock is None:
            self._sock, self._left = self._connect(), b""
            self._sock.settimeout(TIMEOUT_S)
            self.made += 1
        with contextlib.suppress(ConnectionError):
            self._sock.sendall(data)

    def receive(self, *, head_only: bool = False) -> Reply:
        """The next answer that is no 1xx. Raises :class:`Closed`; TimeoutError when none comes."""
        while True:
            head = self._until(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            version, status, *_ = lines[0].split(" ", 2)
            headers: dict[str, str] = {}
            for line in filter(None, lines[1:]):
                name, _, value = line.partition(":")
                known = headers.get(name.lower())
                headers[name.lower()] = value.strip() if known is None else f"{known}, {value.strip()}"
            if int(status) >= 200 or int(status) == 101:
                break
        body = b"" if head_only or status in {"204", "304", "101"} else self._body(headers)
        closed = headers.get("connection", "").lower() == "close" or version == "HTTP/1.0"
        if closed:
            self.close()
        return Reply(int(status), headers, body, closed)

    def ask(self, data: bytes, *, head_only: bool = False) -> Reply:
        """Send and receive; once more on a new connection where an idle one had been closed meanwhile."""
        fresh = self._sock is None
        self.send(data)
        try:
            return self.receive(head_only=head_only)
        except (Closed, ConnectionError) as error:
            self.close()
            if fresh or (isinstance(error, Closed) and error.got):
                raise
            self.send(data)
            return self.receive(head_only=head_only)

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
        self._sock = None

    def finish_sending(self) -> None:
        """Half-close: nothing more comes from here."""
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)

    def rest(self) -> bytes:
        """Everything until the other side closes, or :data:`TIMEOUT_S` of silence."""
        got = self._left
        self._left = b""
        with contextlib.suppress(ConnectionError):
            while self._sock is not None and (data := self._sock.recv(65536)):
                got += data
        self.close()
        return got

    def _until(self, mark: bytes) -> bytes:
        while (at := self._left.find(mark)) < 0:
            self._more()
        found, self._left = self._left[:at], self._left[at + len(mark) :]
        return found

    def _exactly(self, count: int) -> bytes:
        while len(self._left) < count:
            self._more()
        found, self._left = self._left[:count], self._left[count:]
        return found

    def _more(self) -> None:
        assert self._sock is not None
        data = self._sock.recv(65536)
        if not data:
            got, self._left = self._left, b""
            self.close()
            raise Closed(got)
        self._left += data

    def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return self._exactly(int(headers["content-length"]))
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while size := int(self._until(b"\r\n"), 16):
                body += self._exactly(size)
                self._exactly(2)
            self._until(b"\r\n")
            return body
        return self.rest()


def tcp(host: str, port: int) -> Callable[[], socket.socket]:
    return lambda: socket.create_connection((host, port), timeout=TIMEOUT_S)


def unix(path: Path) -> Callable[[], socket.socket]:
    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(TIMEOUT_S)
        sock.connect(str(path))
        return sock

    return connect


def post(path: str, body: bytes, headers: Iterable[tuple[str, str]] = (), *, method: str = "POST") -> bytes:
    """An honest frame around any body."""
    lines = [f"{method} {path} HTTP/1.1", "host: nearcast.test", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body
