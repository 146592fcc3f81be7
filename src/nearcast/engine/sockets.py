"""Unix sockets that are either answered or absent.

Decides how a socket comes and goes: it appears under its name only once it listens (bound under another name, then
renamed over whatever a dead engine left there), and it is removed only by the engine that made it.
"""

import contextlib
import fcntl
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nearcast.errors import Conflict, InvalidInput
from nearcast.resources import wire

BACKLOG: Final = 4096
LOCK: Final = "engine.lock"

_MODEL_SOCKET = re.compile(r"^m-[0-9a-f]{12}~?$")


@dataclass(frozen=True, slots=True)
class Listening:
    """A listening socket and the file that it is. ``inode`` tells ours from a successor's under the same name."""

    path: Path
    inode: int
    socket: socket.socket


def listen(path: Path, mode: int) -> Listening:
    """Listen at ``path``, replacing what is there.

    Args:
        path: where; short enough for ``sun_path``.
        mode: permission bits, in force before the first client can connect.

    Raises:
        InvalidInput: the path is too long.
        OSError: the directory does not exist or is not ours.
    """
    temporary = path.with_name(path.name + "~")
    if len(os.fsencode(temporary)) > wire.SUN_PATH_MAX:
        raise InvalidInput(f"socket path of {len(os.fsencode(path))} bytes is too long (sun_path): {path}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(str(temporary))
        temporary.chmod(mode)
        sock.listen(BACKLOG)
        inode = temporary.stat().st_ino
        temporary.replace(path)
    except BaseException:
        sock.close()
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    return Listening(path, inode, sock)


def remove(listening: Listening) -> None:
    """Remove the socket's file, unless another process has put its own there. Connections live on."""
    with contextlib.suppress(FileNotFoundError):
        if listening.path.stat().st_ino == listening.inode:
            listening.path.unlink()


def claim(run_dir: Path) -> int:
    """Make this process the engine of ``run_dir``, for as long as it lives, and clear what a dead one left.

    Returns:
        a descriptor that holds the claim; the kernel releases it when the process ends, however it ends.

    Raises:
        Conflict: another engine is alive there.
    """
    descriptor = os.open(run_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise Conflict(f"another engine serves {run_dir}", hint="stop it, or choose another --run-dir") from error
    for entry in run_dir.iterdir():
        if entry.is_socket() and _MODEL_SOCKET.match(entry.name):
            entry.unlink()
    return descriptor
