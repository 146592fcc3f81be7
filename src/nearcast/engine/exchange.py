"""One request and the way to its answer, the bounds of its connection, and what answers it.

Decides what a request looks like to those who answer it. How it came from bytes, and how the answer becomes bytes, is
the connection's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from nearcast.engine.headers import Headers, Names, Spellings
from nearcast.engine.refusal import Family, Refusal
from nearcast.resources import wire

_SERVICE: Final = wire.GRPC_SERVICE_PATH.encode()
_CALL_TYPES: Final = frozenset(each.encode() for each in wire.GRPC_CONTENT_TYPES)
_ENDED_WELL: Final = b"grpc-status: 0\r\n"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection. Times are whole seconds, kept by a sweep once per second.

    Attributes:
        body_bytes: largest body.
        head_bytes: largest request line and headers together.
        stall_s: longest pause inside a request, and longest wait for a client to read its answer.
        request_s: longest time from the first to the last byte of a request.
        linger_s: how long what still comes is discarded after a request was refused midway.
        pipelined: most complete requests that wait behind the one being handled, before reading stops.
    """

    body_bytes: int = wire.BODY_BYTES
    head_bytes: int = 64 * 1024
    stall_s: int = 30
    request_s: int = 300
    linger_s: int = 2
    pipelined: int = 16


class Link(Protocol):
    """The connection of an exchange, as far as others need it."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being received, handled or written."""
        ...

    def answer(self, exchange: "Exchange", head: bytes, body: bytes, *, trailers: bytes | None = None) -> None:
        """Write an answer."""
        ...

    def refuse(self, exchange: "Exchange", refusal: Refusal) -> None:
        """Answer with an error."""
        ...

    def sweep(self) -> None:
        """Keep the time limits; called once per second."""
        ...

    def close(self) -> None:
        """Close after what was written is sent."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Endpoint(Protocol):
    """What answers requests. It must answer every exchange once, now or later, on the loop's thread.

    ``identity`` are the headers, each with its line end, that its errors carry too; ``spellings`` are shared by its
    connections.
    """

    identity: bytes
    limits: Limits
    spellings: Spellings
    draining: bool
    connections: set[Link]

    def handle(self, exchange: "Exchange") -> None:
        """Answer ``exchange``, now or later."""
        ...

    def family(self, target: bytes) -> Family:
        """The shape of error bodies for ``target``."""
        ...


class Exchange:
    """One request and the way to its answer.

    Attributes:
        method: the method, upper case.
        target: the request target as it came.
        model: value of ``x-nearcast-model``, or None.
        request_id: value of ``x-request-id``, or None.
        json_length: value of ``inference-header-content-length``, or None.
        longest_wait: value of ``x-nearcast-longest-wait``, or None.
        attempt: value of ``x-envoy-attempt-count``, or None.
        body: all of the body.
        is_call: whether it is a gRPC call, by path and content type (HTTP/2 is translated by Envoy).
        keep_alive: whether the connection outlives the answer.
        on_lost: called when the client went away before its answer; whoever handles the request may set it. An answer
            clears it: it mostly leads back here, and the collector of such circles seldom runs (`GC_THRESHOLD`).
    """

    __slots__ = (
        "_connection", "attempt", "body", "is_call", "json_length", "keep_alive", "longest_wait", "method", "model",
        "on_lost", "refusal", "request_id", "target",
    )  # fmt: skip

    def __init__(
        self, connection: Link, method: bytes, target: bytes, headers: Headers, names: Names, body: bytes
    ) -> None:
        self._connection = connection
        self.method = method
        self.target = target
        self.model = headers.get(names.model)
        self.request_id = headers.get(names.request_id)
        self.json_length = headers.get(names.json_length)
        self.longest_wait = headers.get(names.longest_wait)
        self.attempt = headers.get(names.attempt)
        self.body = body
        self.is_call = target.startswith(_SERVICE) and headers.get(names.content_type) in _CALL_TYPES
        self.keep_alive = True
        self.on_lost: Callable[[], None] | None = None
        self.refusal: Refusal | None = None

    @property
    def path(self) -> bytes:
        """The target without query."""
        return self.target.partition(b"?")[0]

    def reply(self, head: bytes, body: bytes) -> None:
        """Answer.

        Args:
            head: status line and headers, each with its line end, without ``content-length``.
            body: the body; left out by itself for HEAD.
        """
        self.on_lost = None
        self._connection.answer(self, head, body)

    def reply_call(self, head: bytes, message: bytes) -> None:
        """Answer a gRPC call: ``message``, and then that all is well.

        Args:
            head: status line and headers, each with its line end, without framing.
            message: the message behind its prefix.
        """
        self.on_lost = None
        self._connection.answer(self, head, message, trailers=_ENDED_WELL)

    def refuse(self, refusal: Refusal) -> None:
        """Answer with an error, in the shape that the path's callers parse."""
        self.on_lost = None
        self._connection.refuse(self, refusal)


def timed(head: bytes, queue_s: float, compute_s: float) -> bytes:
    """The head of an answer, with where the time went."""
    return b"%bserver-timing: queue;dur=%.3f, compute;dur=%.3f\r\n" % (head, queue_s * 1e3, compute_s * 1e3)
