"""Which of the requests that take long to read is read next, and the threads that read them.

All models of an engine share the threads. Decides whose turn it is: by bytes, so that a model with long requests gets
no more than one with many short ones. What a request says is the codecs' to decide; how many bytes may wait is the
endpoint's.

Invariants of :class:`Turns`: requests of one model are taken in the order they came, except that a short one may pass
long ones; whatever waits is taken after finitely many others; of models that always have something waiting, none gets
more than one request ahead of another in bytes.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Generic, TypeVar

from nearcast.engine.refusal import Refusal

SHORT_BYTES: Final = 1024 * 1024
"""Requests up to this size, read in milliseconds, have a thread of their own: no long one is ever before them."""
LEAST_BYTES: Final = 16 * 1024
"""What a request counts for at least: taking it up costs, too."""

Item = TypeVar("Item")
Read = TypeVar("Read")


class Turns(Generic[Item]):
    """Items of several models that wait for their turn. Pure: no threads, no clock.

    Each model has spent so many bytes; the one that has spent least is next. One that comes back after a pause starts
    where the others are, so that nobody saves up turns.

    Args:
        wanted: whether an item is still waited for; one that is not is let go of in its turn, and counts for nothing.
    """

    def __init__(self, wanted: Callable[[Item], bool] = lambda _: True) -> None:
        self._wanted = wanted
        self._waiting: dict[str, deque[tuple[int, Item]]] = {}
        self._spent: dict[str, int] = {}
        self._now = 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def push(self, model: str, size_bytes: int, item: Item) -> None:
        """Let ``item`` wait behind what ``model`` has."""
        if model not in self._waiting:
            self._waiting[model] = deque()
            self._spent[model] = self._now
        self._waiting[model].append((size_bytes, item))

    def take(self, most_bytes: int | None = None) -> Item | None:
        """The next item, of those up to ``most_bytes`` where that is said; None when there is none."""
        while (found := self._next(most_bytes)) is not None:
            model, index = found
            items = self._waiting[model]
            size_bytes, item = items[index]
            del items[index]
            self._now = max(self._now, min(self._spent.values()))
            if self._wanted(item):
                self._spent[model] += max(size_bytes, LEAST_BYTES)
            if not items:
                del self._waiting[model], self._spent[model]
            if self._wanted(item):
                return item
        return None

    def _next(self, most_bytes: int | None) -> tuple[str, int] | None:
        """Model and index of the next item."""
        found: tuple[int, str, int] | None = None
        for model, items in self._waiting.items():
            index = next((at for at, (size, _) in enumerate(items) if most_bytes is None or size <= most_bytes), None)
            if index is not None and (found is None or self._spent[model] < found[0]):
                found = self._spent[model], model, index
        return None if found is None else found[1:]


class Ticket(Generic[Read]):
    """A request that waits to be read, or is being read.

    Attributes:
        done: what was read, or why not; resolved on the loop.
    """

    def __init__(self, read: Callable[[], Read], loop: asyncio.AbstractEventLoop) -> None:
        self.done: asyncio.Future[Read] = loop.create_future()
        self._read: Callable[[], Read] | None = read

    @property
    def is_wanted(self) -> bool:
        """Whether it is still to be read."""
        return self._read is not None

    def take(self) -> Callable[[], Read] | None:
        """What to call, once; None when it was abandoned."""
        read, self._read = self._read, None
        return read

    def settle(self, result: Read | None, error: Exception | None) -> None:
        """Resolve. On the loop."""
        if self.done.done():
            return
        if error is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(result)  # type: ignore[arg-type]


class Readers:
    """Two threads that read: one whatever is next, one only what is short.

    Belongs to the loop's thread; only what is read runs elsewhere.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._turns: Turns[Ticket[object]] = Turns(lambda ticket: ticket.is_wanted)
        self._changed = threading.Condition()
        self._closed = False
        for name, most_bytes in (("read", None), ("read-short", SHORT_BYTES)):
            threading.Thread(target=self._work, args=(most_bytes,), name=name, daemon=True).start()

    def submit(self, model: str, size_bytes: int, read: Callable[[], Read]) -> Ticket[Read]:
        """Have ``read`` called in the turn of ``model``, for a request of ``size_bytes``."""
        ticket: Ticket[Read] = Ticket(read, self._loop)
        with self._changed:
            self._turns.push(model, size_bytes, ticket)  # type: ignore[arg-type]
            self._changed.notify_all()
        return ticket

    def abandon(self, ticket: Ticket[Read]) -> None:
        """Nobody waits for ``ticket`` any more: unless it is being read already, it never is."""
        with self._changed:
            waited = ticket.take() is not None
        if waited:
            ticket.done.cancel()

    def close(self) -> None:
        """Read nothing more; what waits is abandoned."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work(self, most_bytes: int | None) -> None:
        while (turn := self._next(most_bytes)) is not None:
            ticket, read = turn
            settled = _settled(ticket, read)
            del turn, ticket, read  # nothing of a request stays here while the next one is waited for
            try:
                self._loop.call_soon_threadsafe(settled)
            except RuntimeError:  # the loop has ended, and whoever waited with it
                return
            del settled

    def _next(self, most_bytes: int | None) -> tuple[Ticket[object], Callable[[], object]] | None:
        with self._changed:
            while not self._closed:
                ticket = self._turns.take(most_bytes)
                read = None if ticket is None else ticket.take()
                if ticket is not None and read is not None:
                    return ticket, read
                self._changed.wait()
        return None


def _settled(ticket: Ticket[Read], read: Callable[[], Read]) -> Callable[[], None]:
    """Call ``read``; what tells its result to the loop."""
    try:
        return partial(ticket.settle, read(), None)
    except Refusal as refusal:
        # Its frames hold all that was read so far. They tell nobody anything: a refusal is an answer.
        return partial(ticket.settle, None, refusal.with_traceback(None))
    except Exception as error:  # noqa: BLE001 - the one who waits decides
        return partial(ticket.settle, None, error)
