"""Files of a member that are damaged or gone, had again by the node itself.

Decides what may be had from where: all of it hangs on ``node.json`` (the hashes that the join token pinned) and on the
credential, by which the control plane knows the node. A root or an authority is believed only with the pinned hash, as
at the join; a certificate is asked for anew, for a new key where the old one cannot be read. It does not decide what is
damaged: the readers of each file do. Without ``node.json`` a node is no member, and joins.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

from nearcast.agent.identity import (
    Membership,
    authority_sha256,
    check_certificate,
    check_root,
    load_or_make_key,
    read_credential,
    read_identity,
    signing_request,
)
from nearcast.agent.layout import Layout
from nearcast.agent.pull import open_fetch
from nearcast.agent.uplink import ControlUplink
from nearcast.durable import read_if_exists, write_whole
from nearcast.errors import IntegrityError, NearcastError, Unavailable
from nearcast.logs import line
from nearcast.registry.mirror import limited
from nearcast.resources.plan import server_name

ROOT_LIMIT_BYTES: Final = 512_000
HINT: Final = "restore the file from a backup; or revoke this node, remove its data directory, and join again"

Connect = Callable[[str, str | None, str | None], ControlUplink]
"""(URL, authority or None, credential or None) -> a connection."""

log = logging.getLogger(__name__)


async def mend(layout: Layout, member: Membership, connect: Connect) -> None:
    """Make whole what of the identity and the roots of trust is damaged or gone; nothing is touched else.

    Raises:
        Unavailable: something is damaged, and the control plane cannot be asked: call again.
        IntegrityError: something is damaged, and there is nobody to ask, or what came is not what was pinned.
        Unauthenticated, Forbidden: the control plane does not know this node any more.
    """
    if not _is_pinned(layout.authority, member):
        await _told(layout.authority, member, partial(_authority, layout, member, connect))
    for path, pinned, prefix in (
        (layout.releases_root, member.releases_root_sha256, "releases"),
        (layout.plans_root, member.plans_root_sha256, f"plans/{member.site}"),
    ):
        if hashlib.sha256(read_if_exists(path) or b"").hexdigest() != pinned:
            await _told(path, member, partial(asyncio.to_thread, _root, layout, member, path, pinned, prefix))
    try:
        await asyncio.to_thread(read_identity, layout, member)
    except IntegrityError as error:
        log.warning(line("identity is damaged", message=error.message))
        await _told(layout.certificate, member, partial(_certificate, layout, member, connect))


def _is_pinned(file: Path, member: Membership) -> bool:
    try:
        return authority_sha256((read_if_exists(file) or b"").decode()) == member.ca_sha256
    except (IntegrityError, UnicodeDecodeError):
        return False


async def _told(file: Path, member: Membership, work: Callable[[], Awaitable[None]]) -> None:
    """Do ``work``, whose failures are told with the file that they are about."""
    if not member.control:
        raise IntegrityError(f"{file} is damaged or gone, and there is no control plane to ask", hint=HINT)
    try:
        await work()
    except Unavailable as error:
        raise Unavailable(f"{file} is damaged or gone, and cannot be had again now: {error.message}") from error
    except NearcastError as error:
        raise type(error)(f"{file} is damaged or gone, and cannot be had again: {error.message}", hint=HINT) from error
    log.warning(line("had again what was damaged", file=file))


async def _authority(layout: Layout, member: Membership, connect: Connect) -> None:
    uplink = connect(member.control, None, None)
    try:
        pem = (await uplink.trust()).ca_pem
    finally:
        await uplink.close()
    if authority_sha256(pem) != member.ca_sha256:
        raise IntegrityError(f"{member.control} presents another authority than this node has joined", hint=HINT)
    await asyncio.to_thread(write_whole, layout.authority, pem.encode())


def _root(layout: Layout, member: Membership, path: Path, pinned: str, prefix: str) -> None:
    name = f"{prefix}/metadata/1.root.json"
    with open_fetch(layout, member.repository).get(name) as response:
        if response.status != 200:
            raise Unavailable(f"{name} was answered {response.status}")
        data = limited(response, ROOT_LIMIT_BYTES, name)
    check_root(data, pinned, prefix)
    write_whole(path, data)


async def _certificate(layout: Layout, member: Membership, connect: Connect) -> None:
    try:
        key = load_or_make_key(layout)
    except IntegrityError:
        layout.key.unlink()
        key = load_or_make_key(layout)
    authority = layout.authority.read_text()
    uplink = connect(member.control, authority, read_credential(layout) or None)
    try:
        pem = await uplink.renew(signing_request(key, f"{member.site}/{member.node}"))
    finally:
        await uplink.close()
    check_certificate(pem, authority, key, member.spiffe_id, server_name(member.fleet, member.site))
    await asyncio.to_thread(write_whole, layout.certificate, pem.encode())
