"""How a release is pushed: describe, upload what is missing, sign the longer list, publish, and again if outrun.

Decides the order and what is done when somebody else pushes at the same time. What a release is, and what is signed,
the registry decides. The signing key never leaves this machine.

Invariant: the list is published only after every blob is there, so that no site hears of bytes that it cannot fetch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from securesystemslib.signer import CryptoSigner

from nearcast.cli.fleet import LocalPaths
from nearcast.cli.progress import transferring
from nearcast.cli.roots import ROOT_FILE, held_root, newest_after
from nearcast.cli.session import Session
from nearcast.client import ControlClient
from nearcast.errors import Conflict, InvalidInput, NotFound
from nearcast.registry.keys import load_signer
from nearcast.registry.release import Described, describe, same_content
from nearcast.registry.release_list import propose
from nearcast.resources.release import ReleaseManifest, encode_release

ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class Push:
    """What shall be released."""

    model: str
    version: str
    path: Path
    task: str | None = None
    entrypoint: str | None = None
    max_tokens: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pushed:
    """What is released now, and whether it was this push that did it."""

    manifest: ReleaseManifest
    created: bool


def push_release(client: ControlClient, session: Session, wanted: Push, key: Path | None = None) -> Pushed:
    """Release ``wanted``; the same content again changes nothing.

    Raises:
        Conflict: the version exists with other content, or others kept publishing faster.
        NotFound: there is no model at the path, no signing key, or no releases repository.
    """
    paths = LocalPaths(session.data_dir)
    signer = _signer(key or paths.releaser / "releaser.pem")
    described = describe(
        wanted.path,
        model=wanted.model,
        version=wanted.version,
        now=datetime.now(UTC),
        task=wanted.task,
        entrypoint=wanted.entrypoint,
        max_tokens=wanted.max_tokens,
        labels=wanted.labels,
    )
    if standing := _standing(client, described.manifest):
        return Pushed(standing, created=False)
    _upload(client, described)
    root = _root(client, paths, own=session.control is None)
    for _ in range(ATTEMPTS):
        targets = client.releases_targets()
        proposed = propose(root, targets.data, described.manifest, signer, now=datetime.now(UTC))
        try:
            client.add_release(proposed, encode_release(described.manifest), expected_version=targets.version)
        except Conflict:
            if standing := _standing(client, described.manifest):
                return Pushed(standing, created=False)
            continue
        return Pushed(described.manifest, created=True)
    raise Conflict(
        f"{wanted.model}@{wanted.version} was not released: others published {ATTEMPTS} times meanwhile",
        hint="push it again; its files are uploaded already",
    )


def _signer(path: Path) -> CryptoSigner:
    try:
        return load_signer(path)
    except NotFound as error:
        raise NotFound(
            f"there is no releaser's key at {path}",
            hint="name it with --key, or push where `nearcast releaser init` (or `nearcast up`) ran",
        ) from error


def _standing(client: ControlClient, manifest: ReleaseManifest) -> ReleaseManifest | None:
    """The release of the same name that is there already, or None.

    Raises:
        Conflict: its content is another.
    """
    for entry in client.releases():
        if (entry.model, entry.version) == (manifest.model, manifest.version):
            standing = entry.manifest
            if same_content(standing, manifest):
                return standing
            raise Conflict(
                f"{entry.model}@{entry.version} is released already, with other content: "
                f"{_difference(standing, manifest)}",
                hint="a release never changes: push under another --version",
            )
    return None


def _difference(standing: ReleaseManifest, manifest: ReleaseManifest) -> str:
    """In a few words, what differs."""
    old = {file.path: file.digest for file in standing.files}
    new = {file.path: file.digest for file in manifest.files}
    files = sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))
    if files:
        return f"files differ: {', '.join(files[:5])}" + (", …" if len(files) > 5 else "")
    fields = [name for name in manifest.__struct_fields__ if getattr(standing, name) != getattr(manifest, name)]
    return f"fields differ: {', '.join(name for name in fields if name != 'created_at')}"


def _upload(client: ControlClient, described: Described) -> None:
    """Send the blobs that the fleet's store does not have; equal files are sent once."""
    with transferring() as progress:
        for digest, file in {file.digest: file for file in described.manifest.files}.items():
            task = progress.add_task(file.path, total=file.size_bytes)
            if client.has_blob(digest):
                progress.update(task, completed=file.size_bytes, description=f"{file.path} (there already)")
                continue
            client.put_blob(digest, described.files[file.path], progress=partial(progress.advance, task))


def _root(client: ControlClient, paths: LocalPaths, *, own: bool) -> bytes:
    """The newest releases root, as it follows from our own copy where this machine made it for this fleet, else from
    the control plane's first one."""
    published = client.releases_roots()
    path = paths.releaser / ROOT_FILE
    held = held_root(path) if own else None
    known = held or next(iter(published), None)
    if known is None:
        raise InvalidInput(
            "this fleet has no releases repository yet", hint="nearcast releaser init makes its first root"
        )
    return newest_after(known, path if held else Path("its first one"), published)
