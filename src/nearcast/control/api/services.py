"""What routes need from the application, and who calls them: the admin, or a node."""

import hmac
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from nearcast.control.observer import Observer
from nearcast.control.plane import ControlPlane
from nearcast.control.planner import Planner
from nearcast.control.tokens import hashed
from nearcast.errors import Forbidden, Unauthenticated


@dataclass(frozen=True, slots=True)
class Services:
    """The parts behind the API. ``url`` is where the control plane is reached."""

    plane: ControlPlane
    observer: Observer
    planner: Planner
    url: str


@dataclass(frozen=True, slots=True)
class Admin:
    """Whoever holds the admin token: may do everything."""


@dataclass(frozen=True, slots=True)
class NodeCaller:
    """A node, by its credential."""

    site: str
    node: str


Caller = Admin | NodeCaller
_bearer = HTTPBearer(auto_error=False, description="the admin token (`nca_…`), or the credential of a node (`ncn_…`)")


async def services(request: Request) -> Services:
    """The parts behind the API."""
    found = request.app.state.services
    if not isinstance(found, Services):
        raise TypeError("the application was made without services")
    return found


ServicesOf = Annotated[Services, Depends(services)]


async def caller(
    services: ServicesOf, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    """Who calls.

    Raises:
        Unauthenticated: no credential, or one that opens nothing.
    """
    if credentials is None:
        raise Unauthenticated("expected a bearer token, got none", hint="Authorization: Bearer TOKEN")
    plane = services.plane
    if hmac.compare_digest(hashed(credentials.credentials), plane.admin_sha256):
        if plane.database.is_shared:  # an operator sees what another replica took a moment ago
            await run_in_threadpool(plane.follower.catch_up)
        return Admin()
    member = plane.members.of_credential(credentials.credentials)
    if member is None and plane.database.is_shared:
        member = await run_in_threadpool(plane.members.look_up, credentials.credentials)
    if member is None:
        raise Unauthenticated("the bearer token is not known here")
    if plane.nodes.seen(*member):
        plane.bell.ring()
    return NodeCaller(*member)


async def admin(who: Annotated[Caller, Depends(caller)]) -> Admin:
    """The admin. Raises :class:`Forbidden` for a node."""
    if not isinstance(who, Admin):
        raise Forbidden("this needs the admin token; a node's credential does not allow it")
    return who


async def node(who: Annotated[Caller, Depends(caller)]) -> NodeCaller:
    """The node that calls. Raises :class:`Forbidden` for the admin, who is none."""
    if not isinstance(who, NodeCaller):
        raise Forbidden("this is for nodes, with the credential that joining gave them")
    return who


CallerOf = Annotated[Caller, Depends(caller)]
AdminOf = Annotated[Admin, Depends(admin)]
NodeOf = Annotated[NodeCaller, Depends(node)]
