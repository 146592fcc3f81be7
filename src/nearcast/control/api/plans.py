"""Routes of the planner: what it decided and why, the records, and the fleet at this moment as planning sees it."""

from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field

from nearcast.control.api.failures import failures
from nearcast.control.api.services import AdminOf, ServicesOf
from nearcast.planning.fleet.record import encode_record

router = APIRouter(tags=["plans"])

MAX_ID: Final = 2**53
DecisionId = Annotated[int, Path(ge=1, le=MAX_ID, description="number of a decision")]
_JSON: Final[dict[str, dict[str, str]]] = {"application/json": {}}


class DecisionView(BaseModel):
    """One decision."""

    id: int
    at: str = Field(description="RFC 3339, UTC")
    reason: list[str] = Field(description="what changed, the first few")
    size_bytes: int = Field(description="of its record, as stored")


class DecisionList(BaseModel):
    """Decisions, newest first."""

    items: list[DecisionView]


@router.get(
    "/v1/decisions",
    summary="What the planner decided, newest first",
    response_model=DecisionList,
    responses=failures(400, 401, 403, 503),
)
def decisions(services: ServicesOf, _admin: AdminOf, limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> DecisionList:
    """A decision is made when other sites or shares are asked for, and now and then where nothing changed."""
    found = services.plane.decisions.headings(limit)
    return DecisionList(
        items=[
            DecisionView(id=item.id, at=item.at, reason=list(item.reason), size_bytes=item.size_bytes) for item in found
        ]
    )


@router.get(
    "/v1/decisions/explain",
    summary="Why a deployment is planned as it is",
    responses=failures(
        400,
        401,
        403,
        404,
        503,
        others={200: {"content": _JSON, "description": "places, their part, and why not others"}},
    ),
    response_class=Response,
)
def explain(
    services: ServicesOf,
    _admin: AdminOf,
    name: str,
    site: str | None = None,
    decision: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None,
) -> Response:
    """By the newest decision, or an earlier one that is still kept. `name` is a deployment or a model; with `site`,
    also where requests go that enter there."""
    found = services.observer.explain_plan(name, site, decision)
    return Response(msgspec.json.encode(found), media_type="application/json")


@router.get(
    "/v1/decisions/{number}",
    summary="The record of one decision",
    responses=failures(
        400, 401, 403, 404, 503, others={200: {"content": _JSON, "description": "everything that repeats the decision"}}
    ),
    response_class=Response,
)
def decision(services: ServicesOf, _admin: AdminOf, number: DecisionId) -> Response:
    """Observations, the plan before, the plan, and what of it was published. `nearcast plan replay` repeats it."""
    return Response(encode_record(services.plane.decisions.record(number)), media_type="application/json")


@router.get(
    "/v1/snapshot",
    summary="The fleet at this moment, as planning sees it",
    responses=failures(401, 403, 503, others={200: {"content": _JSON, "description": "a snapshot for the twin"}}),
    response_class=Response,
)
def snapshot(services: ServicesOf, _admin: AdminOf) -> Response:
    """Resources, nodes with their profiles, demand, and measured round trips. No keys, tokens or addresses."""
    return Response(msgspec.json.encode(services.planner.snapshot()), media_type="application/json")
