"""Connections and transactions. What a write transaction has returned from survives ``kill -9`` and a power cut.

Writers are alone, so that a decision made inside a write transaction rests on what is in force: in this process by a
lock; between processes by ``BEGIN IMMEDIATE`` in SQLite, by an advisory lock of the transaction in PostgreSQL. A
replica that stops in the middle loses its transaction to the server's timeout, and holds nobody up for longer.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import ArgumentError, DatabaseError, DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from nearcast.control import migrations
from nearcast.control.tables import Counter, Setting
from nearcast.errors import IntegrityError, InvalidInput, Unavailable

log = logging.getLogger(__name__)

BUSY_TIMEOUT_MS: Final = 5000
POSTGRESQL: Final = "postgresql"
CONNECTIONS: Final = 8
WRITER_LOCK: Final = 7_643_001
"""Key of PostgreSQL's advisory lock that makes writers wait for one another."""
_SERVER_SETTINGS: Final = {
    "application_name": "nearcast-control",
    "lock_timeout": "10s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "10s",
    "synchronous_commit": "on",
}


class Database:
    """One database. Safe for several threads; in PostgreSQL also for several control planes.

    Args:
        url: ``sqlite:///PATH`` or ``postgresql://USER@HOST/NAME``.

    Raises:
        Conflict: it was written by a newer nearcast.
        IntegrityError: it is damaged, or no database.
        InvalidInput: no such URL.
        Unavailable: it cannot be opened.
    """

    def __init__(self, url: str) -> None:
        parsed = _parsed(url)
        self.is_shared = parsed.get_backend_name() == POSTGRESQL
        # Without what follows "?": there may be a password, too, which SQLAlchemy would show.
        self._where = parsed.set(query={}).render_as_string(hide_password=True)
        if self.is_shared:
            self._open_postgresql(parsed)
        else:
            self._open_sqlite(parsed)
        self._lock = threading.Lock()
        try:
            with self.write() as session:
                before, now = migrations.upgrade(session.connection())
        except BaseException:
            self.close()
            raise
        if before != now:
            log.info("database %s: schema %s, before that %s", self._where, now, before or "none")

    def _open_sqlite(self, url: URL) -> None:
        self._engine = self._reader = create_engine(url)
        self._writer = self._engine.execution_options(nearcast_writes=True)
        event.listen(self._engine, "connect", _open_sqlite)
        event.listen(self._engine, "begin", _begin_sqlite)

    def _open_postgresql(self, url: URL) -> None:
        options = " ".join(f"-c {name}={value}" for name, value in _SERVER_SETTINGS.items())
        self._engine = create_engine(
            url,
            pool_pre_ping=True,
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=10,
            connect_args={
                "connect_timeout": 10,
                "options": options,
                "keepalives_idle": 5,
                "keepalives_interval": 2,
                "keepalives_count": 3,
            },
        )
        self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        # Not REPEATABLE READ: such a transaction sees the moment before it waited for the writer in front of it.
        self._writer = self._engine.execution_options(isolation_level="READ COMMITTED")

    @property
    def engine(self) -> Engine:
        """What runs statements; for those who watch them."""
        return self._engine

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that sees one moment and writes nothing."""
        with self._translated(), Session(self._reader, autoflush=False, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction, alone among writers. Leaving it commits durably; an exception undoes all of it."""
        with self._lock, self._translated(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            if self.is_shared:
                session.execute(select(func.pg_advisory_xact_lock(WRITER_LOCK)))
            yield session

    def setting(self, key: str) -> str | None:
        """A fact about this control plane, or None."""
        with self.read() as session:
            found = session.get(Setting, key)
            return found.value if found else None

    def set_setting(self, key: str, value: str) -> None:
        """Write such a fact."""
        with self.write() as session:
            session.merge(Setting(key=key, value=value))

    def counters(self) -> dict[str, int]:
        """How often each thing changed that replicas tell one another of."""
        with self.read() as session:
            return {row.name: row.value for row in session.scalars(select(Counter))}

    def now_s(self, session: Session) -> float:
        """The time in seconds by the clock that all replicas share: the database's."""
        if self.is_shared:
            return float(session.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0.0)
        return time.time()

    def now(self) -> datetime:
        """The moment by that clock."""
        with self.read() as session:
            return datetime.fromtimestamp(self.now_s(session), UTC)

    def ping(self) -> None:
        """Raises :class:`Unavailable` where the database does not answer."""
        with self.read() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        """Give back all connections."""
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Trouble with the database is :class:`Unavailable`: a retry may help, another request will not. Damage is not.

        What the driver says never holds the password; the URL in our message does not either.
        """
        try:
            yield
        except DataError as error:
            raise InvalidInput(f"the database cannot hold such a text: {_said(error)}") from error
        except (OperationalError, InterfaceError) as error:
            raise Unavailable(
                f"the database {self._where} does not answer: {_said(error)}", retry_after_s=1.0
            ) from error
        except DatabaseError as error:
            if error.connection_invalidated:
                raise Unavailable(f"the database {self._where} hung up: {_said(error)}", retry_after_s=1.0) from error
            if type(error) is not DatabaseError:
                raise  # a constraint or a wrong statement: ours
            raise IntegrityError(
                f"the database {self._where} is damaged: {error.orig}", hint="Restore it from a backup."
            ) from error


def bump(session: Session, name: str) -> int:
    """Count a change of ``name``, inside a write transaction: its new count."""
    row = session.get(Counter, name)
    if row is None:
        row = Counter(name=name, value=0)
        session.add(row)
    row.value += 1
    session.flush()
    return row.value


def _parsed(url: str) -> URL:
    """The URL with our driver in it.

    Raises:
        InvalidInput: it is none, or of a database that we do not speak. The message never holds a password.
    """
    hint = "postgresql://USER:PASSWORD@HOST/NAME, better in the environment: NEARCAST_DATABASE"
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidInput("expected the URL of a database, got something else", hint=hint) from error
    if parsed.drivername in {"postgres", POSTGRESQL, f"{POSTGRESQL}+psycopg"}:
        return parsed.set(drivername=f"{POSTGRESQL}+psycopg")
    if parsed.drivername == "sqlite":
        return parsed
    raise InvalidInput(f"expected a database of SQLite or PostgreSQL, got {parsed.drivername!r}", hint=hint)


def _said(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())[:300]


def _open_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by _begin_sqlite, not guessed by the driver
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("nearcast_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
