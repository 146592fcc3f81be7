"""What the planner decided: the guidance in force, and a bounded history of records to read and to repeat.

The leader writes, every replica reads. A decision is in force once it is written: whoever publishes after that, also
after ``kill -9``, publishes by it. The newest decision is never dropped, however large.
"""

import logging
import threading
from dataclasses import dataclass, replace
from typing import Final

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from nearcast.control.database import Database, bump
from nearcast.control.leader import Leader
from nearcast.control.tables import Decision
from nearcast.errors import IntegrityError, InvalidInput, NotFound
from nearcast.planning.fleet.guidance import UNGUIDED, Guidance
from nearcast.planning.fleet.record import Record, compress, decompress
from nearcast.resources.unreadable import UNREADABLE

log = logging.getLogger(__name__)

DECISIONS: Final = "decisions"
KEPT: Final = 500
TRIED: Final = 20
"""Decisions that are tried for one that can be read."""
KEPT_BYTES: Final = 64 * 1024 * 1024
_guidance: Final = msgspec.json.Decoder(Guidance)
_reasons: Final = msgspec.json.Decoder(tuple[str, ...])


@dataclass(frozen=True, slots=True)
class InForce:
    """The newest decision. ``id`` is 0 before the first; ``since`` is the first one with the same guidance."""

    id: int = 0
    guidance: Guidance = UNGUIDED
    since: int = 0


@dataclass(frozen=True, slots=True)
class Heading:
    """One line of the history."""

    id: int
    at: str
    reason: tuple[str, ...]
    size_bytes: int


class Decisions:
    """The decisions of one fleet. Safe for several threads and replicas.

    Args:
        database: holds them.
        kept, kept_bytes: bounds of the history.
    """

    def __init__(self, database: Database, kept: int = KEPT, kept_bytes: int = KEPT_BYTES) -> None:
        self._database = database
        self._kept = kept
        self._kept_bytes = kept_bytes
        self._guard = threading.Lock()
        self._in_force = InForce()
        self.reload()

    @property
    def in_force(self) -> InForce:
        """What plans follow now."""
        with self._guard:
            return self._in_force

    def reload(self) -> bool:
        """Read what is in force. Returns: whether it is other guidance than before.

        Raises:
            IntegrityError: there are decisions, and none of the newest can be read.
        """
        query = select(Decision.id, Decision.guidance).order_by(Decision.id.desc()).limit(TRIED)
        with self._database.read() as session:
            rows = session.execute(query).all()
        for row in rows:
            try:
                return self._follow(InForce(row.id, _guidance.decode(row.guidance)))
            except UNREADABLE as error:
                log.warning("decision %d is damaged, the one before it is in force: %s", row.id, error)
        if rows:
            raise IntegrityError(
                f"expected guidance in decision {rows[0].id} or one of the {len(rows) - 1} before it; all are damaged",
                hint="Restore a backup. Sites go on by the plans that they have.",
            )
        return self._follow(InForce())

    def _follow(self, found: InForce) -> bool:
        with self._guard:
            before = self._in_force
            same = found.id > before.id and found.guidance == before.guidance
            self._in_force = replace(found, since=before.since if same or found.id == before.id else found.id)
            return self._in_force.since != before.since

    def add(self, record: Record, leader: Leader) -> InForce:
        """Bring ``record`` into force; its id is the next one.

        Raises:
            Unavailable: another replica leads.
        """
        with self._database.write() as session:
            leader.require(session)
            number = (session.scalar(select(func.max(Decision.id))) or 0) + 1
            data = compress(msgspec.structs.replace(record, id=number))
            session.add(
                Decision(
                    id=number,
                    at=record.at,
                    reason=msgspec.json.encode(record.reason).decode(),
                    guidance=msgspec.json.encode(record.guidance).decode(),
                    record=data,
                    size_bytes=len(data),
                )
            )
            session.flush()
            self._prune(session)
            bump(session, DECISIONS)
        self._follow(InForce(number, record.guidance))
        return self.in_force

    def _prune(self, session: Session) -> None:
        rows = session.execute(select(Decision.id, Decision.size_bytes).order_by(Decision.id.desc())).all()
        total = 0
        for rank, row in enumerate(rows):
            total += row.size_bytes
            if rank and (rank >= self._kept or total > self._kept_bytes):
                session.execute(delete(Decision).where(Decision.id <= row.id))
                return

    def headings(self, limit: int = 100) -> list[Heading]:
        """The last decisions, newest first."""
        query = select(Decision.id, Decision.at, Decision.reason, Decision.size_bytes)
        with self._database.read() as session:
            rows = session.execute(query.order_by(Decision.id.desc()).limit(limit)).all()
        return [Heading(row.id, row.at, _spoken(row.reason), row.size_bytes) for row in rows]

    def record(self, number: int | None = None) -> Record:
        """The record of a decision, or of the newest.

        Raises:
            NotFound: there is none, or it is no longer kept.
            IntegrityError: it is damaged, or of another release.
        """
        query = select(Decision.record).order_by(Decision.id.desc()).limit(1)
        if number is not None:
            query = query.where(Decision.id == number)
        with self._database.read() as session:
            data = session.scalar(query)
        if data is None and number is None:
            raise NotFound("the planner has not decided anything yet", hint="It does once a deployment has a release.")
        if data is None:
            raise NotFound(f"there is no decision {number}, or it is no longer kept", hint="nearcast plan list")
        try:
            return decompress(data)
        except InvalidInput as error:
            raise IntegrityError(
                f"decision {number or '(the newest)'} is damaged in the database: {error.message}",
                hint="The fleet goes on by what is in force; the next decision is recorded anew.",
            ) from error


def _spoken(reason: str) -> tuple[str, ...]:
    try:
        return _reasons.decode(reason)
    except UNREADABLE:
        return ("its reason is damaged in the database",)
