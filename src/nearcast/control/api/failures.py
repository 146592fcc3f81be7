"""Every failure in one shape, ``{"error": {"code", "message", "hint", "details"}}``, by the table of `errors`."""

import logging
import math
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from nearcast.errors import NearcastError, Unauthenticated, Unavailable, meaning_of
from nearcast.resources.problems import ManifestError

MAX_DETAILS: Final = 50
"""Reasons that one answer lists: a manifest of a megabyte may have tens of thousands."""

log = logging.getLogger(__name__)


class Detail(BaseModel):
    """One of several reasons."""

    source: str = Field(description="name of the manifest")
    line: int = Field(description="line, from 1; 0 where there was no text")
    column: int
    field: str = Field(description="path of the field, such as spec.placement.sites[0]")
    message: str
    hint: str


class Error(BaseModel):
    """What went wrong."""

    code: str = Field(description="stable name of the kind of failure", examples=["invalid_input"])
    message: str = Field(description="what was expected, and what came")
    hint: str = Field(description="a way out, or the empty string")
    details: list[Detail] | None = Field(default=None, description="every reason, where there are several")


class Failure(BaseModel):
    """Body of every answer that is no success."""

    error: Error


_MEANINGS: Final = {
    400: "The request is wrong and must be changed (`invalid_input`).",
    401: "No valid credential (`unauthenticated`).",
    403: "The credential does not allow this (`forbidden`).",
    404: "There is no such thing (`not_found`).",
    409: "It changed meanwhile, or something stands against it (`conflict`).",
    413: "The body is too large (`invalid_input`).",
    422: "Bytes are not what somebody vouched for (`integrity`).",
    503: "It may work later; see `retry-after` (`unavailable`).",
}


Answers = dict[int | str, dict[str, Any]]


def failures(*statuses: int, others: Answers | None = None) -> Answers:
    """The answers of a route that are no success, for OpenAPI, beside ``others`` that are."""
    return {**(others or {}), **{status: {"model": Failure, "description": _MEANINGS[status]} for status in statuses}}


def answer(code: str, status: int, message: str, hint: str = "", **headers: str) -> JSONResponse:
    """A failure as an answer."""
    body = {"error": {"code": code, "message": message, "hint": hint}}
    return JSONResponse(body, status, headers={name.replace("_", "-"): value for name, value in headers.items()})


def install(app: FastAPI) -> None:
    """Let ``app`` answer every failure in this shape."""
    app.add_exception_handler(NearcastError, _ours)
    app.add_exception_handler(RequestValidationError, _parameters)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unexpected)


async def _ours(_request: Request, error: Exception) -> Response:
    if not isinstance(error, NearcastError):
        raise error
    status = meaning_of(error).http_status
    body: dict[str, Any] = {"code": error.code, "message": error.message, "hint": error.hint}
    headers = {}
    if isinstance(error, ManifestError):
        body["details"] = [
            {
                "source": problem.source,
                "line": problem.line,
                "column": problem.column,
                "field": problem.field,
                "message": problem.message,
                "hint": problem.hint,
            }
            for problem in error.problems[:MAX_DETAILS]
        ]
    if isinstance(error, Unavailable):
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    if status >= 500:
        log.warning("answered %d: %s", status, error.message)
    return JSONResponse({"error": body}, status, headers=headers)


async def _parameters(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    reasons = [f"{'.'.join(map(str, item['loc'][1:]))}: {item['msg']}" for item in error.errors()]
    return answer("invalid_input", 400, "; ".join(reasons))


async def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    codes = {401: "unauthenticated", 403: "forbidden", 404: "not_found", 405: "invalid_input", 413: "invalid_input"}
    message = (
        error.detail if error.status_code not in {404, 405} else f"there is no {request.method} {request.url.path}"
    )
    hint = "GET /openapi.json lists what there is." if error.status_code in {404, 405} else ""
    response = answer(codes.get(error.status_code, "invalid_input"), error.status_code, message, hint)
    response.headers.update(error.headers or {})
    return response


async def _gone(_request: Request, _error: Exception) -> Response:
    """The caller left before its body was here: nobody reads this, and it is no defect of ours."""
    return answer("invalid_input", 400, "expected a body, the connection ended before all of it was here")


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return answer("bug", 500, "the control plane failed; its log says more")
