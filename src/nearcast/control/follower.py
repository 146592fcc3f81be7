"""Keeping up with the other replicas: what they changed is read again here, soon, and before an operator is answered.

Decides what is read again, by counters that every change raises in its own transaction (`database.bump`). A replica
that is alone has nothing to follow. Desired state is not among it: every look at it asks the database anyway.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from nearcast.control.bell import Bell
from nearcast.control.database import Database
from nearcast.control.decisions import DECISIONS, Decisions
from nearcast.control.leader import PUBLICATIONS, Leader
from nearcast.control.members import MEMBERS, Members
from nearcast.control.nodes import NodeBook
from nearcast.control.publisher import Publisher
from nearcast.control.releases import RELEASES, ReleaseIndex
from nearcast.control.reports import REPORTS
from nearcast.control.store import STATE
from nearcast.control.transitions import TRANSITIONS, Transitions

FOLLOW_EVERY_S: Final = 0.5
RELEASES_EVERY_S: Final = 60.0
"""A replica that died after publishing a release has not told of it: the list is looked at now and then in any case."""


class Follower:
    """Follows for one replica. Safe for several threads; one catches up at a time.

    Args:
        database, members, nodes, transitions, releases, publisher, decisions, leader: the parts that remember.
        bell: rung when what changed elsewhere may change plans.
        clock: seconds of this machine that only rise.
    """

    def __init__(
        self,
        database: Database,
        members: Members,
        nodes: NodeBook,
        transitions: Transitions,
        releases: ReleaseIndex,
        publisher: Publisher,
        decisions: Decisions,
        leader: Leader,
        bell: Bell,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._leader = leader
        self._nodes = nodes
        self._releases = releases
        self._bell = bell
        self._clock = clock
        self._guard = threading.Lock()
        self._released_s = clock()
        self._version = 0
        self._read: dict[str, Callable[[], bool]] = {
            STATE: lambda: True,
            MEMBERS: members.reload,
            REPORTS: nodes.absorb,
            RELEASES: self._refresh,
            PUBLICATIONS: self._published,
            DECISIONS: decisions.reload,
            TRANSITIONS: lambda: transitions.reload(keep_own=leader.leads),
        }
        self._seen: dict[str, int] = {}

    def catch_up(self) -> None:
        """Read again whatever other replicas changed since the last time. One small query where they did not."""
        if not self._database.is_shared:
            return
        with self._guard:
            found = self._database.counters()  # before anything is read: a change in between is read the next time
            rings = [self._read[name]() for name in self._read if found.get(name, 0) != self._seen.get(name, 0)]
            if self._clock() - self._released_s > RELEASES_EVERY_S:
                rings.append(self._refresh())
            self._seen = found
        if any(rings):
            self._bell.ring()

    def follow(self) -> None:
        """Tell the others what nodes told us, and catch up."""
        self._nodes.flush()
        self.catch_up()

    def _refresh(self) -> bool:
        self._released_s = self._clock()
        return self._releases.refresh()

    def _published(self) -> bool:
        """Look again at what other leaders published; our own publications we know."""
        found = self._leader.published_since(self._version)
        self._version = max([self._version, *found.values()])
        if not self._leader.leads:
            self._publisher.forget(found)
        return False
