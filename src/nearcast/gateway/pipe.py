"""HTTP/1.1 over a Unix socket, blocking: how a node's own processes are told and asked things."""

import http.client
import socket
from pathlib import Path


class PipeConnection(http.client.HTTPConnection):
    """A connection to the process behind ``pipe``.

    Args:
        pipe: path of its socket.
        timeout_s: longest wait for any part of an answer.
        connect_timeout_s: longest wait for it to take the connection; ``timeout_s`` if None.
    """

    def __init__(self, pipe: Path, timeout_s: float, *, connect_timeout_s: float | None = None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._pipe = pipe
        self._connect_timeout_s = timeout_s if connect_timeout_s is None else min(timeout_s, connect_timeout_s)

    def connect(self) -> None:
        """Connect; called by the first request."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._connect_timeout_s)
        self.sock.connect(str(self._pipe))
        self.sock.settimeout(self.timeout)
