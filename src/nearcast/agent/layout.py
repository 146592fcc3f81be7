"""Where a node keeps its things: one data directory that lasts, one run directory for sockets that need not.

It decides names and permissions. It does not decide what the files hold, and it opens none of them.

Invariants:
    * Everything a node owns lies under its data directory, except sockets: ``sun_path`` is 108 bytes, and a data
      directory may be longer. The run directory's name is short and follows from the data directory alone, so that an
      agent that was killed finds the sockets of its own Envoy and engine again.
    * Both directories are for their owner only (0700). A run directory that belongs to somebody else is refused: on a
      shared machine ``/tmp`` is everybody's.
"""

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nearcast.errors import InvalidInput

LONGEST_RUN_DIR: Final = 80
"""Longest run directory in bytes: a slash and a socket name of 22 bytes still fit, see `wire.SUN_PATH_MAX`."""

PRIVATE: Final = 0o700


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one node.

    Attributes:
        data_dir: absolute; holds everything that must outlive a restart.
        run_dir: absolute and short; holds sockets only.
    """

    data_dir: Path
    run_dir: Path

    @property
    def identity(self) -> Path:
        """Key, certificate, authority, credential and name of this node."""
        return self.data_dir / "identity"

    @property
    def key(self) -> Path:
        """Private key of the node, PEM, 0600; made here and never sent anywhere."""
        return self.identity / "key.pem"

    @property
    def certificate(self) -> Path:
        """The node's certificate, PEM."""
        return self.identity / "cert.pem"

    @property
    def authority(self) -> Path:
        """The fleet's certificate authority, PEM; pinned by the join token."""
        return self.identity / "ca.pem"

    @property
    def node(self) -> Path:
        """Who this node is: fleet, site, node, control URL. Its presence says that joining is complete."""
        return self.identity / "node.json"

    @property
    def credential(self) -> Path:
        """What the node shows to the control plane, 0600."""
        return self.identity / "credential"

    @property
    def trust(self) -> Path:
        """TUF roots and metadata."""
        return self.data_dir / "trust"

    @property
    def releases_root(self) -> Path:
        """The first root of the releases repository, as pinned at join."""
        return self.trust / "releases.root.json"

    @property
    def plans_root(self) -> Path:
        """The first root of this site's plan repository, as pinned at join."""
        return self.trust / "plans.root.json"

    @property
    def plan(self) -> Path:
        """What the agent remembers of its plan (last good versions)."""
        return self.data_dir / "plan"

    @property
    def models(self) -> Path:
        """Verified releases, one directory per digest."""
        return self.data_dir / "models"

    @property
    def envoy(self) -> Path:
        """Generated configuration of the gateway."""
        return self.data_dir / "envoy"

    @property
    def logs(self) -> Path:
        """``agent.log``, ``gateway.log``, ``access.log``, ``engine.log``."""
        return self.data_dir / "logs"

    @property
    def agent_log(self) -> Path:
        """Log of this agent."""
        return self.logs / "agent.log"

    @property
    def gateway_log(self) -> Path:
        """Log of this node's Envoy."""
        return self.logs / "gateway.log"

    @property
    def engine_log(self) -> Path:
        """Log of this node's engine."""
        return self.logs / "engine.log"

    @property
    def access_log(self) -> Path:
        """The gateway's lines about requests."""
        return self.logs / "access.log"

    @property
    def processes(self) -> Path:
        """``run.json``: process ids and start times of the gateway and the engine."""
        return self.data_dir / "run.json"

    @property
    def ports(self) -> Path:
        """``ports.json``: the listen addresses chosen at the first start."""
        return self.data_dir / "ports.json"

    @property
    def status(self) -> Path:
        """``status.json``: the last status of this node, readable without a control plane."""
        return self.data_dir / "status.json"

    @property
    def documents(self) -> list[Path]:
        """Every JSON document of the node that nearcast alone reads; TUF's metadata and Envoy's files say their own."""
        noted = [self.plan / "last_good.json", self.plan / "routes.json", self.envoy / "process.json"]
        return [self.node, self.processes, self.ports, self.status, *noted]

    @property
    def lock(self) -> Path:
        """Locked (flock) by the agent that runs on this directory."""
        return self.data_dir / "agent.lock"

    def make(self) -> None:
        """Make every directory of the layout, for the owner only; what is there stays.

        Raises:
            InvalidInput: the run directory, or its parent, belongs to another user or is a link.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
        for path in (self.identity, self.trust, self.plan, self.models, self.envoy, self.logs):
            path.mkdir(exist_ok=True, mode=PRIVATE)
        _own(self.run_dir.parent)
        _own(self.run_dir)

    def leave(self) -> None:
        """Remove the run directory, once nobody listens in it any more; the next start makes it anew."""
        shutil.rmtree(self.run_dir, ignore_errors=True)


def layout_of(data_dir: Path, environment: Mapping[str, str] | None = None) -> Layout:
    """The layout of ``data_dir``; nothing is made.

    Args:
        data_dir: may be relative and may not exist yet; links in it are followed, so that two names of one directory
            give one run directory.
        environment: where ``XDG_RUNTIME_DIR`` is looked up; the process's own by default.
    """
    whole = data_dir.expanduser().resolve()
    return Layout(data_dir=whole, run_dir=run_dir_of(whole, environment))


def run_dir_of(data_dir: Path, environment: Mapping[str, str] | None = None) -> Path:
    """The directory for the sockets of ``data_dir``: ``$XDG_RUNTIME_DIR/nearcast/<8 hex>``, else under ``/tmp``.

    The runtime directory is used only where it is absolute, there, and short enough for sockets.
    """
    environment = os.environ if environment is None else environment
    name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:8]
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if runtime and Path(runtime).is_absolute() and Path(runtime).is_dir():
        candidate = Path(runtime) / "nearcast" / name
        if len(os.fsencode(candidate)) <= LONGEST_RUN_DIR:
            return candidate
    return _short_temporary() / f"nearcast-{os.getuid()}" / name


def _short_temporary() -> Path:
    """``/tmp`` where there is one: ``$TMPDIR`` may be long (it is on macOS, and under test runners)."""
    shared = Path("/tmp")  # noqa: S108 - the directories in it are checked by _own
    return shared if shared.is_dir() else Path(tempfile.gettempdir())


def _own(path: Path) -> None:
    """Make ``path`` with 0700, or check that it is a directory of ours and close it to others."""
    path.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise InvalidInput(
            f"run directory {path} must be a directory of user {os.getuid()}, but it is a link "
            f"or belongs to user {found.st_uid}",
            hint="remove it, or set XDG_RUNTIME_DIR to a directory of your own",
        )
    if stat.S_IMODE(found.st_mode) != PRIVATE:
        path.chmod(PRIVATE)


def forget_identity(layout: Layout) -> None:
    """Make a data directory one of no node, with its models still there; ``node.json`` goes first, as it came last."""
    layout.node.unlink(missing_ok=True)
    for file in layout.identity.glob("*"):
        file.unlink(missing_ok=True)
