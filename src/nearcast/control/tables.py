"""The tables of the control plane. Columns and keys only; what they mean is decided by those who write them.

What stands here is what `migrations` lead to: a test compares the two on every database. History is append-only:
`contents` holds every document once, by its hash, and `history` says which was in force when.
Times are RFC 3339 text in UTC, which every database orders alike.
"""

from sqlalchemy import BigInteger, Double, ForeignKey, Index, LargeBinary, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Table(DeclarativeBase):
    """What all tables share."""


class Setting(Table):
    """Facts about this control plane: schema, fleet, port."""

    __tablename__ = "settings"
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class Content(Table):
    """A document by the hash of its content. Never changed, never deleted."""

    __tablename__ = "contents"
    revision: Mapped[str] = mapped_column(primary_key=True)
    document: Mapped[str] = mapped_column(Text)


class Event(Table):
    """One change of one resource: ``put`` with its content, or ``delete``. Never changed, never deleted."""

    __tablename__ = "history"
    __table_args__ = (Index("history_of", "kind", "name"),)
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    kind: Mapped[str]
    name: Mapped[str]
    action: Mapped[str]
    revision: Mapped[str | None] = mapped_column(ForeignKey("contents.revision"))
    generation: Mapped[int]
    actor: Mapped[str]
    at: Mapped[str]


class Head(Table):
    """The content in force of each resource."""

    __tablename__ = "heads"
    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[str] = mapped_column(ForeignKey("contents.revision"))
    generation: Mapped[int]
    created_at: Mapped[str]
    updated_at: Mapped[str]


class Token(Table):
    """A join token. The secret is kept as a hash; ``node`` and ``key_sha256`` are who used it."""

    __tablename__ = "join_tokens"
    id: Mapped[str] = mapped_column(primary_key=True)
    secret_sha256: Mapped[str]
    site: Mapped[str]
    created_at: Mapped[str]
    expires_at: Mapped[str]
    node: Mapped[str | None]
    key_sha256: Mapped[str | None]


class Node(Table):
    """A node that joined. ``revoked_at`` is set for good: its name comes back only after its certificate ended."""

    __tablename__ = "nodes"
    site: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str] = mapped_column(primary_key=True)
    key_sha256: Mapped[str]
    credential_sha256: Mapped[str] = mapped_column(unique=True)
    certificate_serial: Mapped[str]
    certificate_expires_at: Mapped[str]
    joined_at: Mapped[str]
    revoked_at: Mapped[str | None]
    status: Mapped[str | None] = mapped_column(Text)
    status_at: Mapped[str | None]


class Drain(Table):
    """A node that shall serve no model, since when, and who asked for it."""

    __tablename__ = "drains"
    site: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[str]
    actor: Mapped[str]


class Transition(Table):
    """Since when a condition has had its status."""

    __tablename__ = "transitions"
    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    type: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str]
    since: Mapped[str]


class Counter(Table):
    """How often something changed, so that replicas see at a glance what to read again."""

    __tablename__ = "counters"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class Report(Table):
    """The last word of a node, for the replicas that it did not call. ``beat`` rises with every row written."""

    __tablename__ = "reports"
    __table_args__ = (Index("reports_by_beat", "beat"),)
    site: Mapped[str] = mapped_column(primary_key=True)
    node: Mapped[str] = mapped_column(primary_key=True)
    beat: Mapped[int] = mapped_column(BigInteger)
    seen_at: Mapped[str]
    document: Mapped[str | None] = mapped_column(Text)


class Leadership(Table):
    """The one row that says who publishes, in which term, until when (seconds by the database's clock)."""

    __tablename__ = "leadership"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    term: Mapped[int] = mapped_column(BigInteger)
    holder: Mapped[str]
    expires_s: Mapped[float] = mapped_column(Double)
    version: Mapped[int] = mapped_column(BigInteger)


class Publication(Table):
    """What a leader was about to publish to a site (``done`` false), or has published."""

    __tablename__ = "publications"
    site: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)
    term: Mapped[int] = mapped_column(BigInteger)
    done: Mapped[bool]


class Decision(Table):
    """What the planner decided: the guidance that came into force, and the record (packed) that repeats it."""

    __tablename__ = "decisions"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)
    guidance: Mapped[str] = mapped_column(Text)
    record: Mapped[bytes] = mapped_column(LargeBinary)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
