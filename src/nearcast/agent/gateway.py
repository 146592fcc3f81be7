"""The gateway as its keeper sees it: what `router` asks of an Envoy, and nothing of how it runs."""

from collections.abc import Mapping
from typing import Protocol

from nearcast.gateway.render import GatewayFiles, Identity


class GatewayPort(Protocol):
    """An Envoy; `gateway.apply.Gateway` is one. Methods block, except `pid`."""

    def start_or_adopt(self, files: GatewayFiles) -> str:
        """Have an Envoy run with ``files``: "adopted" or "started"."""

    def pid(self) -> int | None:
        """Its process id."""

    def install_identity(self, identity: Identity) -> bool:
        """Write what it shows to peers; whether that changed."""

    def apply(self, files: GatewayFiles) -> str:
        """Put ``files`` in force; the version that it confirmed."""

    def retire(self, files: GatewayFiles) -> None:
        """Take out clusters that ``files`` does not need."""

    def stats(self, pattern: str = "") -> Mapping[str, str]:
        """Its statistics; raises Unavailable when it does not answer."""

    def kill(self) -> None:
        """End it at once."""

    def tend(self) -> None:
        """Housekeeping."""

    def turn_away(self, files: GatewayFiles, linger_s: float) -> None:
        """Tell peers to go elsewhere, for a while before the end."""

    def drain_and_stop(self, *, timeout_s: float = 10.0) -> None:
        """Let requests finish, then end it."""
