"""What replicas of the control plane share: who leads, what is being published, what nodes last said."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"


def upgrade() -> None:
    """Add the tables; the release before this one refuses the database from now on."""
    op.create_table(
        "counters",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("value", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "reports",
        sa.Column("site", sa.String(), primary_key=True),
        sa.Column("node", sa.String(), primary_key=True),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.String(), nullable=False),
        sa.Column("document", sa.Text()),
    )
    op.create_index("reports_by_beat", "reports", ["beat"])
    op.create_table(
        "leadership",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("expires_s", sa.Double(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "publications",
        sa.Column("site", sa.String(), primary_key=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("term", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
    )
    settings = sa.table("settings", sa.column("key"), sa.column("value"))
    connection = op.get_bind()
    connection.execute(sa.delete(settings).where(settings.c.key == "schema"))
    connection.execute(sa.insert(settings).values(key="schema", value="2"))
