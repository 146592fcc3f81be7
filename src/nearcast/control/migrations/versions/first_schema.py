"""The schema of the first release, which had no migrations."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "settings",
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("value", sa.String(), nullable=False),
    )
    op.create_table(
        "contents",
        sa.Column("revision", sa.String(), primary_key=True),
        sa.Column("document", sa.Text(), nullable=False),
    )
    op.create_table(
        "history",
        sa.Column("sequence", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("revision", sa.String(), sa.ForeignKey("contents.revision")),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("at", sa.String(), nullable=False),
    )
    op.create_index("history_of", "history", ["kind", "name"])
    op.create_table(
        "heads",
        sa.Column("kind", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("revision", sa.String(), sa.ForeignKey("contents.revision"), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("updated_at", sa.String(), nullable=False),
    )
    op.create_table(
        "join_tokens",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("secret_sha256", sa.String(), nullable=False),
        sa.Column("site", sa.String(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("expires_at", sa.String(), nullable=False),
        sa.Column("node", sa.String()),
        sa.Column("key_sha256", sa.String()),
    )
    op.create_table(
        "nodes",
        sa.Column("site", sa.String(), primary_key=True),
        sa.Column("node", sa.String(), primary_key=True),
        sa.Column("key_sha256", sa.String(), nullable=False),
        sa.Column("credential_sha256", sa.String(), nullable=False, unique=True),
        sa.Column("certificate_serial", sa.String(), nullable=False),
        sa.Column("certificate_expires_at", sa.String(), nullable=False),
        sa.Column("joined_at", sa.String(), nullable=False),
        sa.Column("revoked_at", sa.String()),
        sa.Column("status", sa.Text()),
        sa.Column("status_at", sa.String()),
    )
    op.create_table(
        "transitions",
        sa.Column("kind", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("type", sa.String(), primary_key=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("since", sa.String(), nullable=False),
    )
