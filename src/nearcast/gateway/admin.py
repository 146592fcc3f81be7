"""Envoy's admin interface on its Unix socket: statistics, readiness, draining. Blocking, a connection per call."""

import http.client
from pathlib import Path
from urllib.parse import quote

from nearcast.errors import Unavailable
from nearcast.gateway.pipe import PipeConnection


class Admin:
    """The admin interface behind ``pipe``.

    Args:
        pipe: path of the socket.
        timeout_s: bound of each call.
    """

    def __init__(self, pipe: Path, *, timeout_s: float = 2.0) -> None:
        self._pipe = pipe
        self._timeout_s = timeout_s

    def stats(self, pattern: str = "") -> dict[str, str]:
        """Statistics whose names match the regular expression ``pattern``, as text.

        Raises:
            Unavailable: nobody answers.
        """
        text = self._call("GET", f"/stats?filter={quote(pattern, safe='')}" if pattern else "/stats")
        pairs = (line.partition(": ") for line in text.splitlines())
        return {name: value.strip('"') for name, _, value in pairs}

    def prometheus(self, pattern: str) -> str:
        """Statistics whose names match ``pattern``, in Prometheus' text format, labels apart.

        Raises:
            Unavailable: nobody answers.
        """
        return self._call("GET", f"/stats/prometheus?filter={quote(pattern, safe='')}")

    def is_live(self) -> bool:
        """Whether Envoy answers and has finished its initialisation."""
        try:
            return self._call("GET", "/ready").strip() == "LIVE"
        except Unavailable:
            return False

    def drain_listeners(self) -> None:
        """Ask clients to go away with their next answer; requests in flight and new ones are still served.

        Raises:
            Unavailable: nobody answers.
        """
        self._call("POST", "/drain_listeners?graceful")

    def _call(self, method: str, path: str) -> str:
        connection = PipeConnection(self._pipe, self._timeout_s)
        try:
            connection.request(method, path)
            return connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"Envoy's admin interface does not answer at {self._pipe}: {error}") from error
        finally:
            connection.close()
