"""Nodes that drain."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"


def upgrade() -> None:
    """Add the table; the release before this one would let drained nodes serve, so it refuses the database."""
    op.create_table(
        "drains",
        sa.Column("site", sa.String(), primary_key=True),
        sa.Column("node", sa.String(), primary_key=True),
        sa.Column("since", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
    )
