"""Desired state, as resources with an append-only history by content hash.

Decides what a revision, a generation and a history are. Does not decide whether a change is allowed: that is asked of
the caller inside the write transaction (`admission`), on the very state that the change will follow.

Invariants: heads always equal the last event of each name; contents and history only grow; the same manifest again is
no event; all changes of one call come into force together or not at all.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nearcast.control.database import Database, bump
from nearcast.control.tables import Content, Event, Head, Node
from nearcast.resources.kinds import AnyResource, revision_of_resource, to_document
from nearcast.resources.manifest import resource_from_document
from nearcast.resources.revision import canonical_json
from nearcast.resources.state import DesiredState

Key = tuple[str, str]
"""(kind, name)."""
Clock = Callable[[], datetime]
STATE: Final = "state"
Action = Literal["created", "updated", "unchanged", "deleted"]


@dataclass(frozen=True, slots=True)
class Held:
    """A resource in force. ``generation`` counts its changes from 1."""

    resource: AnyResource
    revision: str
    generation: int
    created_at: str
    updated_at: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything in force at one moment. ``sequence`` rises with every change."""

    sequence: int
    held: Mapping[Key, Held]
    state: DesiredState

    def get(self, kind: str, name: str) -> Held | None:
        """The resource of that name, or None."""
        return self.held.get((kind, name))


@dataclass(frozen=True, slots=True)
class Change:
    """What shall become of one name: ``resource``, or nothing (a deletion)."""

    kind: str
    name: str
    resource: AnyResource | None


@dataclass(frozen=True, slots=True)
class PastEvent:
    """One line of a resource's history; ``document`` is None for a deletion."""

    sequence: int
    action: str
    revision: str | None
    generation: int
    at: str
    document: dict[str, Any] | None


Decide = Callable[[Snapshot, Mapping[str, tuple[str, ...]]], Sequence[Change]]
"""Given what is in force, and site -> its nodes that are not revoked: what to change. It may refuse by raising."""


def timestamp(moment: datetime) -> str:
    """``moment`` in RFC 3339, UTC, to the microsecond: text that sorts as time does."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Store:
    """The resources of one fleet. Safe for several threads."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._guard = threading.Lock()
        self._cached: Snapshot | None = None

    def snapshot(self) -> Snapshot:
        """What is in force now. O(resources) after a change, else one small query."""
        with self._database.read() as session:
            return self._snapshot(session)

    def change(self, decide: Decide, *, actor: str) -> Snapshot:
        """Let ``decide`` choose changes on the state in force, and bring them into force durably, all or none.

        Returns:
            The snapshot after them.
        """
        with self._database.write() as session:
            before = self._snapshot(session)
            held = dict(before.held)
            sequence = before.sequence
            at = timestamp(self._clock())
            for change in decide(before, _members(session)):
                sequence += self._write(session, held, change, actor, at, sequence + 1)
            if sequence != before.sequence:
                bump(session, STATE)
        if sequence == before.sequence:
            return before
        after = _frozen(sequence, held)
        with self._guard:
            if self._cached is None or self._cached.sequence < sequence:
                self._cached = after
        return after

    def history(self, kind: str, name: str, *, limit: int = 100) -> list[PastEvent]:
        """The last ``limit`` events of a name, oldest first; empty where it never existed."""
        query = (
            select(Event, Content.document)
            .outerjoin(Content, Event.revision == Content.revision)
            .where(Event.kind == kind, Event.name == name)
            .order_by(Event.sequence.desc())
            .limit(limit)
        )
        with self._database.read() as session:
            rows = session.execute(query).all()
        return [
            PastEvent(
                event.sequence,
                event.action,
                event.revision,
                event.generation,
                event.at,
                msgspec.json.decode(document) if document else None,
            )
            for event, document in reversed(rows)
        ]

    def _snapshot(self, session: Session) -> Snapshot:
        sequence = session.scalar(select(func.max(Event.sequence))) or 0
        with self._guard:
            cached = self._cached
        if cached is not None and cached.sequence == sequence:
            return cached
        rows = session.execute(select(Head, Content.document).join(Content, Head.revision == Content.revision)).all()
        held = {(head.kind, head.name): _held(head, document) for head, document in rows}
        found = _frozen(sequence, held)
        with self._guard:
            if self._cached is None or self._cached.sequence < sequence:
                self._cached = found
        return found

    def _write(
        self, session: Session, held: dict[Key, Held], change: Change, actor: str, at: str, sequence: int
    ) -> bool:
        """Write one change as the event of that number; whether it changes anything."""
        key = (change.kind, change.name)
        before = held.get(key)
        revision = None if change.resource is None else revision_of_resource(change.resource)
        if (before.revision if before else None) == revision:
            return False
        generation = self._generation(session, key, before) + 1
        if change.resource is not None and revision is not None:
            created_at = before.created_at if before else at
            held[key] = Held(change.resource, revision, generation, created_at, at)
            _put(session, key, held[key])
        else:
            session.delete(session.get_one(Head, key))
            del held[key]
        event = Event(
            sequence=sequence,  # ours: writers are alone, and a database's own counter leaves gaps
            kind=change.kind,
            name=change.name,
            action="put" if revision else "delete",
            revision=revision,
            generation=generation,
            actor=actor,
            at=at,
        )
        session.add(event)
        session.flush()
        return True

    def _generation(self, session: Session, key: Key, before: Held | None) -> int:
        """The last generation of a name: it goes on after a deletion, so that none comes twice."""
        if before is not None:
            return before.generation
        query = select(func.max(Event.generation)).where(Event.kind == key[0], Event.name == key[1])
        return session.scalar(query) or 0


def _held(head: Head, document: str) -> Held:
    resource = resource_from_document(msgspec.json.decode(document), f"{head.kind}/{head.name}")
    return Held(resource, head.revision, head.generation, head.created_at, head.updated_at)


def _put(session: Session, key: Key, held: Held) -> None:
    """Write what a name holds now; the content only where no name has ever held it."""
    if session.get(Content, held.revision) is None:
        document = canonical_json(to_document(held.resource, with_status=False)).decode()
        session.add(Content(revision=held.revision, document=document))
        session.flush()
    session.merge(
        Head(
            kind=key[0],
            name=key[1],
            revision=held.revision,
            generation=held.generation,
            created_at=held.created_at,
            updated_at=held.updated_at,
        )
    )


def _frozen(sequence: int, held: dict[Key, Held]) -> Snapshot:
    return Snapshot(sequence, MappingProxyType(held), DesiredState.of([item.resource for item in held.values()]))


def _members(session: Session) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for site, node in session.execute(select(Node.site, Node.node).where(Node.revoked_at.is_(None))):
        found[site] = (*found.get(site, ()), node)
    return found
