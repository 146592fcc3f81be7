"""``GET /metrics``: for scrapers, with a token that opens nothing else. And the count of every call of the API."""

from time import perf_counter
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nearcast.control.api.failures import failures
from nearcast.control.api.services import ServicesOf
from nearcast.control.metrics import families
from nearcast.control.recorder import DURATION, REQUESTS, Recorder
from nearcast.control.tokens import matches
from nearcast.errors import Forbidden, Unauthenticated
from nearcast.metrics import OTHER, document

METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"})
router = APIRouter(tags=["fleet"])
_bearer = HTTPBearer(auto_error=False, description="the metrics token, or the admin token")


async def scraper(
    services: ServicesOf, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> None:
    """Raises :class:`Unauthenticated` for whoever has neither token, :class:`Forbidden` for a node."""
    plane = services.plane
    given = "" if credentials is None else credentials.credentials
    if not any(matches(given, stored) for stored in (plane.metrics_sha256, plane.admin_sha256)):
        if plane.members.of_credential(given) is not None:
            raise Forbidden("this needs the metrics token; a node's credential does not allow it")
        raise Unauthenticated("expected the metrics token", hint=f"it is in {plane.settings.metrics_token_file.name}")


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses=failures(401, 403, 503, others={200: {"content": {"text/plain": {}}, "description": "text"}}),
    dependencies=[Depends(scraper)],
)
def metrics(services: ServicesOf, request: Request) -> Response:
    """Of this process and of the fleet. Needs the token in ``metrics.token`` of the data directory, or the admin's."""
    found = families(services.plane.recorder, services.observer.look())
    content_type, body = document(found, request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type})


class Counted:
    """ASGI middleware that counts and times calls, by the template of their route."""

    def __init__(self, app: ASGIApp, recorder: Recorder) -> None:
        self._app = app
        self._recorder = recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s, status = perf_counter(), 500

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, told)
        finally:
            found = scope.get("route")
            route = found.path if isinstance(found, Route) else OTHER
            method = scope["method"] if scope["method"] in METHODS else OTHER
            self._recorder.count(REQUESTS, (route, method, f"{status // 100}xx"))
            self._recorder.time(DURATION, perf_counter() - began_s, (route,))
