"""One client connection: bytes to requests, answers to bytes. HTTP/1.1 by httptools on a bare asyncio protocol.

Decides framing, limits and order: requests of a connection are handled one after another, in the order they came,
whatever a client pipelines. What a request means is decided by an :class:`Endpoint`. A request that breaks a limit is
answered, and the connection then discards what still comes until the client has read the answer and closed.

Invariant: exactly one answer per request that was complete when its connection was lost or later, else a cancellation.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, cast

import httptools

from nearcast.engine.refusal import Family, Refusal, error_body, error_head, invalid_request
from nearcast.resources import wire

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
COPY_MAX: Final = 65536
"""Bodies up to this size are copied behind their head, larger ones are written separately."""

_CONTENT_LENGTH: Final = b"content-length"
_EXPECT: Final = b"expect"
_ENCODING: Final = b"content-encoding"
MODEL: Final = wire.MODEL.encode()
REQUEST_ID: Final = wire.REQUEST_ID.encode()
JSON_LENGTH: Final = wire.INFERENCE_HEADER_LENGTH.encode()
_WANTED: Final = frozenset({_CONTENT_LENGTH, _EXPECT, _ENCODING, MODEL, REQUEST_ID, JSON_LENGTH})


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

    body_bytes: int = 64 * 1024 * 1024
    head_bytes: int = 64 * 1024
    stall_s: int = 30
    request_s: int = 300
    linger_s: int = 2
    pipelined: int = 16


class Endpoint(Protocol):
    """What answers requests. It must answer every exchange once, now or later, on the loop's thread.

    ``identity`` are the headers, each with its line end, that its errors carry too.
    """

    identity: bytes
    limits: Limits
    draining: bool
    connections: "set[Connection]"

    def handle(self, exchange: "Exchange") -> None:
        """Answer ``exchange``, now or later."""
        ...

    def family(self, target: bytes) -> Family:
        """The shape of error bodies for ``target``."""
        ...


class Exchange:
    """One request and the way to its answer.

    Attributes:
        target: the request target as it came.
        method: the method, upper case.
        headers: those headers that the engine reads, by lower-case name.
        body: all of the body, once the request is complete.
        on_lost: called when the client went away before its answer; whoever handles the request may set it.
    """

    __slots__ = ("_connection", "body", "headers", "keep_alive", "method", "on_lost", "refusal", "target")

    def __init__(self, connection: "Connection", target: bytes) -> None:
        self._connection = connection
        self.target = target
        self.method = b""
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
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
        self._connection.answer(self, head, body)

    def refuse(self, refusal: Refusal) -> None:
        """Answer with an error, in the shape that the path's callers parse."""
        self._connection.refuse(self, refusal)


class Connection(asyncio.Protocol):
    """The protocol object of one connection.

    Args:
        endpoint: what answers its requests.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._limits = endpoint.limits
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._receiving: Exchange | None = None
        self._in_head = False
        self._parts: list[bytes] = []
        self._body_bytes = 0
        self._head_bytes = 0
        self._waiting: deque[Exchange] = deque()
        self._handling: Exchange | None = None
        self._advancing = False
        self._reading = True
        self._deaf = False  # what still comes is discarded
        self._stalled_s = 0
        self._request_s = 0
        self._deaf_s = 0
        self._blocked_s = -1  # seconds for which the client has not read; -1: it reads

    # --- asyncio -------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        self._transport = cast(asyncio.Transport, transport)
        self._endpoint.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went: nobody waits for what it asked."""
        self._endpoint.connections.discard(self)
        self._transport = None
        self._deaf = True
        handling, self._handling = self._handling, None
        self._waiting.clear()
        self._receiving = None
        if handling is not None and handling.on_lost is not None:
            handling.on_lost()

    def data_received(self, data: bytes) -> None:
        """Bytes came: parse them, then handle what is complete."""
        if self._deaf:
            return
        self._stalled_s = 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._deaf = True  # the request is complete and is answered; we speak nothing but HTTP/1.1
            if self._waiting:
                self._waiting[-1].keep_alive = False
        except httptools.HttpParserError as error:
            self._reject(invalid_request(f"not HTTP/1.1: {error}"))
        else:
            if self._in_head:
                self._head_bytes += len(data)
                self._check_head()
        if self._waiting and self._handling is None:
            self._advance()

    def eof_received(self) -> bool:
        """The client will send no more; it is taken to have gone."""
        return False

    def pause_writing(self) -> None:
        """The client does not read its answers: hear no more requests."""
        self._blocked_s = 0
        self._pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._blocked_s = -1
        self._resume_reading()
        self._advance()

    # --- httptools -----------------------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """The request target, or a part of it."""
        if self._receiving is None:
            self._receiving = Exchange(self, url)
            self._in_head = True
            self._head_bytes = len(url)
            self._body_bytes = 0
            self._request_s = 0
        else:
            self._receiving.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer (which says nothing here)."""
        self._head_bytes += len(name) + len(value)
        name = name.lower()
        if name in _WANTED and self._in_head and self._receiving is not None:
            headers = self._receiving.headers
            headers[name] = value if name not in headers else headers[name] + b", " + value

    def on_headers_complete(self) -> None:
        """The head is complete: judge it before any body comes."""
        exchange = self._receiving
        if exchange is None or self._deaf:
            return
        self._in_head = False
        exchange.method = self._parser.get_method()
        self._check_head()
        headers = exchange.headers
        length = headers.get(_CONTENT_LENGTH)
        if length is not None and int(length) > self._limits.body_bytes:
            self._reject(self._too_large(int(length)))
        elif headers.get(_ENCODING, b"identity") != b"identity":
            self._reject(invalid_request("expected no content-encoding, got " + headers[_ENCODING].decode("latin-1")))
        elif _EXPECT in headers and self._transport is not None and not self._waiting and self._handling is None:
            self._transport.write(CONTINUE)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            self._reject(self._too_large(self._body_bytes))
        elif not self._deaf:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        exchange, self._receiving = self._receiving, None
        if exchange is None or self._deaf:
            return
        parts = self._parts
        if parts:
            exchange.body = parts[0] if len(parts) == 1 else b"".join(parts)
            self._parts = []
        exchange.keep_alive = self._parser.should_keep_alive()
        self._waiting.append(exchange)
        if len(self._waiting) > self._limits.pipelined:
            self._pause_reading()

    # --- limits --------------------------------------------------------------------------------------------------

    def _check_head(self) -> None:
        if self._head_bytes > self._limits.head_bytes:
            message = (
                f"request line and headers may take {self._limits.head_bytes} bytes, got {self._head_bytes} or more"
            )
            self._reject(Refusal(431, wire.CODE_HEADERS_TOO_LARGE, message))

    def _too_large(self, size: int) -> Refusal:
        message = f"the body may have {self._limits.body_bytes} bytes, got {size} or more"
        return Refusal(413, wire.CODE_BODY_TOO_LARGE, message)

    def _reject(self, refusal: Refusal) -> None:
        """Answer the request that is coming in with ``refusal``, in its turn, and hear nothing more."""
        if self._deaf:
            return
        exchange = self._receiving or Exchange(self, b"")
        exchange.refusal = refusal
        exchange.keep_alive = False
        self._receiving = None
        self._parts = []
        self._deaf = True
        self._waiting.append(exchange)

    def sweep(self) -> None:
        """Keep the time limits; called once per second."""
        if self._transport is None:
            return
        if self._deaf and self._handling is None:
            self._deaf_s += 1
            if self._deaf_s > self._limits.linger_s:
                self._transport.abort()
        elif self._blocked_s >= 0:
            self._blocked_s += 1
            if self._blocked_s > self._limits.stall_s:
                self._transport.abort()
        elif self._receiving is not None and self._reading:
            self._stalled_s += 1
            self._request_s += 1
            if self._stalled_s > self._limits.stall_s or self._request_s > self._limits.request_s:
                message = f"the request did not arrive within {self._limits.stall_s} s without a pause"
                self._reject(Refusal(408, wire.CODE_REQUEST_TIMEOUT, message))
                self._advance()

    # --- answering -----------------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being received, handled or written."""
        return (
            self._receiving is None
            and self._handling is None
            and not self._waiting
            and (self._transport is None or self._transport.get_write_buffer_size() == 0)
        )

    def close(self) -> None:
        """Close after what was written is sent."""
        self._deaf = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _advance(self) -> None:
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._handling is None and self._waiting and self._blocked_s < 0:
                exchange = self._handling = self._waiting.popleft()
                if exchange.refusal is not None:
                    self.refuse(exchange, exchange.refusal)
                else:
                    self._endpoint.handle(exchange)
        finally:
            self._advancing = False
        if not self._waiting and not self._reading and self._blocked_s < 0:
            self._resume_reading()

    def refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        """Answer ``exchange`` with an error."""
        family = self._endpoint.family(exchange.target)
        self.answer(exchange, error_head(refusal) + self._endpoint.identity, error_body(refusal, family))

    def answer(self, exchange: Exchange, head: bytes, body: bytes) -> None:
        """Write an answer and go on with the next request. An answer that nobody waits for is dropped."""
        transport = self._transport
        if exchange is not self._handling or transport is None:
            return
        self._handling = None
        request_id = exchange.headers.get(REQUEST_ID)
        if request_id is not None:
            head = b"%bx-request-id: %b\r\n" % (head, request_id)
        last = not exchange.keep_alive or (self._endpoint.draining and not self._waiting)
        if last:
            head += b"connection: close\r\n"
        if exchange.method == b"HEAD":
            transport.write(b"%bcontent-length: %d\r\n\r\n" % (head, len(body)))
        elif len(body) <= COPY_MAX:
            transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
        else:
            transport.writelines((b"%bcontent-length: %d\r\n\r\n" % (head, len(body)), body))
        if last:
            self._end(transport, midway=exchange.refusal is not None)
        elif self._waiting:
            self._advance()

    def _end(self, transport: asyncio.Transport, *, midway: bool) -> None:
        self._deaf = True
        self._waiting.clear()
        if midway and transport.can_write_eof():
            transport.write_eof()  # closing now, with bytes unread, would take the answer from the client
        else:
            transport.close()

    def _pause_reading(self) -> None:
        if self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()
