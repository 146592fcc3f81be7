"""Who belongs to the fleet: join tokens, nodes, their credentials, and who was shown the door.

Decides: a token admits one node, and the same node again (same key) when its first answer was lost; a name that was
revoked stays closed until its certificate has ended and no connection made with it can stand any more, because plans
deny it by that name; a credential opens only until its node is revoked. Secrets are kept as hashes. Certificates are
made by `authority`.
"""

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from nearcast.control.authority import Issued
from nearcast.control.database import Database, bump
from nearcast.control.store import Clock, timestamp
from nearcast.control.tables import Drain, Event, Head, Node, Report, Token
from nearcast.control.tokens import hashed, matches, new_id, new_secret
from nearcast.errors import Conflict, Forbidden, NotFound, Unauthenticated

MEMBERS: Final = "members"
_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")
CONNECTION_LIFETIME: Final = timedelta(hours=1)
"""Gateways close every connection between sites after that time (`max_connection_duration`)."""


@dataclass(frozen=True, slots=True)
class Member:
    """A node of the fleet, as it was recorded."""

    site: str
    node: str
    key_sha256: str
    certificate_expires_at: str
    joined_at: str
    revoked_at: str | None = None
    draining_since: str | None = None


@dataclass(frozen=True, slots=True)
class NewToken:
    """A join token as it was recorded, with its secret, which can be seen only now."""

    id: str
    secret: str
    site: str
    expires_at: str

    def __repr__(self) -> str:
        """Never shows the secret."""
        return f"NewToken(id={self.id!r}, site={self.site!r}, expires_at={self.expires_at!r})"


def _in_turn(
    method: "Callable[Concatenate[Members, _Given], _Result]",
) -> "Callable[Concatenate[Members, _Given], _Result]":
    """``method`` alone among its like: what two of them wrote is remembered in the order in which it was written.

    Else a drain, written before a revocation and remembered after it, would let the node in again.
    """

    @functools.wraps(method)
    def call(self: "Members", /, *args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        with self._turn:
            return method(self, *args, **kwargs)

    return call


class Members:
    """The nodes of one fleet. Safe for several threads."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._turn = threading.Lock()
        self._guard = threading.Lock()
        self._members: dict[tuple[str, str], Member] = {}
        self._by_credential: dict[str, tuple[str, str]] = {}
        self.reload()

    @_in_turn
    def reload(self) -> bool:
        """Read them again. Returns: whether anything is new."""
        with self._database.read() as session:
            rows = session.scalars(select(Node)).all()
            drains = {(row.site, row.node): row.since for row in session.scalars(select(Drain))}
        members = {
            (row.site, row.node): replace(_member(row), draining_since=drains.get((row.site, row.node))) for row in rows
        }
        by_credential = {row.credential_sha256: (row.site, row.node) for row in rows if row.revoked_at is None}
        with self._guard:
            before = (self._members, self._by_credential)
            self._members, self._by_credential = members, by_credential
        return before != (members, by_credential)

    def all(self) -> tuple[Member, ...]:
        """Every node that ever joined and was not forgotten, revoked ones too, by site and name."""
        with self._guard:
            return tuple(self._members[key] for key in sorted(self._members))

    def of_credential(self, credential: str) -> tuple[str, str] | None:
        """(site, node) that ``credential`` belongs to, or None. Looked up by hash, so its time tells nothing."""
        digest = hashed(credential)
        with self._guard:
            return self._by_credential.get(digest)

    def look_up(self, credential: str) -> tuple[str, str] | None:
        """As :meth:`of_credential`, by the database: another replica may have let the node in a moment ago."""
        query = select(Node.site, Node.node).where(
            Node.credential_sha256 == hashed(credential), Node.revoked_at.is_(None)
        )
        with self._database.read() as session:
            found = session.execute(query).first()
        return None if found is None else (found.site, found.node)

    def revoked(self, now: datetime) -> tuple[tuple[str, str], ...]:
        """(site, node) of every revoked node that could still be taken for one: until its certificate has ended, and
        no connection that was made with it can stand any more."""
        return tuple(
            (member.site, member.node)
            for member in self.all()
            if member.revoked_at and _closed_until(member.certificate_expires_at) > timestamp(now)
        )

    def new_token(self, site: str, ttl_s: float) -> NewToken:
        """Record a join token for ``site``.

        Raises:
            NotFound: there is no such site.
        """
        now = self._clock()
        token = NewToken(new_id(), new_secret(), site, timestamp(now + timedelta(seconds=ttl_s)))
        with self._database.write() as session:
            _require_site(session, site)
            session.add(
                Token(
                    id=token.id,
                    secret_sha256=hashed(token.secret),
                    site=site,
                    created_at=timestamp(now),
                    expires_at=token.expires_at,
                )
            )
        return token

    def revoke_token(self, site: str, token_id: str) -> None:
        """Make a token useless. Raises :class:`NotFound`."""
        with self._database.write() as session:
            row = session.get(Token, token_id)
            if row is None or row.site != site:
                raise NotFound(f"there is no join token {token_id} of {site}")
            session.delete(row)

    def check_token(self, token_id: str, secret: str, node: str, key_sha256: str) -> str:
        """The site that a token admits ``node`` to, when it does. Nothing is used up.

        Raises:
            Unauthenticated: unknown, wrong, expired, or used by another node.
            Conflict: the node's name is taken.
        """
        with self._database.read() as session:
            return self._judge(session, token_id, secret, node, key_sha256).site

    @_in_turn
    def join(self, token_id: str, secret: str, node: str, issued: Issued, credential: str) -> Member:
        """Use the token for ``node``, with the certificate that was made for it. Raises as :meth:`check_token`."""
        now = timestamp(self._clock())
        with self._database.write() as session:
            token = self._judge(session, token_id, secret, node, issued.key_sha256)
            token.node, token.key_sha256 = node, issued.key_sha256
            row = session.get(Node, (token.site, node))
            if row is None:
                row = Node(site=token.site, node=node, joined_at=now)
                session.add(row)
            if row.revoked_at is not None:  # another machine under an old name: what the old one said is void
                row.status, row.status_at, row.revoked_at = None, None, None
                session.execute(delete(Report).where(Report.site == token.site, Report.node == node))
                _end_drain(session, token.site, node)
            row.credential_sha256 = hashed(credential)
            _record(row, issued)
            bump(session, MEMBERS)
            drain = session.get(Drain, (token.site, node))
            member = replace(_member(row), draining_since=drain.since if drain else None)
            digest = row.credential_sha256
        self._remember(member, digest)
        return member

    @_in_turn
    def renew(self, site: str, node: str, issued: Issued) -> None:
        """Record a new certificate. Raises :class:`Forbidden` for a node that was revoked meanwhile."""
        with self._database.write() as session:
            row = session.get(Node, (site, node))
            if row is None or row.revoked_at is not None:
                raise Forbidden(f"node {site}/{node} was revoked")
            _record(row, issued)
            bump(session, MEMBERS)
            member = _member(row)
        with self._guard:
            known = self._members.get((site, node))  # none yet where another replica let it join just now
            self._members[site, node] = replace(member, draining_since=known.draining_since if known else None)

    @_in_turn
    def drain(self, site: str, node: str, actor: str) -> Member:
        """Have a node serve no model until :meth:`undrain`. Durable, and written into the history; twice is fine.

        Raises:
            NotFound: there is no such node, or it was revoked.
        """
        now = timestamp(self._clock())
        with self._database.write() as session:
            member = _require_node(session, site, node)
            held = session.get(Drain, (site, node))
            since = held.since if held else now
            if held is None:
                session.add(Drain(site=site, node=node, since=since, actor=actor))
                _note(session, site, node, "drain", actor, now)
                bump(session, MEMBERS)
        return self._set_draining(member, since)

    @_in_turn
    def undrain(self, site: str, node: str, actor: str) -> Member:
        """Let a node serve again; fine for one that does. Raises :class:`NotFound`."""
        with self._database.write() as session:
            member = _require_node(session, site, node)
            if _end_drain(session, site, node):
                _note(session, site, node, "undrain", actor, timestamp(self._clock()))
                bump(session, MEMBERS)
        return self._set_draining(member, None)

    @_in_turn
    def revoke(self, site: str, node: str, actor: str = "admin") -> None:
        """Shut a node out for good. Raises :class:`NotFound`; revoking twice is fine."""
        with self._database.write() as session:
            row = session.get(Node, (site, node))
            if row is None:
                raise NotFound(f"there is no node {site}/{node}")
            if row.revoked_at is None:
                row.revoked_at = timestamp(self._clock())
                _note(session, site, node, "revoke", actor, row.revoked_at)
            _end_drain(session, site, node)
            bump(session, MEMBERS)
            member, digest = _member(row), row.credential_sha256
        with self._guard:
            self._members[site, node] = member
            self._by_credential.pop(digest, None)

    def statuses(self) -> dict[tuple[str, str], tuple[str, str]]:
        """(site, node) -> (status document, when it came), as they were last written down; revoked nodes left out."""
        query = select(Node.site, Node.node, Node.status, Node.status_at).where(Node.revoked_at.is_(None))
        with self._database.read() as session:
            rows = session.execute(query).all()
        return {(site, node): (status, at) for site, node, status, at in rows if status is not None and at is not None}

    def write_status(self, site: str, node: str, document: str, at: datetime | None = None) -> None:
        """Write down a node's status, which came ``at`` a moment of the clock that replicas share, or now."""
        with self._database.write() as session:
            row = session.get(Node, (site, node))
            if row is not None:
                row.status, row.status_at = document, timestamp(at or self._clock())

    def _set_draining(self, member: Member, since: str | None) -> Member:
        site, node = member.site, member.node
        with self._guard:
            member = self._members[site, node] = replace(member, draining_since=since)
        return member

    def _judge(self, session: Session, token_id: str, secret: str, node: str, key_sha256: str) -> Token:
        row = session.get(Token, token_id)
        hint = "Ask for a new join token for the site."
        if row is None or not matches(secret, row.secret_sha256):
            raise Unauthenticated("the join token is not known here", hint=hint)
        now = timestamp(self._clock())
        if row.expires_at <= now:
            raise Unauthenticated(f"the join token ended at {row.expires_at}", hint=hint)
        if row.key_sha256 is not None and (row.node, row.key_sha256) != (node, key_sha256):
            raise Unauthenticated("the join token was used already, by another node or another key", hint=hint)
        _require_site(session, row.site)
        standing = session.get(Node, (row.site, node))
        if standing is None:
            return row
        until = _closed_until(standing.certificate_expires_at)
        if standing.revoked_at is not None and until > now:
            raise Conflict(
                f"the name {row.site}/{node} was revoked and stays closed until {until}",
                hint="Choose another name with --node.",
            )
        if standing.revoked_at is None and standing.key_sha256 != key_sha256:
            raise Conflict(
                f"node {row.site}/{node} has joined already, with another key",
                hint="Revoke it first, or choose another name with --node.",
            )
        return row

    def _remember(self, member: Member, credential_sha256: str) -> None:
        key = (member.site, member.node)
        with self._guard:
            self._members[key] = member
            for old in [digest for digest, owner in self._by_credential.items() if owner == key]:
                del self._by_credential[old]
            self._by_credential[credential_sha256] = key


def _closed_until(certificate_expires_at: str) -> str:
    """Until when a node that was revoked could still be taken for one."""
    return timestamp(datetime.fromisoformat(certificate_expires_at) + CONNECTION_LIFETIME)


def _record(row: Node, issued: Issued) -> None:
    row.key_sha256 = issued.key_sha256
    row.certificate_serial = issued.serial
    row.certificate_expires_at = timestamp(issued.expires_at)


def _member(row: Node) -> Member:
    return Member(row.site, row.node, row.key_sha256, row.certificate_expires_at, row.joined_at, row.revoked_at)


def _require_node(session: Session, site: str, node: str) -> Member:
    row = session.get(Node, (site, node))
    if row is None or row.revoked_at is not None:
        raise NotFound(f"there is no node {site}/{node}", hint="nearcast get nodes")
    return _member(row)


def _end_drain(session: Session, site: str, node: str) -> bool:
    """Whether there was a drain to end."""
    held = session.get(Drain, (site, node))
    if held is not None:
        session.delete(held)
    return held is not None


def _note(session: Session, site: str, node: str, action: str, actor: str, at: str) -> None:
    """Write a line of the history about a node; it has no content. Its number is ours, as all of them (`store`)."""
    sequence = (session.scalar(select(func.max(Event.sequence))) or 0) + 1
    name = f"{site}/{node}"
    session.add(Event(sequence=sequence, kind="Node", name=name, action=action, generation=0, actor=actor, at=at))


def _require_site(session: Session, site: str) -> None:
    if session.get(Head, ("Site", site)) is None:
        raise NotFound(f"there is no Site/{site}")
