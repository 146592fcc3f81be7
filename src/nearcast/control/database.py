"""Connections and transactions. What a write transaction has returned from survives ``kill -9`` and a power cut.

SQLite runs with a write-ahead log and ``synchronous=FULL``. Writes are serialised in this process by a lock, and
between processes by ``BEGIN IMMEDIATE``, so that a decision made inside a write transaction rests on what is in force.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session

from nearcast.control.tables import Setting, Table
from nearcast.errors import Conflict, IntegrityError, Unavailable

SCHEMA_VERSION: Final = "1"
BUSY_TIMEOUT_MS: Final = 5000


class Database:
    """One database. Safe for several threads.

    Args:
        url: SQLAlchemy URL.

    Raises:
        Conflict: it was written by a newer nearcast.
        IntegrityError: it is damaged, or no database.
        Unavailable: it cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url)
        self._writer = self._engine.execution_options(nearcast_writes=True)
        self._lock = threading.Lock()
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _open_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        with self.write() as session:
            Table.metadata.create_all(session.connection())
            found = session.get(Setting, "schema")
            if found is None:
                session.add(Setting(key="schema", value=SCHEMA_VERSION))
            elif found.value != SCHEMA_VERSION:
                raise Conflict(
                    f"expected a database of schema {SCHEMA_VERSION}, got {found.value}", hint="Use a newer nearcast."
                )

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that sees one moment and writes nothing."""
        with _translated(), Session(self._engine, autoflush=False, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction, alone among writers. Leaving it commits durably; an exception undoes all of it."""
        with self._lock, _translated(), Session(self._writer, expire_on_commit=False) as session, session.begin():
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

    def ping(self) -> None:
        """Raises :class:`Unavailable` where the database does not answer."""
        with self.read() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        """Give back all connections."""
        self._engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    """Trouble with the database is :class:`Unavailable`: a retry may help, another request will not. Damage is not."""
    try:
        yield
    except OperationalError as error:
        raise Unavailable(f"the database does not answer: {error.orig}", retry_after_s=1.0) from error
    except DatabaseError as error:
        if type(error) is not DatabaseError:
            raise  # a constraint or a wrong statement: ours
        raise IntegrityError(f"the database is damaged: {error.orig}", hint="Restore it from a backup.") from error


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
