"""From a session to a control plane that can be called, with words for when nobody answers.

Decides which control plane, which token and which authority a command uses. How calls are made is the client's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import msgspec

from nearcast.cli.fleet import LocalPaths
from nearcast.cli.session import Session
from nearcast.client import ControlClient, Target, Unreachable
from nearcast.documents import read_document
from nearcast.errors import InvalidInput, NotFound


class _Description(msgspec.Struct, frozen=True):
    url: str
    ca_file: str = ""
    admin_token_file: str = ""


def transport_of(target: Target) -> httpx.BaseTransport | None:
    """What carries requests to ``target``; None for the client's own. A seam for tests."""
    return None


@contextmanager
def connected(session: Session) -> Iterator[ControlClient]:
    """A client of the session's control plane.

    Raises:
        NotFound: there is no fleet in the data directory, and no other control plane was named.
        Unreachable: nobody answers; the hint says what to do.
    """
    target = target_of(session)
    with ControlClient(target, transport=transport_of(target)) as client:
        try:
            yield client
        except Unreachable as error:
            # What listens and does not answer is stopped or hung, which `up` would not mend: its own hint says so.
            if session.control is None and not error.hint:
                raise Unreachable(
                    f"no fleet is running in {session.data_dir}: its control plane does not answer at {target.url}",
                    hint=f"start it: {session.command('up', '--detach')}",
                ) from error
            raise


def target_of(session: Session) -> Target:
    """The control plane that the session means: the one named, else the one of the data directory."""
    if session.control is not None:
        if not all(url.strip().startswith(("https://", "http://")) for url in session.control.split(",")):
            raise InvalidInput(
                f"expected --control to be a URL, got {session.control!r}", hint="such as https://control.example:7643"
            )
        return Target(url=session.control, token=session.token or "", ca_pem=_authority(session.ca_file))
    target = local_target(session)
    return replace(
        target,
        token=session.token or target.token,
        ca_pem=_authority(session.ca_file) if session.ca_file else target.ca_pem,
    )


def local_target(session: Session) -> Target:
    """The control plane of the data directory.

    Raises:
        NotFound: there is none.
    """
    paths = LocalPaths(session.data_dir)
    hint = "the control plane writes it: start it again"
    found = read_document(session.data_dir / "control.json", _Description, hint)
    if found is not None:  # the directory of a control plane by itself
        url, folder = found.url, session.data_dir
        token_file = Path(found.admin_token_file or folder / "admin.token")  # with --secrets it lies there
        authority_file = Path(found.ca_file or folder / "ca.pem")
    else:
        url, folder = paths.fleet_or_refuse(session.command("up", "--detach")).control_url, paths.control
        token_file, authority_file = folder / "admin.token", folder / "ca.pem"
    try:
        token = token_file.read_text(encoding="ascii").strip()
        authority = authority_file.read_text(encoding="ascii")
    except FileNotFoundError as error:
        raise NotFound(
            f"the fleet in {session.data_dir} was never started to the end: {error.filename} is missing",
            hint=f"start it: {session.command('up', '--detach')}",
        ) from error
    return Target(url=url, token=token, ca_pem=authority)


def _authority(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"expected --ca-file to be a readable PEM file: {error}") from error
