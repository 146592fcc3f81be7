"""``nearcast agent``: one agent, from its arguments to its exit code.

Decides who may start, and the end of the process. Start: one agent per data directory (flock), which is or becomes a
member of a fleet (`join`). End: at SIGTERM or SIGINT in order, at the second one at once; exit 0 unless a part failed.
What runs between the two is :mod:`~nearcast.agent.agent`'s.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NoReturn

from nearcast.agent.agent import Agent
from nearcast.agent.arguments import parse
from nearcast.agent.backoff import Backoff
from nearcast.agent.identity import Membership
from nearcast.agent.join import ensure_joined
from nearcast.agent.layout import Layout, layout_of
from nearcast.agent.mend import mend
from nearcast.agent.settings import Settings
from nearcast.agent.uplink import ControlUplink
from nearcast.documents import refuse_newer
from nearcast.errors import Conflict, NearcastError, Unavailable, meaning_of
from nearcast.logs import line, set_up
from nearcast.notify import ignore_signals

THREADS: Final = 16
JOIN_RETRY: Final = Backoff(base_s=0.5, factor=2.0, cap_s=30.0)

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> NoReturn:
    """Run one agent and end the process, without waiting for downloads that hang in a thread."""
    try:
        code = run(parse(argv))
    except NearcastError as error:
        code = _explain(error)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(settings: Settings) -> int:
    """Run one agent until it is told to end; its exit code."""
    set_up(settings.log_level)
    try:
        layout = layout_of(settings.data_dir)
        layout.make()
        with _alone(layout):
            refuse_newer(*layout.documents)
            return asyncio.run(_serve(settings, layout))
    except NearcastError as error:
        return _explain(error)


async def _serve(settings: Settings, layout: Layout) -> int:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(_Threads(THREADS, thread_name_prefix="agent"))
    ended, hurried = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _told, ended, hurried)
    joining = asyncio.create_task(_joined(settings, layout))
    if not await _first(joining, ended):
        return 0
    agent = Agent(settings, layout, joining.result())
    failed = await agent.run(ended, hurried)
    ignore_signals()
    return 1 if failed else 0


def _told(ended: asyncio.Event, hurried: asyncio.Event) -> None:
    """A signal to stop: in order at the first, at once at the second."""
    (hurried if ended.is_set() else ended).set()


async def _joined(settings: Settings, layout: Layout) -> Membership:
    """The membership, however long the control plane cannot be reached."""
    attempt = 0
    while True:
        try:
            member = await ensure_joined(settings, layout)
            await mend(layout, member, _connect)
        except Unavailable as error:
            attempt += 1
            if attempt in {1, 10}:
                log.warning(line("cannot begin yet", message=error.message))
            await asyncio.sleep(JOIN_RETRY.delay_s(attempt, str(layout.data_dir)))
        else:
            return member


def _connect(url: str, authority_pem: str | None, credential: str | None) -> ControlUplink:
    return ControlUplink(url, authority_pem=authority_pem, credential=credential)


async def _first(work: asyncio.Task[Any], ended: asyncio.Event) -> bool:
    """Whether ``work`` was done before the end; it is cancelled otherwise."""
    waiting = asyncio.create_task(ended.wait())
    await asyncio.wait([work, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if work.done():
        return True
    work.cancel()
    return False


class _Threads(ThreadPoolExecutor):
    """Threads that an ending agent does not wait for."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        del wait, cancel_futures
        super().shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    """Hold the data directory. The kernel lets go when the process ends, however it ends.

    Raises:
        Conflict: another agent runs on it.
    """
    with layout.lock.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise Conflict(
                f"another agent (process {lock.read().strip() or '?'}) runs on {layout.data_dir}",
                hint="stop it, or give another --data-dir",
            ) from error
        lock.seek(0)
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a word in it
            lock.truncate()
            lock.write(f"{os.getpid()}\n")
            lock.flush()
        yield


def _explain(error: NearcastError) -> int:
    print(f"error: {error.message}", file=sys.stderr)  # noqa: T201
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)  # noqa: T201
    return meaning_of(error).exit_code
