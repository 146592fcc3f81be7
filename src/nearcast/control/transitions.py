"""Since when a condition has been what it is: noted where it is looked at, written down by the loop."""

import threading
from typing import Final

from sqlalchemy import select

from nearcast.control.database import Database, bump
from nearcast.control.store import Clock, timestamp
from nearcast.control.tables import Transition

TRANSITIONS: Final = "transitions"
ConditionKey = tuple[str, str, str]
"""(kind, name, type of condition)."""


class Transitions:
    """Times of conditions. Safe for several threads."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._guard = threading.Lock()
        self._unwritten: dict[ConditionKey, tuple[str, str]] = {}
        self._known: dict[ConditionKey, tuple[str, str]] = {}
        self.reload(keep_own=False)

    def reload(self, *, keep_own: bool) -> bool:
        """Read them again; with ``keep_own``, what is not written down yet stands. Returns False: no plan changes."""
        with self._database.read() as session:
            rows = session.scalars(select(Transition)).all()
        known = {(row.kind, row.name, row.type): (row.status, row.since) for row in rows}
        with self._guard:
            if not keep_own:
                self._unwritten = {}
            self._known = known | self._unwritten
        return False

    def since(self, kind: str, name: str, type_: str, status: str) -> str:
        """When that condition came to ``status``: now, if it had another one when it was last looked at."""
        key = (kind, name, type_)
        with self._guard:
            known = self._known.get(key)
            if known is None or known[0] != status:
                known = (status, timestamp(self._clock()))
                self._known[key] = self._unwritten[key] = known
            return known[1]

    def forget(self, kind: str, name: str) -> None:
        """Drop the conditions of a resource that is gone."""
        with self._guard:
            gone = [key for key in self._known if key[:2] == (kind, name)]
            for key in gone:
                del self._known[key]
                self._unwritten.pop(key, None)
        if gone:
            with self._database.write() as session:
                for key in gone:
                    row = session.get(Transition, key)
                    if row is not None:
                        session.delete(row)
                bump(session, TRANSITIONS)

    def flush(self) -> None:
        """Write down what changed. What could not be written is tried again with the next flush."""
        with self._guard:
            changed = dict(self._unwritten)
        if changed:
            with self._database.write() as session:
                for (kind, name, type_), (status, since) in changed.items():
                    session.merge(Transition(kind=kind, name=name, type=type_, status=status, since=since))
                bump(session, TRANSITIONS)
            with self._guard:
                for key, written in changed.items():
                    if self._unwritten.get(key) == written:
                        del self._unwritten[key]
