"""The machine: room on the disk, limits on files and watches, and who owns what lies in the data directory."""

import os
import resource
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nearcast.cli.doctor.finding import Finding, Ground, Verdict

LITTLE_BYTES: Final = 2 << 30
LEAST_BYTES: Final = 200 << 20
LITTLE_INODES: Final = 0.05
FILES: Final = 16_384
"""Connections of a gateway; each is a file."""
WATCHES_PER_GATEWAY: Final = 9
"""inotify instances of one Envoy."""
LIMITS_ADVICE: Final = "raise LimitNOFILE of the unit, or `ulimit -n` before the start"


def disk(ground: Ground) -> Iterator[Finding]:
    """Room for models, logs and metadata."""
    there = _existing(ground.data_dir)
    usage = shutil.disk_usage(there)
    found = f"{usage.free / 1e9:.1f} GB of {usage.total / 1e9:.1f} GB are free at {there}"
    advice = "make room, or lower --model-bytes: files are not written on a full disk"
    verdict: Verdict = "problem" if usage.free < LEAST_BYTES else "warning" if usage.free < LITTLE_BYTES else "ok"
    yield Finding("disk", verdict, found, "" if verdict == "ok" else advice)
    files = os.statvfs(there)
    if files.f_files and files.f_favail / files.f_files < LITTLE_INODES:
        yield Finding("inodes", "problem", f"{files.f_favail} of {files.f_files} are free", "remove small files")
    elif files.f_files:
        yield Finding("inodes", "ok", f"{files.f_favail / files.f_files:.0%} are free")


def open_files(_ground: Ground) -> Iterator[Finding]:
    """How many files a process may open: a gateway takes the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        yield Finding("open files", "warning", f"the hard limit is {hard}, a gateway wants {FILES}", LIMITS_ADVICE)
    else:
        yield Finding("open files", "ok", "unlimited" if hard == resource.RLIM_INFINITY else f"up to {hard}")


def inotify(ground: Ground) -> Iterator[Finding]:
    """Envoy watches its files, and ends when the system allows it no more watches."""
    limit_file = ground.proc / "sys" / "fs" / "inotify" / "max_user_instances"
    if sys.platform != "linux" or not limit_file.exists():
        return
    limit, used = int(limit_file.read_text()), _instances(ground.proc)
    missing = sum(not layout.processes.exists() for layout in ground.nodes.values()) or 1
    found = f"{used} of {limit} instances of this user are in use"
    if used + missing * WATCHES_PER_GATEWAY > limit:
        advice = "sysctl fs.inotify.max_user_instances=1024, and keep it in /etc/sysctl.d"
        yield Finding("inotify", "problem", f"{found}; a gateway takes {WATCHES_PER_GATEWAY}", advice)
    else:
        yield Finding("inotify", "ok", found)


def _instances(proc: Path) -> int:
    count = 0
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if entry.stat().st_uid == os.getuid():
                count += sum(str(link.readlink()) == "anon_inode:inotify" for link in (entry / "fd").iterdir())
        except OSError:
            continue  # it ended meanwhile
    return count


def ownership(ground: Ground) -> Iterator[Finding]:
    """The data directory is ours, and closed to others."""
    if not ground.data_dir.exists():
        yield Finding("data directory", "warning", f"there is no {ground.data_dir}", "nearcast up makes one")
        return
    wrong = []
    for path in (ground.data_dir, *(layout.data_dir for layout in ground.nodes.values()), ground.control):
        if path is None:
            continue
        found = path.stat()
        if found.st_uid != os.getuid():
            wrong.append(f"{path} belongs to user {found.st_uid}, this is user {os.getuid()}")
        elif not os.access(path, os.W_OK | os.X_OK):
            wrong.append(f"{path} cannot be written")
    if wrong:
        yield Finding("data directory", "problem", "; ".join(wrong), "chown -R it to the user that runs nearcast")
    else:
        yield Finding("data directory", "ok", str(ground.data_dir))


def secrets(ground: Ground) -> Iterator[Finding]:
    """Keys and tokens are for their owner alone."""
    found = [path for path in secret_files(ground) if path.exists()]
    open_ones = [path for path in found if stat.S_IMODE(path.stat().st_mode) & 0o077]
    for path in open_ones:
        mode = stat.S_IMODE(path.stat().st_mode)
        yield Finding("secrets", "problem", f"mode {mode:o}", f"chmod 600 {path}; others may have read it", str(path))
    if found and not open_ones:
        yield Finding("secrets", "ok", f"{len(found)} keys and tokens, all for their owner alone")


def secret_files(ground: Ground) -> Iterator[Path]:
    """Every file that others must not read."""
    for layout in ground.nodes.values():
        yield from (layout.key, layout.credential, layout.envoy / "sds_identity.json", layout.data_dir / "join.token")
    if ground.control is not None:
        yield from (ground.control / "admin.token", ground.control / "metrics.token")
        yield from sorted((ground.control / "keys").glob("*.key"))
    yield from sorted((ground.data_dir / "releaser").glob("*.key"))


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
