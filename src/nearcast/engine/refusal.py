"""Answers that say no: what a caller is told, and in which shape.

A :class:`Refusal` carries status, machine code and text; the body's shape follows the family of the path that was
asked (OpenAI's below ``/v1``, the Open Inference Protocol's elsewhere on a model's socket, nearcast's own on the
admin and status sockets); a gRPC call is told by status and message in its head. Whether something is refused is
decided by whoever raises it.
"""

from http import HTTPStatus
from typing import Final, Literal
from urllib.parse import quote

import msgspec

from nearcast.errors import NearcastError
from nearcast.resources import wire

Family = Literal["openai", "oip", "nearcast"]

_SERVER_FAULT: Final = 500
_GRPC_MESSAGE_MAX: Final = 1024
"""Bytes of a message in the head of an answer: gRPC clients take 8 KiB of metadata, and each byte may become three."""
_PRINTABLE: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


class Refusal(NearcastError):
    """A request that is answered with an error, by intent.

    Args:
        status: HTTP status.
        reason: machine code, one of ``wire.CODE_*``.
        message: what was expected and what came.
        param: the field of the request that is wrong, or None.
        full: value of the ``x-nearcast-full`` header, or None where the place is not full.
        retry_after_s: whole seconds for ``retry-after``, or None.
        allow: methods for ``allow`` on a 405.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        param: str | None = None,
        full: str | None = None,
        retry_after_s: int | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.param = param
        self.full = full
        self.retry_after_s = retry_after_s
        self.allow = allow


def invalid_request(message: str, *, param: str | None = None) -> Refusal:
    """400: not well-formed, or not the protocol."""
    return Refusal(400, wire.CODE_INVALID_REQUEST, message, param=param)


def invalid_tensor(message: str, *, param: str | None = None) -> Refusal:
    """400: a tensor is not what the model's signature says."""
    return Refusal(400, wire.CODE_INVALID_TENSOR, message, param=param)


def model_mismatch(message: str) -> Refusal:
    """400: header, path and body do not name the model of this socket."""
    return Refusal(400, wire.CODE_MODEL_MISMATCH, message, param="model")


def not_found(message: str) -> Refusal:
    """404: no such path here."""
    return Refusal(404, wire.CODE_NOT_FOUND, message)


def method_not_allowed(method: str, allow: str) -> Refusal:
    """405: the path is right, the method is not."""
    return Refusal(405, wire.CODE_METHOD_NOT_ALLOWED, f"expected method {allow}, got {method}", allow=allow)


def unsupported(status: int, message: str) -> Refusal:
    """415 or 501: an encoding, or a part of the protocol, that the engine does not speak."""
    return Refusal(status, wire.CODE_UNSUPPORTED, message)


def engine_failure(message: str) -> Refusal:
    """500: our own failure."""
    return Refusal(_SERVER_FAULT, wire.CODE_ENGINE_FAILURE, message)


def queue_full(message: str, retry_after_s: int) -> Refusal:
    """503: the queue is at its bound; another place may take the request."""
    return Refusal(503, wire.CODE_QUEUE_FULL, message, full=wire.FULL_QUEUE, retry_after_s=retry_after_s)


def unloaded(message: str) -> Refusal:
    """503: the model version went away before the request had its turn."""
    return Refusal(503, wire.CODE_UNLOADED, message, full=wire.FULL_NO_MODEL, retry_after_s=1)


def family_of(target: bytes) -> Family:
    """The family of error bodies for a path on a model's socket."""
    return "openai" if target.startswith(b"/v1") else "oip"


def error_body(refusal: Refusal, family: Family, request_id: bytes | None = None) -> bytes:
    """The JSON body for ``refusal``, in the shape that callers of ``family`` parse, with the request's id if it has
    one."""
    named = {} if request_id is None else {"request_id": request_id.decode("latin-1")}
    if family == "oip":
        return msgspec.json.encode({"error": refusal.message, **named})
    if family == "nearcast":
        return msgspec.json.encode({"error": {"code": refusal.reason, "message": refusal.message, **named}})
    kind = "server_error" if refusal.status >= _SERVER_FAULT else "invalid_request_error"
    error = {"message": refusal.message, "type": kind, "param": refusal.param, "code": refusal.reason, **named}
    return msgspec.json.encode({"error": error})


def error_head(refusal: Refusal) -> bytes:
    """Status line and headers for ``refusal``, up to and without ``content-length``."""
    lines = [
        f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}",
        "content-type: application/json",
        f"{wire.ERROR}: {refusal.reason}",
    ]
    if refusal.allow is not None:
        lines.append(f"allow: {refusal.allow}")
    return _ended(lines, refusal)


def call_head(refusal: Refusal) -> bytes:
    """Status line and headers that end a gRPC call with ``refusal``, up to and without ``content-length``.

    gRPC calls it "trailers only": status and message stand in the head, and there is no body.
    """
    status = wire.grpc_status(refusal.status, refusal.reason, full=refusal.full)
    at_last = wire.grpc_status_at_last(refusal.status, refusal.reason, full=refusal.full)
    message = refusal.message.encode()[:_GRPC_MESSAGE_MAX].decode(errors="ignore")
    lines = [
        "HTTP/1.1 200 OK",
        f"content-type: {wire.GRPC_CONTENT_TYPES[0]}",
        f"grpc-status: {int(status)}",
        f"grpc-message: {quote(message, safe=_PRINTABLE)}",
        f"{wire.ERROR}: {refusal.reason}",
    ]
    if at_last != status:
        lines.append(f"{wire.GRPC_STATUS_AT_LAST}: {int(at_last)}")
    return _ended(lines, refusal)


def _ended(lines: list[str], refusal: Refusal) -> bytes:
    if refusal.full is not None:
        lines.append(f"{wire.FULL}: {refusal.full}")
    if refusal.retry_after_s is not None:
        lines.append(f"{wire.RETRY_AFTER}: {refusal.retry_after_s}")
    return ("\r\n".join(lines) + "\r\n").encode("latin-1")
