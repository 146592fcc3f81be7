"""Requests that take so long to read that a thread does it, so that others need not wait for them.

Decides how many bytes of one model may be read on a thread, or wait for it, together; more are refused as full. What is
read next is decided in :mod:`~nearcast.engine.reading`, what a request says by the codecs. For the loop's thread.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from nearcast.engine.exchange import Exchange
from nearcast.engine.reading import Readers, Ticket
from nearcast.engine.refusal import Refusal, engine_failure, queue_full

ASIDE_BYTES: Final = 256 * 1024 * 1024
"""Bodies of one model that may be read on a thread, or wait for it, together."""

Read = TypeVar("Read")


class Aside:
    """The long requests of one model.

    ``size_bytes`` says how many bytes of them are being read, or wait for it.

    Args:
        model: whose requests they are.
        readers: the threads, shared by all models.
        check_room: refuses a request that has waited for its reader for too long, or has no room any more.
    """

    def __init__(self, model: str, readers: Readers, check_room: Callable[[Exchange], None]) -> None:
        self.model = model
        self.readers = readers
        self.check_room = check_room
        self.size_bytes = 0

    def read(self, exchange: Exchange, read: Callable[[], Read], then: Callable[[Exchange, Read], None]) -> None:
        """Have ``read`` called on a thread, and ``then`` on the loop with what it returned.

        Raises:
            Refusal: status 503, marked as full: too much is being read already.
        """
        size_bytes = len(exchange.body)
        if self.size_bytes and self.size_bytes + size_bytes > ASIDE_BYTES:
            raise queue_full(f"{self.size_bytes} bytes of requests are being read, {ASIDE_BYTES} may", 1)
        self.size_bytes += size_bytes
        _Long(self, exchange, then, self.readers.submit(self.model, size_bytes, read)).begin()


class _Long(Generic[Read]):
    """One request on its way through a thread."""

    def __init__(
        self, aside: Aside, exchange: Exchange, then: Callable[[Exchange, Read], None], ticket: Ticket[Read]
    ) -> None:
        self._aside = aside
        self._exchange = exchange
        self._then = then
        self._ticket = ticket
        self._size_bytes = len(exchange.body)
        self._over = False

    def begin(self) -> None:
        self._exchange.on_lost = self.lost
        self._ticket.done.add_done_callback(self.parsed)

    def lost(self) -> None:
        self._over = True
        self._aside.readers.abandon(self._ticket)

    def parsed(self, future: "asyncio.Future[Read]") -> None:
        aside = self._aside
        aside.size_bytes -= self._size_bytes
        error = None if future.cancelled() else future.exception()
        if self._over or future.cancelled():
            return
        if isinstance(error, Refusal):  # not raised again: this frame and the error would hold one another
            self._exchange.refuse(error)
            return
        if error is not None:
            self._exchange.refuse(engine_failure("the engine failed while reading the request"))
            raise error
        try:
            aside.check_room(self._exchange)
            self._then(self._exchange, future.result())
        except Refusal as refusal:
            self._exchange.refuse(refusal)
