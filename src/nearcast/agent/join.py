"""Becoming a node: a join token, a key made here, and nothing trusted on first use.

The order makes it safe to be cut at any point and run again:

1. the key is made, or found;
2. ``/v1/trust`` is asked without verification, and its authority is held against the hash in the token;
3. the token is sent over a connection that only this authority can answer, with a signing request;
4. roots, certificate and names of the answer are checked; every file is written whole;
5. ``node.json`` comes last and says that the node has joined.

A second run before step 5 uses the same key, which the control plane knows as the same node.
"""

import base64
import binascii
import logging
from collections.abc import Callable

import msgspec

from nearcast.agent.identity import (
    SECRET,
    Membership,
    authority_sha256,
    check_certificate,
    check_root,
    load_or_make_key,
    read_membership,
    signing_request,
)
from nearcast.agent.layout import Layout
from nearcast.agent.settings import Settings, default_node_name
from nearcast.agent.uplink import ControlUplink
from nearcast.durable import write_whole
from nearcast.errors import IntegrityError, InvalidInput
from nearcast.logs import line
from nearcast.resources.join import JoinAnswer, JoinRequest, JoinToken, decode_token
from nearcast.resources.plan import node_id, server_name

Connect = Callable[[str, str | None], ControlUplink]
"""(URL, authority or None) -> a connection."""

log = logging.getLogger(__name__)


async def ensure_joined(settings: Settings, layout: Layout, connect: Connect | None = None) -> Membership:
    """The membership of this node; joins first where there is none.

    Args:
        settings: its token is used only by a node that has not joined.
        layout: of the node; its directories exist.
        connect: how the control plane is reached.

    Raises:
        InvalidInput: there is no token or no control plane, or the node belongs to another site or fleet.
        Unavailable: the control plane cannot be reached: call again.
        Unauthenticated, Conflict: the token does not admit this node.
        IntegrityError: what came is not what the token pins.
    """
    token = decode_token(settings.join) if settings.join else None
    try:
        found = read_membership(layout)
    except IntegrityError as error:
        if token is None:
            raise
        log.warning(line("joins again", message=error.message))
        found = None
    if found is not None:
        _check_same(found, token, settings)
        return _rebased(found, settings, layout)
    if token is None or settings.control is None:
        raise InvalidInput(
            f"{layout.data_dir} holds no identity: this node has not joined a fleet",
            hint="give --join TOKEN and --control URL; `nearcast join-token SITE` makes a token",
        )
    return await _join(settings, settings.control, token, layout, connect or _connect)


async def _join(settings: Settings, control: str, token: JoinToken, layout: Layout, connect: Connect) -> Membership:
    node = settings.node or default_node_name()
    key = load_or_make_key(layout)
    authority = await _pinned_authority(control, token, connect)
    request = JoinRequest(token=settings.join or "", node=node, csr_pem=signing_request(key, f"{token.site}/{node}"))
    uplink = connect(control, authority)
    try:
        answer = await uplink.join(request)
    finally:
        await uplink.close()
    if (answer.fleet, answer.site, answer.node) != (token.fleet, token.site, node):
        raise IntegrityError(
            f"expected to become {token.fleet}/{token.site}/{node}, became {answer.fleet}/{answer.site}/{answer.node}"
        )
    releases_root, plans_root = _roots(answer, token)
    spiffe_id = node_id(token.fleet, token.site, node)
    check_certificate(answer.certificate_pem, authority, key, spiffe_id, server_name(token.fleet, token.site))
    write_whole(layout.releases_root, releases_root)
    write_whole(layout.plans_root, plans_root)
    write_whole(layout.authority, authority.encode())
    write_whole(layout.certificate, answer.certificate_pem.encode())
    write_whole(layout.credential, answer.credential.encode(), mode=SECRET)
    membership = Membership(
        fleet=token.fleet,
        site=token.site,
        node=node,
        control=_controls(control),
        repository=_repositories(control) if "," in control else answer.repository_url,
        ca_sha256=token.ca_sha256,
        releases_root_sha256=token.releases_root_sha256,
        plans_root_sha256=token.plans_root_sha256,
    )
    _write(layout, membership)
    log.info(line("joined", fleet=token.fleet, site=token.site, node=node, control=control))
    return membership


async def _pinned_authority(control: str, token: JoinToken, connect: Connect) -> str:
    """The authority's certificate, fetched from anybody and believed only because the token names its hash."""
    uplink = connect(control, None)
    try:
        pem = (await uplink.trust()).ca_pem
    finally:
        await uplink.close()
    found = authority_sha256(pem)
    if found != token.ca_sha256:
        raise IntegrityError(
            f"{control} presents another authority than the join token pins: expected {token.ca_sha256}, got {found}",
            hint="check the URL; if it is right, somebody stands between you and the control plane",
        )
    return pem


def _roots(answer: JoinAnswer, token: JoinToken) -> tuple[bytes, bytes]:
    try:
        releases = base64.b64decode(answer.releases_root, validate=True)
        plans = base64.b64decode(answer.plans_root, validate=True)
    except binascii.Error as error:
        raise IntegrityError("expected the roots of trust in base64") from error
    check_root(releases, token.releases_root_sha256, "releases")
    check_root(plans, token.plans_root_sha256, "plans")
    return releases, plans


def _check_same(found: Membership, token: JoinToken | None, settings: Settings) -> None:
    """A node that has joined ignores its token, but not one that is for another site: that is a mistake."""
    if token is not None and (token.fleet, token.site) != (found.fleet, found.site):
        raise InvalidInput(
            f"this data directory belongs to {found.fleet}/{found.site}, "
            f"the join token is for {token.fleet}/{token.site}",
            hint="give another --data-dir",
        )
    if settings.node is not None and settings.node != found.node:
        raise InvalidInput(f"this data directory belongs to node {found.node}, not {settings.node}")


def _rebased(found: Membership, settings: Settings, layout: Layout) -> Membership:
    """``found`` with the control plane's new address, where settings name one; a repository below it moves along."""
    control = _controls(settings.control or found.control)
    if control == found.control:
        return found
    repository = found.repository
    if repository == _repositories(found.control):
        repository = _repositories(control)
    moved = msgspec.structs.replace(found, control=control, repository=repository)
    _write(layout, moved)
    return moved


def _controls(text: str) -> str:
    """URLs of a control plane's replicas in one form: commas between them, no slash at the end."""
    return ",".join(url.strip().rstrip("/") for url in text.split(",") if url.strip())


def _repositories(controls: str) -> str:
    """Where the replicas serve the repository."""
    return ",".join(f"{url}/repository/" for url in _controls(controls).split(","))


def _write(layout: Layout, membership: Membership) -> None:
    write_whole(layout.node, msgspec.json.format(msgspec.json.encode(membership), indent=2))


def _connect(url: str, authority_pem: str | None) -> ControlUplink:
    return ControlUplink(url, authority_pem=authority_pem)
