"""How a node becomes a member: a token is made, used, and the node's certificate renewed."""

import base64
import hashlib

from nearcast.control.authority import Issued, requested_key_sha256
from nearcast.control.plane import ControlPlane
from nearcast.control.tokens import NODE_PREFIX, new_secret
from nearcast.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from nearcast.resources.join import JoinAnswer, JoinRequest, JoinToken, decode_token, encode_token
from nearcast.resources.names import SITE_RULE, is_site_name

DEFAULT_TTL_S = 24 * 3600.0
MAX_TTL_S = 30 * 24 * 3600.0


def new_join_token(plane: ControlPlane, site: str, ttl_s: float = DEFAULT_TTL_S) -> tuple[JoinToken, str]:
    """A token that lets one node join ``site``, and its text; the text can be seen only now.

    Raises:
        NotFound: there is no such site.
        Conflict: the releases have no root yet, so there is nothing to pin: it would be trust on first use.
    """
    if not 1 <= ttl_s <= MAX_TTL_S:
        raise InvalidInput(f"expected ttl_s from 1 to {MAX_TTL_S:g} seconds, got {ttl_s:g}")
    if plane.store.snapshot().get("Site", site) is None:
        raise NotFound(f"there is no Site/{site}", hint="Apply the site first.")
    root = plane.releases.root()
    if root is None:
        raise Conflict(
            "the releases have no root of trust yet, and a join token must pin it",
            hint="Begin them first: POST /v1/releases/root; `nearcast releaser init` does it, `nearcast up` too.",
        )
    made = plane.members.new_token(site, ttl_s)
    token = JoinToken(
        id=made.id,
        secret=made.secret,
        site=site,
        fleet=plane.fleet,
        ca_sha256=plane.authority.sha256,
        releases_root_sha256=hashlib.sha256(root).hexdigest(),
        plans_root_sha256=hashlib.sha256(plane.plans_root).hexdigest(),
        expires_at=made.expires_at,
    )
    return token, encode_token(token)


def join(plane: ControlPlane, request: JoinRequest, url: str) -> JoinAnswer:
    """Make the node of ``request`` a member of its token's site.

    Args:
        url: where the control plane is reached, without a slash at the end.

    Raises:
        InvalidInput: the token, the name or the signing request cannot be read.
        Unauthenticated: the token does not admit this node.
        Conflict: the name is taken.
    """
    token = decode_token(request.token)
    if not is_site_name(request.node):
        raise InvalidInput(f"expected the name of a node ({SITE_RULE}), got {request.node[:80]!r}")
    if token.fleet != plane.fleet or token.ca_sha256 != plane.authority.sha256:
        raise Unauthenticated("the join token is for another fleet", hint="Check the address of the control plane.")
    key_sha256 = requested_key_sha256(request.csr_pem)
    site = plane.members.check_token(token.id, token.secret, request.node, key_sha256)
    if site != token.site:
        raise Unauthenticated("the join token was changed: it names another site than it was made for")
    root = plane.releases.root()
    if root is None:
        raise Conflict("the releases have no root of trust yet")
    issued = plane.authority.issue_node(request.csr_pem, site, request.node, plane.clock())
    credential = new_secret(NODE_PREFIX)
    plane.members.join(token.id, token.secret, request.node, issued, credential)
    plane.bell.ring()
    return JoinAnswer(
        certificate_pem=issued.pem,
        ca_pem=plane.authority.pem,
        credential=credential,
        fleet=plane.fleet,
        site=site,
        node=request.node,
        repository_url=f"{url}/repository/",
        releases_root=base64.b64encode(root).decode(),
        plans_root=base64.b64encode(plane.plans_root).decode(),
    )


def renew_certificate(plane: ControlPlane, site: str, node: str, csr_pem: str) -> Issued:
    """A new certificate for a member, for the same key or a new one. Raises :class:`InvalidInput`, `Forbidden`."""
    issued = plane.authority.issue_node(csr_pem, site, node, plane.clock())
    plane.members.renew(site, node, issued)
    return issued
