"""What the nodes last said, in memory; written down only where the plan or a reader would be told something new.

A fleet of 4,200 sites sends 70 reports a second; most say that nothing changed but the load. Whoever polls for plans
counts as alive too. After a restart the statuses written down stand, so that plans do not change because we were away.
Where there may be other replicas, they are told: of a status soon, of a mere sign of life now and then (`reports`).
"""

import contextlib
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from nearcast.control.members import Members
from nearcast.control.reports import Reports
from nearcast.control.store import Clock, timestamp
from nearcast.resources.revision import canonical_json
from nearcast.resources.status import NodeStatus
from nearcast.resources.unreadable import UNREADABLE

NodeKey = tuple[str, str]
SIGNS_PER_TIMEOUT = 8
"""How often within the timeout a node that only polls is written down."""
_decoder = msgspec.json.Decoder(NodeStatus, strict=True)


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as the control plane sees it. ``status`` is None before its first report.

    ``draining`` says that it shall serve no model.
    """

    site: str
    node: str
    connected: bool
    status: NodeStatus | None = None
    seen_at: datetime | None = None
    draining: bool = False


class NodeBook:
    """The last word of every node. Safe for several threads.

    Args:
        members: the nodes, and what they last reported.
        reports: what is told to other replicas.
        clock: of moments that are compared with those of other replicas, where there are any.
        timeout_s: a node that was silent for longer counts as disconnected.
    """

    def __init__(self, members: Members, reports: Reports, clock: Clock, timeout_s: float) -> None:
        self._members = members
        self._reports = reports
        self._beat = 0
        self._untold: dict[NodeKey, NodeStatus | None] = {}
        self._told: dict[NodeKey, datetime] = {}
        self._clock = clock
        self._timeout = timedelta(seconds=timeout_s)
        self._guard = threading.Lock()
        self._statuses: dict[NodeKey, NodeStatus] = {}
        self._seen: dict[NodeKey, datetime] = {}
        for key, (document, at) in members.statuses().items():
            with contextlib.suppress(*UNREADABLE):  # of another nearcast; the node will report again
                self._statuses[key] = _decoder.decode(document)
            self._seen[key] = datetime.fromisoformat(at).astimezone(UTC)
        self.absorb()

    def seen(self, site: str, node: str) -> bool:
        """Note that a node called. Returns: whether it had been away, so that plans may change."""
        now = self._clock()
        with self._guard:
            before = self._seen.get((site, node))
            self._seen[site, node] = now
            told = self._told.get((site, node))
            if self._reports.is_shared and (told is None or now - told > self._timeout / SIGNS_PER_TIMEOUT):
                self._untold.setdefault((site, node), None)
        return before is None or now - before > self._timeout

    def report(self, status: NodeStatus) -> bool:
        """Take a node's status. Returns: whether it says anything new besides load and progress."""
        returned = self.seen(status.site, status.node)
        key = (status.site, status.node)
        with self._guard:
            before = self._statuses.get(key)
            self._statuses[key] = status
            if self._reports.is_shared:
                self._untold[key] = status
        if before is not None and _news(before) == _news(status):
            return returned
        at = self._clock() if self._reports.is_shared else None
        self._members.write_status(status.site, status.node, canonical_json(lasting(status)).decode(), at)
        self.flush()
        return True

    def flush(self) -> None:
        """Tell the other replicas what nodes told us. What could not be written is tried again with the next flush."""
        with self._guard:
            untold, self._untold = self._untold, {}
            words = {
                key: (timestamp(self._seen[key]), None if status is None else msgspec.json.encode(status).decode())
                for key, status in untold.items()
                if key in self._seen
            }
        if not words:
            return
        try:
            self._reports.write(words)
        except BaseException:
            with self._guard:
                self._untold = untold | self._untold
            raise
        with self._guard:
            self._told.update({key: self._seen[key] for key in words if key in self._seen})

    def absorb(self) -> bool:
        """Read what nodes told other replicas. Returns: whether it says anything new besides load and progress."""
        if not self._reports.is_shared:
            return False
        self._beat, words = self._reports.since(self._beat)
        news = [
            self._absorbed(key, at, document) for key, (at, document) in words.items()
        ]  # each of them, not up to one
        return any(news)

    def _absorbed(self, key: NodeKey, at: str, document: str | None) -> bool:
        """Take a word of another replica; whether it is news.

        A status of the very moment of ours is taken, too, unless ours is yet to be told: what was written down last
        counts everywhere (`reports`), or replicas would differ until the node reports again.
        """
        moment = datetime.fromisoformat(at).astimezone(UTC)
        status = None
        if document is not None:
            with contextlib.suppress(*UNREADABLE):  # of another nearcast
                status = _decoder.decode(document)
        with self._guard:
            seen, held = self._seen.get(key), self._statuses.get(key)
            if seen is not None and (
                seen > moment or (seen == moment and (status is None or self._untold.get(key) is not None))
            ):
                return False
            self._seen[key] = self._told[key] = moment
            if status is not None:
                self._statuses[key] = status
        returned = seen is None or moment - seen > self._timeout
        return returned or (status is not None and (held is None or _news(held) != _news(status)))

    def views(self) -> tuple[NodeView, ...]:
        """Every node that is not revoked, by site and name."""
        now = self._clock()
        members = [
            (member.site, member.node, member.draining_since is not None)
            for member in self._members.all()
            if member.revoked_at is None
        ]
        with self._guard:
            return tuple(
                NodeView(
                    site,
                    node,
                    (site, node) in self._seen and now - self._seen[site, node] <= self._timeout,
                    self._statuses.get((site, node)),
                    self._seen.get((site, node)),
                    draining,
                )
                for site, node, draining in members
            )

    def forget(self, site: str, node: str) -> None:
        """Drop what a revoked node said."""
        with self._guard:
            self._statuses.pop((site, node), None)
            self._seen.pop((site, node), None)
            self._untold.pop((site, node), None)


def lasting(status: NodeStatus) -> NodeStatus:
    """``status`` without what changes all the time: load, demand, measurements of peers, shares, bytes fetched."""
    models = tuple(msgspec.structs.replace(model, done_bytes=0) for model in status.models)
    return msgspec.structs.replace(status, models=models, load=None, peers=(), routes={}, demand={})


def _news(status: NodeStatus) -> tuple[object, ...]:
    """What is worth writing down when it changes: of profiles, which are learned from traffic, only that they exist, of
    the capacity only the workers."""
    profiled = frozenset((item.model, item.version) for item in status.profiles)
    workers = status.capacity.workers if status.capacity else None
    return msgspec.structs.replace(lasting(status), profiles=(), capacity=None), profiled, workers
