"""What the control plane is told at start, and where its files lie. Read once, passed down; nothing is decided here."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

DATABASE_VARIABLE: Final = "NEARCAST_DATABASE"
"""A database's URL holds a password, and command lines are for everybody to read."""
REPOSITORY_VARIABLE: Final = "NEARCAST_REPOSITORY"


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one control plane.

    Attributes:
        data_dir: holds everything it owns; made with mode 0700.
        host: address to listen on.
        port: port to listen on; 0 takes the port of the last run, or a free one at the first.
        advertise: host names or addresses under which nodes and people reach it. They stand in its certificate; the
            first one stands in its URL.
        publish_interval_s: changes that come within this time are published together.
        plan_interval_s: between two passes of the fleet's planner.
        placement_hold_s: how long a site keeps a model that the planner placed there and no longer needs there.
        demand_fall_s: in which demand that ended is forgotten (by 63 %, and so on).
        node_timeout_s: a node that was silent for longer counts as disconnected.
        certificate_lifetime_s: how long a node's certificate is honoured. It is renewed when a third of that is over:
            the rest is the grace for which a site may be cut off, and the longest time for which a site that is cut
            off itself honours a node that was revoked meanwhile.
        fleet: trust domain, a DNS name; None keeps that of the first start, or makes one up.
        repository: URL of the object store of releases, plans and blobs; None is a folder in ``data_dir``.
        database: ``postgresql://…``; None is SQLite in ``data_dir``. It may hold a password.
        secrets: folder of keys and admin token, for replicas to share; None is in ``data_dir``.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    advertise: tuple[str, ...] = ()
    publish_interval_s: float = 2.0
    plan_interval_s: float = 5.0
    placement_hold_s: float = 300.0
    demand_fall_s: float = 60.0
    node_timeout_s: float = 150.0
    certificate_lifetime_s: float = 30 * 86_400.0
    fleet: str | None = None
    repository: str | None = None
    database: str | None = field(default=None, repr=False)
    secrets: Path | None = None

    @property
    def repository_url(self) -> str:
        """Where releases, plans and blobs lie."""
        return self.repository or str(self.data_dir / "repository")

    @property
    def database_url(self) -> str:
        """Where the state lies."""
        return self.database or f"sqlite:///{self.data_dir / 'control.db'}"

    @property
    def admin_token_file(self) -> Path:
        """The admin token, 0600."""
        return (self.secrets or self.data_dir) / "admin.token"

    @property
    def metrics_token_file(self) -> Path:
        """The token that opens ``/metrics`` and nothing else, 0600."""
        return (self.secrets or self.data_dir) / "metrics.token"

    @property
    def ca_file(self) -> Path:
        """The authority's certificate, for clients on this machine."""
        return self.data_dir / "ca.pem"

    @property
    def keys_dir(self) -> Path:
        """Private keys of the fleet, 0700."""
        return self.secrets or self.data_dir / "keys"

    @property
    def own_keys_dir(self) -> Path:
        """The key of this process's own certificate, 0700."""
        return self.data_dir / "keys"

    @property
    def url_file(self) -> Path:
        """``control.json``: there while the control plane serves; its URL, process id and files."""
        return self.data_dir / "control.json"

    @property
    def lock_file(self) -> Path:
        """Held by the one process that serves this directory."""
        return self.data_dir / "control.lock"

    def host_names(self) -> tuple[str, ...]:
        """Every name that the server's certificate must carry, each once."""
        listen = () if self.host in {"0.0.0.0", "::"} else (self.host,)
        return tuple(dict.fromkeys([*self.advertise, *listen, "localhost", "127.0.0.1", "::1"]))

    def url(self, port: int) -> str:
        """The URL under which it is reached when it listens on ``port``."""
        wildcard = self.host in {"0.0.0.0", "::"}
        name = self.advertise[0] if self.advertise else "localhost" if wildcard else self.host
        return f"https://[{name}]:{port}" if ":" in name else f"https://{name}:{port}"
