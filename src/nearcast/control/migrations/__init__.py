"""How a database of any release becomes one of this release: Alembic revisions, the first schema on.

Decides the order (`versions`), when they run (at every start, under a lock, all or none), and which database is
refused. A schema is never taken back: a backup is made before an upgrade.
"""

from pathlib import Path
from typing import Any, Final

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from nearcast.errors import Conflict

FIRST: Final = "0001"
FIRST_SCHEMA: Final = "1"
"""What the release before migrations wrote down of itself, in ``settings``."""


def scripts() -> ScriptDirectory:
    """The revisions that this release knows."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


def upgrade(connection: Connection) -> tuple[str | None, str]:
    """Bring the database to the newest schema, inside the caller's transaction.

    Returns:
        The revision that it had (None: it was empty), and the one that it has now.

    Raises:
        Conflict: it was written by a newer nearcast.
    """
    known = scripts()
    head = known.get_current_head() or FIRST
    found = MigrationContext.configure(connection).get_current_revision()
    if found is None and inspect(connection).has_table("settings"):
        _require_first(connection)
        _run(connection, known, FIRST, stamp=True)
        found = FIRST
    if found is not None and found not in {script.revision for script in known.walk_revisions()}:
        raise Conflict(
            f"expected a database of schema {head} or older, got {found}", hint="Use the nearcast that wrote it."
        )
    if found != head:
        _run(connection, known, head)
    return found, head


def _require_first(connection: Connection) -> None:
    """A database without a revision is one of the first release."""
    schema = connection.scalar(text("SELECT value FROM settings WHERE key = 'schema'"))
    if schema != FIRST_SCHEMA:
        raise Conflict(
            f"expected a database of schema {FIRST_SCHEMA}, got {schema}", hint="Use the nearcast that wrote it."
        )


def _run(connection: Connection, known: ScriptDirectory, revision: str, *, stamp: bool = False) -> None:
    def steps(current: Any, _context: MigrationContext) -> Any:
        return known._stamp_revs(revision, current) if stamp else known._upgrade_revs(revision, current)

    config = Config()
    with EnvironmentContext(config, known, fn=steps, destination_rev=revision) as environment:
        environment.configure(connection=connection, transactional_ddl=True)
        environment.run_migrations()
