"""``releaser init`` and ``rotate``: the keys that sign releases, and the root of trust that names them.

The keys are made where these commands run and stay there; the control plane gets the root and never a key. What a
change of keys consists of is decided in :mod:`nearcast.registry.rotation`. Here: where keys lie, and that a rotation
that was cut short at any moment is finished by the next one, with the same new keys.
"""

import base64
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from nearcast.cli.connect import connected
from nearcast.cli.fleet import LocalPaths
from nearcast.cli.options import Format, Output, application, command
from nearcast.cli.roots import ROOT_FILE, held_root, newest_after
from nearcast.cli.screen import note, show_document
from nearcast.cli.session import Session
from nearcast.client import ControlClient
from nearcast.durable import read_if_exists, write_whole
from nearcast.errors import Conflict, InvalidInput, NotFound, Unavailable
from nearcast.registry.keys import load_or_create_signer, load_signer
from nearcast.registry.release_list import new_releases_root, new_targets, online_key_of
from nearcast.registry.rotation import Keys, resigned_list, rotated_root
from nearcast.registry.trust import version_of

COMMANDS: Final = {"releaser": application(help="Keys of those who release models.", no_args_is_help=True)}


ROOT_KEY: Final = "root.pem"
RELEASER_KEY: Final = "releaser.pem"
NEXT: Final = "next"
RETIRED: Final = "retired"
ATTEMPTS: Final = 5

Folder = Annotated[
    Path | None,
    typer.Option("--keys", help="Where the keys lie, mode 0600; by default releaser/ of the data directory."),
]


@COMMANDS["releaser"].callback()
def _group() -> None:
    """Keeps the group a group."""


@command(COMMANDS["releaser"], "init", examples=("releaser init", "releaser init --keys /media/vault/nearcast"))
def init(
    session: Session,
    keys: Folder = None,
) -> None:
    """Make the keys that sign releases, and give the control plane the root that names them. Once per fleet.

    No node can join before, since its join token carries the root's hash. `nearcast up` does this by itself.
    """
    folder = keys if keys is not None else LocalPaths(session.data_dir).releaser
    with connected(session) as client:
        begun = begin_releases(client, folder)
    if begun:
        note(f"releases are signed by the keys in {folder}; keep root.pem offline, and a copy of both")
    else:
        note("the fleet has a root of trust for its releases already; nothing was changed")


def begin_releases(client: ControlClient, folder: Path) -> bool:
    """Make the releaser's keys in ``folder``, and begin the releases repository with a root that names them.

    Safe to repeat after a cut. Gives whether there was none before.

    Raises:
        Unavailable: the control plane is not ready for it.
    """
    trust = client.trust()
    if trust.releases_root is not None:
        return False
    if trust.plans_root is None:
        raise Unavailable("the control plane has no root for plans yet", hint="try again in a moment")
    root_signer = load_or_create_signer(folder / ROOT_KEY)
    releaser = load_or_create_signer(folder / RELEASER_KEY)
    now = datetime.now(UTC)
    root_file = folder / ROOT_FILE
    root = read_if_exists(root_file)
    if root is None:
        root = new_releases_root(
            root_signers=[root_signer],
            releaser_keys=[releaser.public_key],
            online_key=online_key_of(base64.b64decode(trust.plans_root)),
            now=now,
        )
        write_whole(root_file, root)
    client.start_releases(root, new_targets(releaser, now=now))
    return True


@command(
    COMMANDS["releaser"],
    "rotate",
    examples=("releaser rotate", "releaser rotate --root --keys /media/vault/nearcast", "releaser rotate --lost ID"),
)
def rotate(
    session: Session,
    keys: Folder = None,
    root: Annotated[bool, typer.Option("--root", help="Replace both keys: the releaser's and the root's.")] = False,
    lost: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The releaser's key is gone: its id in the root (releases.root.json)."),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Replace the key that signs releases; what the old one signs from then on is refused. Needs the root's key.

    Sites follow by themselves and go on serving. Old keys are kept in retired/ of the folder: destroy them once nothing
    needs them. A rotation that was cut short is finished by saying it again.
    """
    folder = keys if keys is not None else LocalPaths(session.data_dir).releaser
    with connected(session) as client:
        version = rotate_keys(client, folder, with_root=root, lost=lost)
    if output is not Format.TABLE:
        show_document(
            {
                "root_version": version,
                "releaser_key_id": load_signer(folder / RELEASER_KEY).public_key.keyid,
                "root_key_id": load_signer(folder / ROOT_KEY).public_key.keyid,
                "releaser_key": str(folder / RELEASER_KEY),
                "retired": str(folder / RETIRED),
            },
            output,
        )
        return
    note(f"version {version} of the root is in force; its releaser's key is {folder / RELEASER_KEY}")
    note(f"other releasers need nothing new; the old keys are in {folder / RETIRED}")


def rotate_keys(client: ControlClient, folder: Path, *, with_root: bool, lost: str | None) -> int:
    """Replace the releaser's key in ``folder``, and the root's where ``with_root``; the new root's version.

    Args:
        client: of the control plane.
        folder: with the keys.
        with_root: whether the root's key is replaced, too.
        lost: id of the releaser's key where it is gone, else None.

    Raises:
        Conflict: others published all the time.
        InvalidInput: the folder holds no root, or its keys are not those of the root.
        IntegrityError: its root is broken, or not of this fleet.
        NotFound: a key is not there.
    """
    root_file, prepared = folder / ROOT_FILE, folder / NEXT
    known = held_root(root_file)
    if known is None:
        raise InvalidInput(f"there is no {root_file}", hint="rotate where `nearcast releaser init` (or `up`) ran")
    published = client.releases_roots()
    root = newest_after(known, root_file, published)
    made = read_if_exists(prepared / ROOT_FILE)
    in_force = made is not None and made == root
    if in_force and not (prepared / RELEASER_KEY).exists():  # cut short at the very end
        _take_over(folder, prepared, root)
        return version_of(root)
    before = published[version_of(root) - 2] if in_force else root
    keys = _keys(folder, prepared, with_root=with_root and made is None, lost=lost)
    if made is None or version_of(made) <= version_of(before):  # none, or somebody else changed keys meanwhile
        made = rotated_root(before, keys, now=datetime.now(UTC))
        write_whole(prepared / ROOT_FILE, made)
    for _ in range(ATTEMPTS):
        targets = client.releases_targets()
        try:
            client.change_release_keys(made, resigned_list(targets.data, (before, made), keys, now=datetime.now(UTC)))
        except Conflict:
            continue
        _take_over(folder, prepared, made)
        return version_of(made)
    raise Conflict(
        f"the keys were not changed: others published {ATTEMPTS} times meanwhile", hint="say it again; nothing is lost"
    )


def _keys(folder: Path, prepared: Path, *, with_root: bool, lost: str | None) -> Keys:
    """The keys in force, and the new ones: those of a rotation that was cut short, or made now."""
    root = load_signer(folder / ROOT_KEY)
    try:
        releaser = load_signer(folder / RELEASER_KEY) if lost is None else None
    except NotFound as error:
        raise NotFound(error.message, hint="where it is lost: --lost ID, with the id that the root has") from error
    next_root_key = prepared / ROOT_KEY
    return Keys(
        root=root,
        next_root=load_or_create_signer(next_root_key) if with_root or next_root_key.exists() else root,
        releaser=releaser,
        releaser_id=lost or (releaser.public_key.keyid if releaser else ""),
        next_releaser=load_or_create_signer(prepared / RELEASER_KEY),
    )


def _take_over(folder: Path, prepared: Path, root: bytes) -> None:
    """Put the new keys in the place of the old ones, which are kept. The releaser's comes last: it says that all is
    done."""
    write_whole(folder / ROOT_FILE, root)
    for name in (ROOT_KEY, RELEASER_KEY):
        if not (prepared / name).exists():
            continue
        old = read_if_exists(folder / name)
        if old is not None:
            (folder / RETIRED).mkdir(mode=0o700, exist_ok=True)
            write_whole(folder / RETIRED / f"{version_of(root) - 1}.{name}", old, mode=0o600)
        (prepared / name).replace(folder / name)
    shutil.rmtree(prepared)  # the root, and what a kill while keys were written may have left
