"""``releaser init``: the keys that sign releases, and the root of trust that names them.

The keys are made where this command runs and stay there; the control plane gets the root and never a key.
"""

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from nearcast.cli.connect import connected
from nearcast.cli.fleet import LocalPaths
from nearcast.cli.options import application, command
from nearcast.cli.screen import note
from nearcast.cli.session import Session
from nearcast.client import ControlClient
from nearcast.durable import read_if_exists, write_whole
from nearcast.errors import Unavailable
from nearcast.registry.keys import load_or_create_signer
from nearcast.registry.releases import new_releases_root, new_targets, online_key_of

COMMANDS: Final = {"releaser": application(help="Begin the releases of a fleet.", no_args_is_help=True)}


@COMMANDS["releaser"].callback()
def _group() -> None:
    """Keeps the group a group."""


@command(COMMANDS["releaser"], "init", examples=("releaser init", "releaser init --keys /media/vault/nearcast"))
def init(
    session: Session,
    keys: Annotated[
        Path | None,
        typer.Option(help="Where the keys shall lie, mode 0600; by default releaser/ of the data directory."),
    ] = None,
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
    root_signer = load_or_create_signer(folder / "root.pem")
    releaser = load_or_create_signer(folder / "releaser.pem")
    now = datetime.now(UTC)
    root_file = folder / "releases.root.json"
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
