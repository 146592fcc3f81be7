"""Databases of any release become one of this release, with their data, once; one of a newer release is refused."""

import threading
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData, create_engine, inspect, text

from nearcast.control.database import Database
from nearcast.control.migrations import FIRST, scripts
from nearcast.control.tables import Table
from nearcast.errors import Conflict

pytestmark = pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
LATER = {"decisions", "drains", "counters", "reports", "leadership", "publications"}


@pytest.fixture
def url(database: str | None, tmp_path: Path) -> str:
    return database or f"sqlite:///{tmp_path / 'control.db'}"


def engine_of(url: str) -> Any:
    return create_engine(url.replace("postgresql:", "postgresql+psycopg:"))


def first_release(url: str) -> None:
    """A database as the first release made it, with a site in it."""
    engine = engine_of(url)
    tables = [table for name, table in Table.metadata.tables.items() if name not in LATER]
    MetaData.create_all(Table.metadata, engine, tables=tables)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO settings VALUES ('schema', '1'), ('fleet', 'old.test')"))
        connection.execute(text("INSERT INTO contents VALUES ('sha256:1', '{}')"))
    engine.dispose()


def test_migrations_lead_to_what_the_tables_say(url: str) -> None:
    Database(url).close()
    engine = engine_of(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []
        assert context.get_current_revision() == scripts().get_current_head()
    engine.dispose()


def test_a_database_of_the_first_release_is_taken_over_with_its_data(url: str) -> None:
    first_release(url)
    database = Database(url)
    assert database.setting("fleet") == "old.test"
    assert database.setting("schema") == "2"  # which the first release refuses to open
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM contents")) == 1
    database.close()
    engine = engine_of(url)
    assert set(inspect(engine).get_table_names()) >= LATER
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
    engine.dispose()


def test_two_that_start_at_once_migrate_once(url: str) -> None:
    first_release(url)
    started: list[int] = []

    def start() -> None:
        Database(url).close()
        started.append(1)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(started) == 4


def test_a_database_from_the_future_is_refused_and_left_alone(url: str) -> None:
    Database(url).close()
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match="got 9999"):
        Database(url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
    engine.dispose()


def test_a_migration_that_fails_changes_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first_release(url)
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE publications (site TEXT)"))  # in the way of the second revision
    with pytest.raises(Exception, match="publications"):
        Database(url)
    tables = set(inspect(engine).get_table_names())
    assert "counters" not in tables
    assert "alembic_version" not in tables
    assert FIRST == "0001"
    engine.dispose()
