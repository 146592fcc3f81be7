"""Telling how the node stands: to the control plane, and to a file for whoever asks on the node itself.

Decides when: at once when the standing changes, some seconds after figures moved, else every status interval with
jitter. A report that is lost is not repeated as such: the next one holds everything.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from nearcast.agent.backoff import Backoff, eager_s
from nearcast.agent.status import has_moved, urgent
from nearcast.agent.uplink import Uplink
from nearcast.durable import DiskFull, write_whole
from nearcast.errors import NearcastError, Unavailable
from nearcast.logs import line
from nearcast.resources.status import ConditionReport, NodeStatus

DEBOUNCE_S: Final = 0.05
"""Changes come in bursts; a burst is one report."""
MOVED_S: Final = 5.0
"""At most between two reports whose only news is that figures moved: demand, load, shares, round trips."""
SETTLED_S: Final = 15.0
"""After a report of figures that moved, one more: the first one saw them on their way."""
FILE_S: Final = 2.0
UPLINK: Final = "Uplink"
DISK: Final = "Disk"

log = logging.getLogger(__name__)


class Troubles:
    """Conditions of the shell, by type. For the loop's thread."""

    def __init__(self) -> None:
        self._found: dict[str, ConditionReport] = {}

    def now(self) -> tuple[ConditionReport, ...]:
        """What is wrong now, by type."""
        return tuple(self._found[kind] for kind in sorted(self._found))

    def set(self, kind: str, error: NearcastError) -> None:
        """``kind`` has failed with ``error``."""
        lost = isinstance(error, Unavailable) and not isinstance(error, DiskFull)
        reason = "Unreachable" if lost else type(error).__name__
        if kind not in self._found or self._found[kind].reason != reason:
            log.warning(line(f"{kind.lower()} trouble", reason=reason, message=error.message))
        self._found[kind] = ConditionReport(type=kind, status=False, reason=reason, message=error.message)

    def clear(self, kind: str) -> None:
        """``kind`` works."""
        if self._found.pop(kind, None) is not None:
            log.info(line(f"{kind.lower()} is well again"))


class Reporter:
    """Reports one node. For the loop's thread.

    Args:
        status: makes the document.
        changed: set when the state may have changed.
        uplink: where it goes; None for a node without a control plane.
        file: where it goes on the node.
        status_s: between two reports when nothing changes.
        hint: told the version of the newest plan, as answers to reports name it.
        troubles: where a failing uplink is noted.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        status: Callable[[], NodeStatus],
        changed: asyncio.Event,
        uplink: Uplink | None,
        file: Path,
        status_s: float,
        hint: Callable[[int], None],
        troubles: Troubles,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._status = status
        self._changed = changed
        self._uplink = uplink
        self._file = file
        self._status_s = status_s
        self._hint = hint
        self._troubles = troubles
        self._clock = clock
        self._retry = Backoff(base_s=min(0.5, status_s), factor=2.0, cap_s=status_s)
        self._sent: NodeStatus | None = None
        self._sent_s = 0.0
        self._due_s = 0.0
        self._moved_s = min(MOVED_S, status_s)
        self._retry_s = 0.0
        self._failures = 0
        self._began_s = clock()
        self._written: tuple[object, ...] | None = None
        self._written_s = 0.0

    @property
    def contact_age_s(self) -> float | None:
        """Seconds since a report arrived; None before the first."""
        return None if self._sent is None else self._clock() - self._sent_s

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._changed.wait()
            await asyncio.sleep(DEBOUNCE_S)
            self._changed.clear()
            status = self._status()
            await self._write(status)
            if self._is_due(status):
                await self._send(status)

    async def last(self, status: NodeStatus, timeout_s: float) -> None:
        """A final report, if that is possible in time."""
        with contextlib.suppress(OSError):
            await asyncio.to_thread(write_whole, self._file, msgspec.json.encode(status))
        if self._uplink is not None and not self._failures:
            with contextlib.suppress(NearcastError, TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._uplink.report(status)

    async def _write(self, status: NodeStatus) -> None:
        news, now_s = urgent(status), self._clock()
        if news == self._written and now_s - self._written_s < FILE_S:
            return
        self._written, self._written_s = news, now_s
        try:
            await asyncio.to_thread(write_whole, self._file, msgspec.json.encode(status))
        except DiskFull as error:
            self._troubles.set(DISK, error)
        except OSError as error:
            log.warning(line("status cannot be written", message=str(error)))
        else:
            self._troubles.clear(DISK)

    def _is_due(self, status: NodeStatus) -> bool:
        now_s = self._clock()
        if self._uplink is None or now_s < self._retry_s:
            return False
        if self._sent is None or urgent(status) != urgent(self._sent) or now_s >= self._due_s:
            return True
        return now_s - self._sent_s >= self._moved_s and has_moved(self._sent, status)

    async def _send(self, status: NodeStatus) -> None:
        assert self._uplink is not None  # noqa: S101 - _is_due says so
        # A report that arrives had an uplink: what failed before is news for this node's file only.
        standing = tuple(item for item in status.conditions if item.type != UPLINK)
        status = msgspec.structs.replace(status, conditions=standing)
        try:
            newest = await self._uplink.report(status)
        except NearcastError as error:
            self._failures += 1
            delay_s = self._retry.delay_s(self._failures, f"{status.site}/{status.node}")
            if self._sent is None:
                delay_s = eager_s(delay_s, self._clock() - self._began_s)
            self._retry_s = self._clock() + delay_s
            self._troubles.set(UPLINK, error)
            return
        moving = self._sent is not None and has_moved(self._sent, status)
        interval_s = min(SETTLED_S, self._status_s) if moving else self._status_s
        self._failures = 0
        self._sent, self._sent_s = status, self._clock()
        self._due_s = self._sent_s + interval_s * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
        # A surge moves the figures of many nodes at once: they do not all report in the same second.
        self._moved_s = min(MOVED_S, self._status_s) * random.uniform(0.6, 1.0)  # noqa: S311
        self._troubles.clear(UPLINK)
        if newest > status.plan_version:
            self._hint(newest)
