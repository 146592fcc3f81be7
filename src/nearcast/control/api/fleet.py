"""Routes of the whole: health, version, trust, the fleet at a glance, and why a request goes where it goes."""

import base64
from typing import Any

import msgspec
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from nearcast import __version__
from nearcast.control.api.failures import failures
from nearcast.control.api.services import AdminOf, ServicesOf

router = APIRouter(tags=["fleet"])


class Health(BaseModel):
    """Whether it lives."""

    status: str = "ok"


class VersionAnswer(BaseModel):
    """What runs here."""

    version: str


class Trust(BaseModel):
    """What nodes pin. Believe it against the hashes in a join token, or over a connection that is trusted already."""

    fleet: str
    ca_pem: str
    releases_root: str | None = Field(description="base64; null before the releases were begun")
    plans_root: str = Field(description="base64")


class ControlView(BaseModel):
    """The control plane itself."""

    url: str
    version: str


class SiteView(BaseModel):
    """One site."""

    name: str
    country: str
    tier: str
    gateway_url: str | None = Field(description="where clients ask; null before a node has reported")
    ready: bool = Field(description="a node is connected and its gateway runs a plan's routes")
    nodes: list[dict[str, Any]]
    models: list[dict[str, Any]]
    conditions: list[dict[str, Any]]


class DeploymentView(BaseModel):
    """One deployment."""

    name: str
    model: str
    version: str
    ready: bool = Field(description="served as it is written, by every connected site of its placement")
    conditions: list[dict[str, Any]]


class FleetView(BaseModel):
    """The fleet at a glance."""

    fleet: str
    control: ControlView
    sites: list[SiteView]
    deployments: list[DeploymentView]


@router.get("/healthz", summary="Whether the process lives", response_model=Health)
async def healthz() -> Health:
    """Needs no credential."""
    return Health()


@router.get("/readyz", summary="Whether it can take changes", response_model=Health, responses=failures(503))
def readyz(services: ServicesOf) -> Health:
    """Needs no credential. Asks the database."""
    services.plane.database.ping()
    return Health()


@router.get("/version", summary="What runs here", response_model=VersionAnswer)
async def version() -> VersionAnswer:
    """Needs no credential."""
    return VersionAnswer(version=__version__)


@router.get("/v1/trust", summary="Authority and trust roots", response_model=Trust, responses=failures(503))
def trust(services: ServicesOf) -> Trust:
    """Needs no credential: none of it is secret."""
    plane = services.plane
    root = plane.releases.root()
    return Trust(
        fleet=plane.fleet,
        ca_pem=plane.authority.pem,
        releases_root=None if root is None else base64.b64encode(root).decode(),
        plans_root=base64.b64encode(plane.plans_root).decode(),
    )


@router.get("/v1/status", summary="The fleet at a glance", response_model=FleetView, responses=failures(401, 403, 503))
def status(services: ServicesOf, _admin: AdminOf) -> dict[str, Any]:
    """Sites with their nodes, models and conditions, and deployments with theirs."""
    return services.observer.fleet(services.url)


@router.get(
    "/v1/route/explain",
    summary="Why requests go where they go",
    responses=failures(
        400,
        401,
        403,
        404,
        503,
        others={
            200: {"content": {"application/json": {}}, "description": "places with their costs, shares and refusals"}
        },
    ),
    response_class=Response,
)
def explain(services: ServicesOf, _admin: AdminOf, model: str, site: str, node: str | None = None) -> Response:
    """Every place with each term of its cost in milliseconds, the share it gets, and the rule that refused it.

    A site of several nodes has several gateways: ``node`` names one; else it is the first that reports.
    """
    found = services.observer.explain(model, site, node)
    return Response(msgspec.json.encode(found), media_type="application/json")
