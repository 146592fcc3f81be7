"""One client connection: bytes to requests, answers to bytes. HTTP/1.1 by httptools on a bare asyncio protocol.

Decides framing, limits and order: requests of a connection are handled one after another, in the order they came,
whatever a client pipelines. What a request means is decided by an :class:`Endpoint`. A request that breaks a limit is
answered, and the connection then discards what still comes until the client has read the answer and closed.

Invariant: exactly one answer per request that was complete when its connection was lost or later, else a cancellation.
"""

import asyncio
import logging
from collections import deque
from typing import Final, cast

import httptools

from nearcast.engine.exchange import Endpoint, Exchange
from nearcast.engine.headers import Headers, Names
from nearcast.engine.refusal import Refusal, call_head, error_body, error_head, invalid_request
from nearcast.logs import line
from nearcast.resources import wire

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
COPY_MAX: Final = 65536
"""Bodies up to this size are copied behind their head, larger ones are written separately."""

FAULT: Final = 500
"""The status of our own failures: they are logged, with the request's id."""

PARTS_MAX: Final = 1024
"""Pieces of a body that are kept apart; a body in very small chunks would else cost many times its size."""

log = logging.getLogger("nearcast.engine")


class Connection(asyncio.Protocol):
    """The protocol object of one connection.

    The parser's frequent callbacks are methods of a list and a dict, which cost no Python frame. They are emptied
    between requests, never replaced.

    Args:
        endpoint: what answers its requests.
    """

    exchange_type = Exchange

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._limits = endpoint.limits
        self._spellings = endpoint.spellings
        self._transport: asyncio.Transport | None = None
        self._target: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self.on_url = self._target.append
        self._head: dict[bytes, bytes] = {}
        self.on_header = self._headers.__setitem__  # of a repeated header the last counts
        self.on_body = self._parts.append
        self._parser = httptools.HttpRequestParser(self)
        self._in_body = False
        self._judged = False  # whether limits of a head were checked whose body is still coming
        self._gathered = bytearray()  # of a body in many small chunks
        self._came = 0  # pieces of a body as of the last read, those that were gathered as bytes
        self._barren = 0  # bytes since then that were none of it: trailers, say
        self._received = 0  # bytes of the request that is coming in, as far as it came before this read
        self._read = 0  # bytes of this read
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
        del self._parser  # it and we hold one another
        if handling is not None and handling.on_lost is not None:
            handling.on_lost()
            handling.on_lost = None

    def data_received(self, data: bytes) -> None:
        """Bytes came: parse them, then handle what is complete."""
        if self._deaf:
            return
        self._read = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            refused = self._waiting.pop() if self._waiting else None  # it came without its body
            self._reject(invalid_request("expected plain HTTP/1.1, got a request to upgrade"), refused)
        except httptools.HttpParserError as error:
            self._reject(invalid_request(f"not HTTP/1.1: {error}"))
        else:
            if self._target or self._received or not self._waiting:
                self._stalled_s = 0
                self._received += self._read
                self._judge()
        if self._handling is None and self._waiting:
            if len(self._waiting) == 1 and not self._deaf:
                exchange = self._handling = self._waiting.popleft()
                self._endpoint.handle(exchange)
            else:
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

    def on_headers_complete(self) -> None:
        """The head is complete; the body, if any, follows."""
        self._in_body = True
        headers = self._headers
        framed = b"content-length" in headers or b"Content-Length" in headers
        self._head = headers if framed else headers.copy()  # else trailers may follow

    def on_message_complete(self) -> None:
        """The request is complete."""
        if self._deaf:
            return
        headers = self._head
        names = self._spellings.known(tuple(headers)) or self._spellings.learn(headers)
        if not self._judged and (names.encoding or self._received + self._read > self._limits.head_bytes):
            refusal = self._refusal_of_head(headers, names)
            if refusal is not None:
                self._reject(refusal)
                return
        parts, target = self._parts, self._target
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        if self._gathered:
            body = bytes(self._gathered + body)
        if len(body) > self._limits.body_bytes:
            self._reject(self._too_large(len(body)))
            return
        self._in_body = False  # not before: a refusal is answered as the head asks for it
        parser = self._parser
        url = target[0] if len(target) == 1 else b"".join(target)
        exchange = self.exchange_type(self, parser.get_method(), url, headers, names, body)
        exchange.keep_alive = parser.should_keep_alive()
        target.clear()
        parts.clear()
        self._headers.clear()
        if self._received:
            self._received = self._request_s = 0
            self._judged = False
            self._barren = self._came = 0
            self._gathered = bytearray()
        self._waiting.append(exchange)
        if len(self._waiting) > self._limits.pipelined:
            self._pause_reading()

    # --- limits --------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Check the limits of a request that has come in part."""
        if not self._in_body:
            if self._received > self._limits.head_bytes:
                self._reject(self._head_too_large())
            return
        if not self._judged:
            self._judged = True
            names = self._spellings.learn(self._head)
            refusal = self._refusal_of_head(self._head, names)
            if refusal is not None:
                self._reject(refusal)
            elif names.expect and not self._waiting and self._handling is None and self._transport is not None:
                self._transport.write(CONTINUE)
        came = len(self._gathered) + len(self._parts)
        self._barren = self._barren + self._read if came == self._came else 0
        self._came = came
        if self._barren > self._limits.head_bytes:
            self._reject(self._head_too_large())
            return
        if len(self._parts) > PARTS_MAX or self._received > self._limits.body_bytes:
            self._gathered += b"".join(self._parts)
            self._parts.clear()
            if len(self._gathered) > self._limits.body_bytes:
                self._reject(self._too_large(len(self._gathered)))

    def _refusal_of_head(self, headers: Headers, names: Names) -> Refusal | None:
        length = headers.get(names.content_length)
        if length is not None and int(length) > self._limits.body_bytes:
            return self._too_large(int(length))
        encoding = headers.get(names.encoding)
        if encoding is not None and encoding != b"identity":
            return invalid_request("expected no content-encoding, got " + encoding.decode("latin-1"))
        if sum(map(len, headers.values())) + sum(map(len, self._target)) > self._limits.head_bytes:
            return self._head_too_large()
        return None

    def _head_too_large(self) -> Refusal:
        message = f"request line and headers may take {self._limits.head_bytes} bytes, got more"
        return Refusal(431, wire.CODE_HEADERS_TOO_LARGE, message)

    def _too_large(self, size: int) -> Refusal:
        message = f"the body may have {self._limits.body_bytes} bytes, got {size} or more"
        return Refusal(413, wire.CODE_BODY_TOO_LARGE, message)

    def _reject(self, refusal: Refusal, exchange: Exchange | None = None) -> None:
        """Answer the request that is coming in with ``refusal``, in its turn, and hear nothing more."""
        if self._deaf:
            return
        if exchange is None:
            head = self._head if self._in_body else {}
            exchange = Exchange(self, b"", b"".join(self._target), head, self._spellings.learn(head), b"")
        exchange.refusal = refusal
        exchange.keep_alive = False
        self._target.clear()
        self._parts.clear()
        self._gathered = bytearray()
        self._received = 0
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
        elif self._received and self._reading:
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
            self._received == 0
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
        if refusal.status == FAULT:
            log.error(line("request failed", request_id=_shown(exchange.request_id), message=refusal.message))
        if exchange.is_call:
            self.answer(exchange, call_head(refusal) + self._endpoint.identity, b"")
            return
        family = self._endpoint.family(exchange.target)
        body = error_body(refusal, family, exchange.request_id)
        self.answer(exchange, error_head(refusal) + self._endpoint.identity, body)

    def answer(self, exchange: Exchange, head: bytes, body: bytes, *, trailers: bytes | None = None) -> None:
        """Write an answer and go on with the next request. An answer that nobody waits for is dropped.

        With ``trailers``, which follow it, the body is one chunk and not empty.
        """
        transport = self._transport
        if exchange is not self._handling or transport is None:
            return
        self._handling = None
        if exchange.request_id is not None:
            head = b"%bx-request-id: %b\r\n" % (head, exchange.request_id)
        last = not exchange.keep_alive or (self._endpoint.draining and not self._waiting)
        if last:
            head += b"connection: close\r\n"
        if trailers is not None:
            start = b"%btransfer-encoding: chunked\r\n\r\n%x\r\n" % (head, len(body))
            end = b"\r\n0\r\n%b\r\n" % trailers
            if len(body) <= COPY_MAX:
                transport.write(b"%b%b%b" % (start, body, end))
            else:
                transport.writelines((start, body, end))
        elif exchange.method == b"HEAD":
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


def _shown(request_id: bytes | None) -> str | None:
    return None if request_id is None else request_id[:128].decode("latin-1")
