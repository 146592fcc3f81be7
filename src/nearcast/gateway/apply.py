"""Being written: the shape of `Gateway`, so that the agent can be built against it (see the signatures)."""

from pathlib import Path
from typing import Literal

from nearcast.gateway.render import GatewayFiles, Identity


class Gateway:
    """One node's Envoy. All methods block; call them by ``asyncio.to_thread`` and one at a time (a lock holds them apart).

    Args:
        envoy_dir: directory of the generated files; must be the ``envoy_dir`` of the rendered inputs.
        run_dir: directory of the sockets; must be the ``run_dir`` of the rendered inputs.
        log_file: where Envoy's log goes; bounded by :meth:`tend`.
        concurrency: Envoy's worker threads.
    """

    def __init__(self, envoy_dir: Path, run_dir: Path, log_file: Path, *, concurrency: int = 1) -> None:
        raise NotImplementedError

    def install_identity(self, identity: Identity) -> bool:
        """Write the SDS files (0600), before the first start and at each rotation; True if anything changed."""
        raise NotImplementedError

    def start_or_adopt(self, files: GatewayFiles) -> Literal["started", "adopted"]:
        """A running, accepted Envoy with ``files`` in force: the one that runs already where it can be, else a new one."""
        raise NotImplementedError

    def apply(self, files: GatewayFiles) -> str:
        """Put ``files`` in force (clusters, then routes, then listeners); returns ``files.version``. No-op when equal.

        Raises: Bug or InvalidInput when Envoy refuses them (the last good ones stay), Unavailable when it is not there.
        """
        raise NotImplementedError

    def retire(self, files: GatewayFiles) -> None:
        """Take out clusters that ``files`` does not need, once its predecessors' requests have drained."""
        raise NotImplementedError

    def accepted(self) -> str:
        """Version of the configuration that Envoy confirms to run, or the empty string."""
        raise NotImplementedError

    def is_alive(self) -> bool:
        """Whether the Envoy process is alive."""
        raise NotImplementedError

    def pid(self) -> int | None:
        """Process id of the Envoy that is looked after, or None."""
        raise NotImplementedError

    def stats(self, pattern: str = "") -> dict[str, str]:
        """Envoy's statistics whose names match the regular expression ``pattern``."""
        raise NotImplementedError

    def tend(self) -> None:
        """Keep the log within its bound; call it now and then."""
        raise NotImplementedError

    def drain_and_stop(self, *, timeout_s: float = 10.0) -> None:
        """Let requests finish, bounded, then stop Envoy; no-op when it is not running."""
        raise NotImplementedError

    def kill(self) -> None:
        """Stop Envoy at once."""
        raise NotImplementedError
