"""The wire between gateway and engine: names of sockets, headers, paths and error codes. One spelling for all rooms.

What each of them means is told in ``docs/reference/wire.md``. This module decides no behaviour, and it does not know
where the run directory is: it names files inside it.

Invariant: a Unix socket's path must fit ``sun_path`` (108 bytes with its closing zero on Linux, 104 on macOS), so
every socket name here is at most 14 bytes, whatever the model is called.
"""

import hashlib
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

# --- sockets in the run directory --------------------------------------------------------------------------------

ENGINE_ADMIN: Final = "engine.admin"
"""Load and unload model versions (mode 0600)."""
ENGINE_STATUS: Final = "engine.status"
"""Load report, metrics, health of the engine process."""
ENVOY_ADMIN: Final = "envoy.admin"
"""Envoy's own admin interface (mode 0600)."""
ENVOY_PROBE: Final = "envoy.probe"
"""The agent's way through Envoy to the load reports of peers."""

SUN_PATH_MAX: Final = 103
"""Longest socket path, in bytes, that every platform of ours accepts."""


def model_at(model: str, version: str) -> str:
    """A model version as one word, ``m@v``: what the answer header :data:`MODEL` holds."""
    return f"{model}@{version}"


def model_socket(model: str, version: str) -> str:
    """File name of the socket that serves ``model`` at ``version``: ``m-`` and 12 hexadecimal digits.

    The name is a hash, so that its length never depends on the model's name. 48 bits keep two of the few model versions
    of one node apart; the engine refuses to load a second one under a socket that is taken.
    """
    return f"m-{hashlib.sha256(model_at(model, version).encode()).hexdigest()[:12]}"


BODY_BYTES: Final = 64 * 1024 * 1024
"""Largest body, or gRPC message, that gateways and engines take unless told otherwise."""

# --- headers (lower case, as HTTP/2 wants them) --------------------------------------------------------------------

PREFIX: Final = "x-nearcast-"
"""Prefix of all our headers; the gateway removes what clients send under it."""
MODEL: Final = "x-nearcast-model"
"""Request: the model that the gateway routed for, without version. Answer: ``model@version`` that computed."""
FULL: Final = "x-nearcast-full"
"""On a 503: this place cannot take the request now, another may; it is not broken. A value of ``FULL_*``."""
LONGEST_WAIT: Final = "x-nearcast-longest-wait"
"""Request: :func:`longest_waits`; a place at which it would wait longer says that it is full."""
ATTEMPT: Final = "x-envoy-attempt-count"
"""Request: 1 at the first place that is asked. Envoy's own."""
ERROR: Final = "x-nearcast-error"
"""Machine code of an error answer: one of ``CODE_*``."""
GRPC_STATUS_AT_LAST: Final = "x-nearcast-grpc-status"
"""Beside ``FULL`` in gRPC: the status that the client's own gateway makes of it, where no place is left to ask."""
SITE: Final = "x-nearcast-site"
"""The site that computed the answer (set by the gateway)."""
REASON: Final = "x-nearcast-reason"
"""Why that site was chosen, and which attempt it was (set by the gateway)."""
REQUEST_ID: Final = "x-request-id"
"""Echoed by the engine when it is present."""
SERVER_TIMING: Final = "server-timing"
"""``queue`` and ``compute`` in milliseconds from the engine; the gateway adds its own entries."""
RETRY_AFTER: Final = "retry-after"
INFERENCE_HEADER_LENGTH: Final = "inference-header-content-length"
"""Bytes of JSON at the head of a body with binary tensors (Open Inference Protocol v2, binary extension)."""

FULL_QUEUE: Final = "queue"
"""The model's queue is at its bound (count or bytes)."""
FULL_NO_MODEL: Final = "no-model"
"""The place does not have the model, though somebody routed to it."""
FULL_LEAVING: Final = "leaving"
"""The node is being stopped: it finishes what it has, and takes nothing more from peers."""


def longest_waits(waits_ms: Iterable[tuple[str, int]], tries: int | None = None) -> str:
    """Places, each with milliseconds, as :data:`LONGEST_WAIT` has them: ``frankfurt=20,paris=80;3``.

    Args:
        waits_ms: the places.
        tries: after so many attempts a request may wait for as long as it takes; None where it never may.
    """
    told = ",".join(f"{place}={milliseconds}" for place, milliseconds in waits_ms)
    return told if tries is None else f"{told};{tries}"


def longest_wait_ms(value: str, site: str, node: str, attempt: int = 1) -> int | None:
    """What a value of :data:`LONGEST_WAIT` says of one node: by its own name, else by its site's; None for nothing.

    Args:
        value: of the header.
        site, node: the node.
        attempt: 1 for the first place that was asked.
    """
    told, _, tries = value.partition(";")
    if tries.isascii() and tries.isdigit() and len(tries) <= _MS_DIGITS and attempt > int(tries):
        return None
    waits = dict(pair.partition("=")[::2] for pair in told.split(","))
    found = waits.get(f"{site}/{node}", waits.get(site, ""))
    return int(found) if found.isascii() and found.isdigit() and len(found) <= _MS_DIGITS else None


_MS_DIGITS: Final = 8

# --- paths -------------------------------------------------------------------------------------------------------

LOAD_PATH: Final = "/-/load"
PROFILE_PATH: Final = "/-/profile"
METRICS_PATH: Final = "/metrics"
ADMIN_MODELS_PATH: Final = "/-/models"
LIVE_PATH: Final = "/v2/health/live"
READY_PATH: Final = "/v2/health/ready"
EMBEDDINGS_PATH: Final = "/v1/embeddings"


def admin_model_path(model: str, version: str) -> str:
    """Path of a model version on the admin socket."""
    return f"{ADMIN_MODELS_PATH}/{model}/{version}"


def infer_path(model: str, version: str | None = None) -> str:
    """Path of inference in the Open Inference Protocol v2."""
    return f"/v2/models/{model}/infer" if version is None else f"/v2/models/{model}/versions/{version}/infer"


# --- gRPC --------------------------------------------------------------------------------------------------------

GRPC_SERVICE_PATH: Final = "/inference.GRPCInferenceService/"
"""Paths of the Open Inference Protocol v2 over gRPC begin so; the method's name follows."""
GRPC_CONTENT_TYPES: Final = ("application/grpc", "application/grpc+proto")
GRPC_PREFIX_BYTES: Final = 5
"""Before a message: one byte that says whether it is compressed, four that say how long it is."""


class GrpcStatus(IntEnum):
    """The status codes of gRPC that we answer."""

    OK = 0
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


_GRPC_OF: Final = {
    400: GrpcStatus.INVALID_ARGUMENT,
    403: GrpcStatus.PERMISSION_DENIED,
    404: GrpcStatus.UNIMPLEMENTED,
    405: GrpcStatus.UNIMPLEMENTED,
    408: GrpcStatus.DEADLINE_EXCEEDED,
    409: GrpcStatus.ABORTED,
    413: GrpcStatus.RESOURCE_EXHAUSTED,
    415: GrpcStatus.UNIMPLEMENTED,
    422: GrpcStatus.INVALID_ARGUMENT,
    431: GrpcStatus.RESOURCE_EXHAUSTED,
    500: GrpcStatus.INTERNAL,
    501: GrpcStatus.UNIMPLEMENTED,
    503: GrpcStatus.UNAVAILABLE,
    504: GrpcStatus.DEADLINE_EXCEEDED,
}


def grpc_status(status: int, code: str, *, full: str | None) -> GrpcStatus:
    """What a place calls the error ``code``, of HTTP status ``status``, in gRPC.

    Whatever sends a caller to the next place (``full``) is RESOURCE_EXHAUSTED: Envoy holds an UNAVAILABLE against the
    place that said it, and would eject it as a broken one. What the client shall hear where there is no next place is
    :func:`grpc_status_at_last`.
    """
    if full is not None:
        return GrpcStatus.RESOURCE_EXHAUSTED
    return grpc_status_at_last(status, code, full=None)


def grpc_status_at_last(status: int, code: str, *, full: str | None) -> GrpcStatus:
    """What the error is called to the client: nothing is exhausted but a queue."""
    if full == FULL_QUEUE:
        return GrpcStatus.RESOURCE_EXHAUSTED
    if code == CODE_MODEL_NOT_FOUND:
        return GrpcStatus.NOT_FOUND
    return _GRPC_OF.get(status, GrpcStatus.UNKNOWN)


# --- error codes -------------------------------------------------------------------------------------------------
# The engine's.
CODE_INVALID_REQUEST: Final = "invalid_request"
"""400: the request is not well-formed HTTP, JSON, or protocol."""
CODE_INVALID_TENSOR: Final = "invalid_tensor"
"""400: an input or output has the wrong name, datatype, shape or byte count."""
CODE_MODEL_MISMATCH: Final = "model_mismatch"
"""400: header, path and body do not name the same model."""
CODE_CONTEXT_LENGTH: Final = "context_length_exceeded"
"""400: an input has more tokens than the model takes."""
CODE_INPUT_TOO_LARGE: Final = "input_too_large"
"""400: more inputs in one request than the engine takes."""
CODE_NOT_FOUND: Final = "not_found"
"""404: no such path here."""
CODE_UNSUPPORTED: Final = "unsupported"
"""415, 501: an encoding or a part of the protocol that nothing here speaks."""
CODE_METHOD_NOT_ALLOWED: Final = "method_not_allowed"
"""405: the path exists, not with this method."""
CODE_REQUEST_TIMEOUT: Final = "request_timeout"
"""408: the request did not arrive in time."""
CODE_BODY_TOO_LARGE: Final = "body_too_large"
"""413: the body is over the limit (also the gateway's)."""
CODE_INFERENCE_FAILED: Final = "inference_failed"
"""422: the model could not compute this input, although it fits the signature."""
CODE_HEADERS_TOO_LARGE: Final = "headers_too_large"
"""431: the request head is over the limit."""
CODE_QUEUE_FULL: Final = "queue_full"
"""503 with :data:`FULL`: the queue is full."""
CODE_UNLOADED: Final = "model_unloaded"
"""503 with :data:`FULL`: the model version went away before this request had its turn."""
CODE_ENGINE_FAILURE: Final = "engine_failure"
"""500: the engine's own failure."""
# The gateway's.
CODE_MODEL_NOT_FOUND: Final = "model_not_found"
"""404: no such model (the engine: not this model or version at this socket)."""
CODE_MODEL_REQUIRED: Final = "model_required"
"""400: the body names no model, or not plainly."""
CODE_RESIDENCY_REFUSED: Final = "residency_refused"
"""403: policies leave no place."""
CODE_NO_PLACE_READY: Final = "no_place_ready"
"""503: no place can answer now."""
# The admin socket's.
CODE_TOO_LARGE_FOR_NODE: Final = "too_large_for_node"
"""507 on the admin socket: the model would not fit into the memory that the node still has."""
CODE_INVALID_MODEL: Final = "invalid_model"
"""422: the files are not a model that the engine can serve as its manifest says."""
CODE_CONFLICT: Final = "conflict"
"""409: that model version or socket is busy with something else."""
