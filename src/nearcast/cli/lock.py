"""One ``up`` or ``down`` at a time per data directory, by a lock that the system drops when its holder dies."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from nearcast.cli.fleet import LocalPaths
from nearcast.errors import Conflict


@contextmanager
def exclusively(paths: LocalPaths) -> Iterator[None]:
    """Keep other runs of ``up`` and ``down`` on this data directory away; the directory is made, for its owner only.

    Raises:
        Conflict: one is at work.
    """
    paths.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with paths.lock.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"another `nearcast up` or `down` is at work on {paths.data_dir}", hint="wait for it to end"
            ) from error
        yield
