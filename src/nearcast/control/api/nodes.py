"""Routes of nodes: join tokens, joining, certificates, status reports, and showing a node the door."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from nearcast.control import joining
from nearcast.control.api.bodies import Body, body, described, wire
from nearcast.control.api.failures import failures
from nearcast.control.api.services import AdminOf, NodeOf, ServicesOf
from nearcast.control.conditions import node_phase
from nearcast.control.store import timestamp
from nearcast.errors import Conflict, Forbidden, InvalidInput, Unauthenticated, Unavailable
from nearcast.resources.join import JoinRequest
from nearcast.resources.names import is_address
from nearcast.resources.status import NodeStatus

router = APIRouter(tags=["nodes"])


class TokenRequest(Body):
    """How long a join token shall open."""

    ttl_s: float = Field(default=joining.DEFAULT_TTL_S, strict=False, description="seconds, at most 30 days")


class TokenAnswer(BaseModel):
    """A join token. It can be seen only now."""

    token: str
    id: str = Field(description="names the token, to revoke it")
    site: str
    expires_at: str = Field(description="RFC 3339, UTC")


class JoinView(BaseModel):
    """Membership. The roots must match the hashes in the token; base64."""

    certificate_pem: str
    ca_pem: str
    credential: str
    fleet: str
    site: str
    node: str
    repository_url: str
    releases_root: str
    plans_root: str


class CertificateRequest(Body):
    """A PKCS #10 request for the node's next certificate (ECDSA P-256)."""

    csr_pem: str


class CertificateAnswer(BaseModel):
    """The node's next certificate."""

    certificate_pem: str
    ca_pem: str
    expires_at: str = Field(description="RFC 3339, UTC")


class StatusAnswer(BaseModel):
    """A hint: the newest plan of the site, to be fetched if it is newer than the one in force; 0 before the first."""

    plan_version: int


class DrainRequest(Body):
    """How a node shall be drained."""

    force: bool = Field(default=False, description="even where it is the only place of a model")


class NodeAnswer(BaseModel):
    """A node, and how far a drain has come: `phase` is Ready, NotReady, Draining or Drained."""

    model_config = ConfigDict(extra="allow")

    site: str
    name: str
    phase: str


class NodeList(BaseModel):
    """Nodes with their last status."""

    items: list[dict[str, Any]]


@router.post(
    "/v1/sites/{site}/join-tokens",
    summary="Make a join token for a node of a site",
    status_code=201,
    response_model=TokenAnswer,
    responses=failures(400, 401, 403, 404, 409, 503),
    openapi_extra=described(TokenRequest),
)
def new_token(
    services: ServicesOf, _admin: AdminOf, site: str, request: Annotated[TokenRequest, Depends(body(TokenRequest))]
) -> TokenAnswer:
    """It admits one node, and carries the hashes of all that the node will trust. Shown once, kept as a hash."""
    token, text = joining.new_join_token(services.plane, site, request.ttl_s)
    return TokenAnswer(token=text, id=token.id, site=site, expires_at=token.expires_at)


@router.delete(
    "/v1/sites/{site}/join-tokens/{token_id}",
    summary="Make a join token useless",
    status_code=204,
    responses=failures(401, 403, 404, 503),
)
def revoke_token(services: ServicesOf, _admin: AdminOf, site: str, token_id: str) -> None:
    """A node that joined with it stays."""
    services.plane.members.revoke_token(site, token_id)


@router.post(
    "/v1/join",
    summary="Become a node",
    response_model=JoinView,
    responses=failures(400, 401, 404, 409, 503),
    openapi_extra=described(JoinRequest),
)
async def join(
    services: ServicesOf, http: Request, request: Annotated[JoinRequest, Depends(wire(JoinRequest))]
) -> JoinView:
    """The token is the credential. The same node with the same key may ask again when the answer was lost."""
    address = http.client.host if http.client else ""
    now_s = services.plane.clock().timestamp()
    wait_s = services.plane.throttle.wait_s(address, now_s)
    if wait_s:
        raise Unavailable("too many failed attempts to join from this address", retry_after_s=wait_s)
    settings = services.plane.settings
    url = services.url if settings.advertise else str(http.base_url).rstrip("/")
    try:
        found = await run_in_threadpool(joining.join, services.plane, request, url)
    except Unauthenticated:
        services.plane.throttle.failed(address, now_s)
        raise
    return JoinView.model_validate(msgspec.to_builtins(found))


@router.post(
    "/v1/nodes/self/certificate",
    summary="Renew the calling node's certificate",
    response_model=CertificateAnswer,
    responses=failures(400, 401, 403, 503),
    openapi_extra=described(CertificateRequest),
)
def renew(
    services: ServicesOf, who: NodeOf, request: Annotated[CertificateRequest, Depends(body(CertificateRequest))]
) -> CertificateAnswer:
    """For the same key or a new one."""
    issued = joining.renew_certificate(services.plane, who.site, who.node, request.csr_pem)
    return CertificateAnswer(
        certificate_pem=issued.pem, ca_pem=services.plane.authority.pem, expires_at=timestamp(issued.expires_at)
    )


@router.put(
    "/v1/nodes/self/status",
    summary="Report the calling node's status",
    response_model=StatusAnswer,
    responses=failures(400, 401, 403, 413, 503),
    openapi_extra=described(NodeStatus),
)
def report(services: ServicesOf, who: NodeOf, status: Annotated[NodeStatus, Depends(wire(NodeStatus))]) -> StatusAnswer:
    """The whole status, each time. Kept in memory; written down when something lasting changed."""
    if (status.site, status.node) != (who.site, who.node):
        raise Forbidden(f"node {who.site}/{who.node} cannot report for {status.site[:80]}/{status.node[:80]}")
    peer_address = status.gateway.peer_address
    if peer_address and not is_address(peer_address):  # it would stand in the plans of other sites
        raise InvalidInput(f"expected gateway.peer_address to be IP:PORT, got {peer_address[:80]!r}")
    if services.plane.nodes.report(status):
        services.plane.bell.ring()
    published = services.plane.publisher.of(who.site)
    return StatusAnswer(plan_version=published.plan.version if published else 0)


@router.get(
    "/v1/nodes", summary="Every node with its last status", response_model=NodeList, responses=failures(401, 403, 503)
)
def read_nodes(services: ServicesOf, _admin: AdminOf) -> NodeList:
    """Revoked nodes are left out."""
    return NodeList(items=[services.observer.node(node) for node in services.plane.nodes.views()])


@router.put(
    "/v1/nodes/{site}/{node}/drain",
    summary="Drain a node",
    response_model=NodeAnswer,
    responses=failures(400, 401, 403, 404, 409, 503),
    openapi_extra=described(DrainRequest),
)
def drain(
    services: ServicesOf,
    _admin: AdminOf,
    site: str,
    node: str,
    request: Annotated[DrainRequest, Depends(body(DrainRequest))],
) -> NodeAnswer:
    """It serves no model until the drain is taken back; its gateway goes on answering, through other places.

    Refused where it is the only place of a model, unless `force` says that requests for it may fail.
    """
    alone = services.observer.served_only_by(site, node)
    if alone and not request.force:
        raise Conflict(
            f"node {site}/{node} is the only place that serves {', '.join(alone)}",
            hint="Place them elsewhere first, or drain it with --force: requests for them get 503 then.",
        )
    services.plane.members.drain(site, node, "admin")
    services.plane.bell.ring()
    return NodeAnswer.model_validate(services.observer.node(services.observer.node_view(site, node)))


@router.delete(
    "/v1/nodes/{site}/{node}/drain",
    summary="Let a node serve again",
    response_model=NodeAnswer,
    responses=failures(401, 403, 404, 503),
)
def undrain(services: ServicesOf, _admin: AdminOf, site: str, node: str) -> NodeAnswer:
    """Fine for a node that serves."""
    services.plane.members.undrain(site, node, "admin")
    services.plane.bell.ring()
    return NodeAnswer.model_validate(services.observer.node(services.observer.node_view(site, node)))


@router.delete(
    "/v1/nodes/{site}/{node}",
    summary="Revoke a node",
    status_code=204,
    responses=failures(400, 401, 403, 404, 409, 503),
)
def revoke(services: ServicesOf, _admin: AdminOf, site: str, node: str, drained: bool = False) -> None:
    """Its credential closes at once; every plan denies its certificate until that has ended.

    With `drained`, only a node that nobody asks any more: one that is drained, or that does not report.
    """
    if drained:
        view = services.observer.node_view(site, node)
        if view.connected and node_phase(view) != "Drained":
            raise Conflict(
                f"node {site}/{node} still serves ({node_phase(view).lower()})",
                hint=f"nearcast drain {site}/{node}; or `nearcast revoke` to shut it out at once",
            )
    services.plane.members.revoke(site, node)
    services.plane.nodes.forget(site, node)
    services.plane.bell.ring()
