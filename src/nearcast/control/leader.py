"""Who publishes: one replica at a time, by a lease in the database, under a term that rises with every change of hands.

Decides who leads and which version a publication gets. A publication is announced before its first write and ticked off
after its last (`tables.Publication`), each time only if the term still is ours. What an earlier leader announced and
never ticked off is published anew by the next one, whatever it holds: from then on the timestamp that the earlier one
had in hand is another, and the store refuses what it may still send. See docs/adr/011-replicas.md.

One process over SQLite needs no lease: it takes the lead at once, and the lock on its directory keeps others away.
"""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from nearcast.control.database import Database, bump
from nearcast.control.tables import Leadership, Publication
from nearcast.errors import Unavailable

log = logging.getLogger(__name__)

LEASE_S: Final = 6.0
HOLD_EVERY_S: Final = 1.5
"""A leader that dies is followed after at most LEASE_S + HOLD_EVERY_S; one that is stopped in order, at once."""
PUBLICATIONS: Final = "publications"


class Leader:
    """One replica's part in leading. Safe for several threads.

    Args:
        database: all replicas share it.
        lease_s: how long a term holds without being renewed.
        clock: seconds of this machine that only rise.
        told: hears the time by the clock that all replicas share, each time that the lease is asked for.
    """

    def __init__(
        self,
        database: Database,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.monotonic,
        told: Callable[[datetime], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._told = told
        self.lease_s = lease_s
        self._clock = clock
        self._guard = threading.Lock()
        self._until_s = 0.0
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.term = 0

    @property
    def leads(self) -> bool:
        """Whether this replica leads, as far as it can know without asking: its lease has not run out."""
        with self._guard:
            return self.term > 0 and (not self._database.is_shared or self._clock() < self._until_s)

    def hold(self) -> bool:
        """Renew our lease, or take one that ran out; whether we lead now."""
        asked_s = self._clock()  # before the database is asked: our deadline never lies behind that of the row
        with self._database.write() as session:
            now_s = self._database.now_s(session)
            self._told(datetime.fromtimestamp(now_s, UTC))
            row = _row(session)
            ours = row.holder == self.holder
            if not ours and self._database.is_shared and row.expires_s > now_s:
                term = 0
            else:
                if not ours:
                    row.term, row.holder = row.term + 1, self.holder
                row.expires_s = now_s + self.lease_s
                term = row.term
        with self._guard:
            gained, lost = term and not self.term, self.term and not term
            self.term, self._until_s = term, asked_s + self.lease_s if term else 0.0
        if self._database.is_shared and (gained or lost):
            log.info("%s", f"leads now, in term {term}" if gained else "another replica leads now")
        return term > 0

    def resign(self) -> None:
        """Let the next replica lead at once."""
        with self._guard:
            term, self.term = self.term, 0
        if term and self._database.is_shared:
            with self._database.write() as session:
                row = _row(session)
                if row.holder == self.holder:
                    row.expires_s = 0.0

    def begin(self, sites: Collection[str], lowest: Callable[[], int]) -> int:
        """Announce a publication to ``sites``.

        Args:
            sites: that get a new plan.
            lowest: the highest version published before; asked only where the database knows of none.

        Returns:
            Its version: above all before.

        Raises:
            Unavailable: another replica leads.
        """
        with self._database.read() as session:
            known = session.scalar(select(Leadership.version)) or 0
        floor = known or lowest()
        with self._database.write() as session:
            row = self.require(session)
            row.version = max(row.version, floor) + 1
            for site in sites:
                session.merge(Publication(site=site, version=row.version, term=row.term, done=False))
            return row.version

    def raise_to(self, version: int) -> None:
        """Make the next publication's version higher than ``version``: the database was behind the repository."""
        with self._database.write() as session:
            row = self.require(session)
            row.version = max(row.version, version)

    def done(self, sites: Collection[str]) -> None:
        """Tick off what was published to ``sites``. Raises :class:`Unavailable` where another replica leads."""
        with self._database.write() as session:
            self.require(session)
            for site in sites:
                session.get_one(Publication, site).done = True
            bump(session, PUBLICATIONS)

    def unfinished(self) -> frozenset[str]:
        """Sites to which a publication was announced and not ticked off, by whomever."""
        with self._database.read() as session:
            return frozenset(session.scalars(select(Publication.site).where(Publication.done.is_(False))))

    def forget(self, sites: Collection[str]) -> None:
        """Drop what is known of sites that are gone."""
        with self._database.write() as session:
            self.require(session)
            session.execute(delete(Publication).where(Publication.site.in_(sites)))

    def published_since(self, version: int) -> dict[str, int]:
        """Site -> version, of what was published after ``version``."""
        query = select(Publication.site, Publication.version).where(
            Publication.version > version, Publication.done.is_(True)
        )
        with self._database.read() as session:
            return {row.site: row.version for row in session.execute(query)}

    def require(self, session: Session) -> Leadership:
        """Our row, inside a write transaction. Raises :class:`Unavailable` where another replica leads."""
        row = _row(session)
        if self.term == 0 or row.holder != self.holder or row.term != self.term:
            raise Unavailable("another replica of the control plane publishes now", retry_after_s=1.0)
        return row


def _row(session: Session) -> Leadership:
    row = session.get(Leadership, 1)
    if row is None:
        row = Leadership(id=1, term=0, holder="", expires_s=0.0, version=0)
        session.add(row)
        session.flush()
    return row
