"""Answers that the gateway gives by itself: discovery and health, and errors in the caller's own shape.

An error is rendered in two halves. The route says what is wrong, as plain text (:func:`refusal`). The listener's
mappers (:func:`mappers`) put that text, and those of Envoy itself, into the shape of the path family, with a stable
code and a retry hint; they follow from the status alone, so that listeners stay as they are when routes change.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import nearcast
from nearcast.gateway.render.document import TYPE_URL, Json, Message
from nearcast.resources import wire
from nearcast.resources.revision import canonical_json

ROUTE: Final = f"{TYPE_URL}envoy.config.route.v3.Route"
RETRY_AFTER_S: Final = 1
_REQUEST_ID: Final = f"%REQ({wire.REQUEST_ID})%"

LIVE_PATHS: Final = ("/v2/health/live", "/livez", "/liveness", "/health/liveliness", "/health/liveness")
READY_PATHS: Final = ("/v2/health/ready", "/readyz", "/readiness", "/health/readiness")
HEALTH_PATHS: Final = ("/health", "/healthz")
MODELS_PATHS: Final = ("/v1/models", "/v1/models/")
SERVER_PATHS: Final = ("/v2", "/v2/")

CODE_BAD_REQUEST: Final = "bad_request"
CODE_TIMEOUT: Final = "timeout"
CODE_PLACE_FAILED: Final = "place_failed"
CODE_NOT_PERMITTED: Final = "caller_not_permitted"
FULL_NO_ENGINE: Final = "no-engine"
"""Value of ``x-nearcast-full``: the engine behind this gateway does not answer."""
FULL_NOT_PERMITTED: Final = "not-permitted"
"""Value of ``x-nearcast-full``: this gateway does not serve the model to the caller's site."""
REPEATED: Final = "x-nearcast-repeated"
"""Put on a request by our Lua, for :data:`PUBLIC_ERRORS` to see: a header of which there must be one came twice."""


@dataclass(frozen=True, slots=True)
class GatewayError:
    """What an answer of the gateway itself is called.

    Attributes:
        status: HTTP status that it is recognised by; with ``or_above`` those above, too.
        code: stable code, in the header ``x-nearcast-error`` and in OpenAI's body.
        kind: OpenAI's ``type``.
        meaning: for the reference.
        with_header: recognised only when the request has this header by then.
        full: value of ``x-nearcast-full`` when nothing else has set it: the caller may try elsewhere.
        text: of the message, with Envoy's format commands; what the route or Envoy says, as a rule.
        no_path: recognised only when the request's target is no path (``OPTIONS *``, ``CONNECT``), or the request broke
            off before it was read: no route of ours saw it, so there is no text either.
        answered: the status that the caller gets instead, or None.
    """

    status: int
    code: str
    kind: str
    meaning: str
    with_header: str | None = None
    or_above: bool = False
    full: str | None = None
    text: str = "%LOCAL_REPLY_BODY%"
    no_path: bool = False
    answered: int | None = None


_INVALID: Final = "invalid_request_error"
_LIMIT: Final = "{LIMIT}"
_TOO_LARGE: Final = GatewayError(
    413,
    wire.CODE_BODY_TOO_LARGE,
    _INVALID,
    "The body is over the limit, 64 MiB by default.",
    text=f"the body may have {_LIMIT} bytes, got more",
)
_CODING: Final = GatewayError(
    501,
    CODE_BAD_REQUEST,
    _INVALID,
    "A transfer-encoding other than `chunked`; Envoy calls it 501, and it is the caller's to change.",
    text="the request was not accepted: expected transfer-encoding chunked, or none, got another",
    no_path=True,
    answered=400,
)
_NOT_ACCEPTED: Final = GatewayError(
    400,
    CODE_BAD_REQUEST,
    _INVALID,
    "The request was not accepted.",
    or_above=True,
    text="the request was not accepted: %RESPONSE_CODE_DETAILS%",  # Envoy's own words are often none at all
)

PUBLIC_ERRORS: Final = (
    GatewayError(
        400,
        wire.CODE_MODEL_REQUIRED,
        _INVALID,
        'The body is not a JSON object with one string "model" at its top level.',
        with_header=wire.ERROR,
    ),
    GatewayError(
        400,
        CODE_BAD_REQUEST,
        _INVALID,
        "A header of which there must be one (`host`, `inference-header-content-length`, `grpc-timeout`) came twice.",
        with_header=REPEATED,
    ),
    GatewayError(
        403,
        wire.CODE_RESIDENCY_REFUSED,
        "permission_error",
        "Policies leave no place where a request that enters here may be computed. The message names them.",
        with_header=wire.MODEL,
    ),
    GatewayError(
        404,
        wire.CODE_MODEL_NOT_FOUND,
        "not_found_error",
        "No deployment of the fleet has a model of that name.",
        with_header=wire.MODEL,
    ),
    GatewayError(
        404,
        wire.CODE_NOT_FOUND,
        "not_found_error",
        "No such path.",
        text="expected a path that begins with /, got another target with %REQ(:METHOD)%",
        no_path=True,
    ),
    GatewayError(404, wire.CODE_NOT_FOUND, "not_found_error", "No such path."),
    GatewayError(408, wire.CODE_REQUEST_TIMEOUT, "timeout_error", "The request did not arrive in time."),
    _TOO_LARGE,
    GatewayError(
        415, wire.CODE_UNSUPPORTED, _INVALID, "The path of a gRPC method, asked by something that is no gRPC call."
    ),
    GatewayError(
        431,
        wire.CODE_HEADERS_TOO_LARGE,
        _INVALID,
        "The head of the request is over the limit.",
        text="request line and headers may take 60 KiB in 100 headers, got more",
    ),
    _CODING,
    GatewayError(
        503,
        wire.CODE_NO_PLACE_READY,
        "overloaded_error",
        "Places may answer, but none can now: not ready, not reachable, or it failed before it answered. Retry.",
    ),
    GatewayError(
        501, wire.CODE_UNSUPPORTED, _INVALID, "A gRPC method that is not there (streams), or a compressed message."
    ),
    GatewayError(504, CODE_TIMEOUT, "timeout_error", "The place did not answer in time."),
    GatewayError(500, CODE_PLACE_FAILED, "api_error", "The place's answer was not valid HTTP.", or_above=True),
    _NOT_ACCEPTED,
)
"""In the order in which they are tried."""

PEER_ERRORS: Final = (
    GatewayError(
        403,
        CODE_NOT_PERMITTED,
        "permission_error",
        "The calling site may not ask for this model there (the plans of two sites differ for a moment).",
        full=FULL_NOT_PERMITTED,
    ),
    _TOO_LARGE,
    GatewayError(
        503,
        wire.CODE_NO_PLACE_READY,
        "overloaded_error",
        "The place does not have the model, or its engine does not answer.",
        full=FULL_NO_ENGINE,
    ),
    GatewayError(
        500,
        CODE_PLACE_FAILED,
        "api_error",
        "The engine's answer was not valid HTTP.",
        or_above=True,
        full=FULL_NO_ENGINE,
    ),
    _NOT_ACCEPTED,
)
"""What a peer's gateway says by itself: it sends the caller to its next place, and is not held against the site."""


def refusal(status: int, text: str, *, with_header: str | None = None) -> Message:
    """A direct response with an error text, which may hold Envoy's format commands."""
    match: Message = {"prefix": "/"}
    if with_header:
        match["headers"] = [{"name": with_header, "present_match": True}]
    return {
        "match": match,
        "direct_response": {"status": status, "body_format": {"text_format_source": {"inline_string": text}}},
    }


def found(paths: tuple[str, ...], body: Json) -> Message:
    """A direct response with a JSON document, to GET and HEAD of ``paths``."""
    method: Message = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}
    only, *others = paths
    path: Message = {"safe_regex": {"regex": "|".join(map(re.escape, paths))}} if others else {"path": only}
    return {
        "match": {**path, "headers": [method]},
        "direct_response": {"status": 200, "body": {"inline_string": canonical_json(body).decode()}},
        "response_headers_to_add": [header("content-type", "application/json")],
    }


def header(name: str, value: str, *, append: bool = False) -> Message:
    """A header that is set, or appended to."""
    action = "APPEND_IF_EXISTS_OR_ADD" if append else "OVERWRITE_IF_EXISTS_OR_ADD"
    return {"header": {"key": name, "value": value}, "append_action": action}


def literal(text: str) -> str:
    """``text`` as part of a format string that means itself."""
    return text.replace("%", "%%")


def model_document(model: str) -> Json:
    """A model as OpenAI's API describes it. The plan does not know when it was made, so ``created`` is 0."""
    return {"id": model, "object": "model", "created": 0, "owned_by": "nearcast"}


def discovery(models: Iterable[str]) -> list[Message]:
    """Routes for requests that name no model: discovery, health in the usual spellings."""
    listing: Json = {"object": "list", "data": [model_document(model) for model in models]}
    server: Json = {"name": "nearcast", "version": nearcast.__version__, "extensions": ["binary_tensor_data"]}
    return [
        found(MODELS_PATHS, listing),
        found(SERVER_PATHS, server),
        found(LIVE_PATHS, {"live": True}),
        found(READY_PATHS, {"ready": True}),
        found(HEALTH_PATHS, {"status": "ok"}),
    ]


def mappers(errors: Iterable[GatewayError], max_body_bytes: int = wire.BODY_BYTES) -> list[Json]:
    """What turns an error text of ours or of Envoy into one of ``errors``, in the shape of the path family."""
    return [mapper for error in errors for mapper in _shapes(error, max_body_bytes)]


def _shapes(error: GatewayError, max_body_bytes: int) -> list[Message]:
    text = error.text.replace(_LIMIT, str(max_body_bytes))
    openai: Json = {
        "error": {
            "message": text,
            "type": error.kind,
            "param": None,
            "code": error.code,
            "request_id": _REQUEST_ID,
        }
    }
    headers: list[Json] = [header(wire.ERROR, error.code)]
    if error.status == 503:
        headers.append(header(wire.RETRY_AFTER, str(RETRY_AFTER_S)))
    if error.full:
        headers.append({"header": {"key": wire.FULL, "value": error.full}, "append_action": "ADD_IF_ABSENT"})
    filters: list[Json] = [_status_filter(error.status, "GE" if error.or_above else "EQ")]
    if error.with_header:
        filters.append(_header_filter(error.with_header, {"present_match": True}))
    if error.no_path:
        rooted: Message = {"string_match": {"prefix": "/"}, "invert_match": True, "treat_missing_header_as_empty": True}
        filters.append(_header_filter(":path", rooted))
    # Envoy itself answers a gRPC call with status 200, and puts the text where gRPC wants it.
    status = wire.grpc_status(error.status, error.code, full=error.full)
    at_last = wire.grpc_status_at_last(error.status, error.code, full=error.full)
    as_status = [header("grpc-status", str(int(status)))]
    if at_last != status:
        as_status.append(header(wire.GRPC_STATUS_AT_LAST, str(int(at_last))))
    call = _header_filter("content-type", {"string_match": {"safe_regex": {"regex": r"application/grpc(\+.*)?"}}})
    as_call = _mapper([*filters, call], text, [*headers, *as_status], error.answered)
    openai_path = _header_filter(":path", {"string_match": {"safe_regex": {"regex": "/v1/.*|/m/[^/]*/v1/.*"}}})
    return [
        as_call,
        _mapper([*filters, openai_path], openai, headers, error.answered),
        _mapper(filters, {"error": text, "request_id": _REQUEST_ID}, headers, error.answered),
    ]


def _mapper(filters: list[Json], body: Json, headers: list[Json], answered: int | None) -> Message:
    match: Json = {"and_filter": {"filters": filters}} if len(filters) > 1 else filters[0]
    shape: Message = {"text_format_source": {"inline_string": body}} if isinstance(body, str) else {"json_format": body}
    status: Message = {} if answered is None else {"status_code": answered}
    return {"filter": match, **status, "body_format_override": shape, "headers_to_add": headers}


def _header_filter(name: str, match: Message) -> Message:
    return {"header_filter": {"header": {"name": name, **match}}}


def _status_filter(status: int, comparison: str) -> Message:
    # Access log filters want a runtime key; it is never set.
    value: Message = {"default_value": status, "runtime_key": "nearcast.unused"}
    return {"status_code_filter": {"comparison": {"op": comparison, "value": value}}}
