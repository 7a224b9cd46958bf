"""Events of several kinds in place of clicks, free to come before their impression; more about impressions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")
MOMENT = sa.DateTime(timezone=True)
OLD, NEW = "shortlist_impressions", "shortlist_impressions_new"


def upgrade() -> None:
    """Move clicks to events, and give impressions their new columns."""
    op.create_table(
        "shortlist_log_meta",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "shortlist_events",
        sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("impression_id", sa.Text, nullable=False),
        sa.Column("document_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("position", sa.Integer),
        sa.Column("happened_at", MOMENT, nullable=False),
        sa.Column("value", sa.Double),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_shortlist_events_impression_id", "shortlist_events", ["impression_id"])
    op.create_index("ix_shortlist_events_happened_at", "shortlist_events", ["happened_at"])
    op.execute(
        "INSERT INTO shortlist_events (id, impression_id, document_id, kind, position, happened_at) "
        "SELECT id, impression_id, document_id, 'click', position, clicked_at FROM shortlist_clicks ORDER BY seq"
    )
    op.drop_table("shortlist_clicks")
    if op.get_context().dialect.name == "sqlite":
        _rebuild_impressions()
    else:
        for column in _new_columns():
            op.add_column(OLD, column)
    op.create_index(
        "ix_shortlist_impressions_user_key",
        OLD,
        ["user_key"],
        sqlite_where=sa.text("user_key IS NOT NULL"),
        postgresql_where=sa.text("user_key IS NOT NULL"),
    )


def _new_columns() -> list[sa.Column[str]]:
    return [
        sa.Column("feature_set", sa.Text, nullable=False, server_default=""),
        sa.Column("session_key", sa.Text),
        sa.Column("user_key", sa.Text),
        sa.Column("layout", sa.Text, nullable=False, server_default="list"),
        sa.Column("source", sa.Text, nullable=False, server_default="served"),
        sa.Column("arms", sa.JSON, nullable=False, server_default="[]"),
    ]


def _rebuild_impressions() -> None:
    """Copy the table: SQLite cannot make an existing one stop using sequence numbers again."""
    kept = ("seq", "id", "query_text", "document_ids", "pipeline", "model_version", "shown_at", "features")
    op.create_table(
        NEW,
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("query_text", sa.Text, nullable=False),
        sa.Column("document_ids", sa.JSON, nullable=False),
        sa.Column("pipeline", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("shown_at", MOMENT, nullable=False),
        sa.Column("features", sa.JSON, nullable=False),
        *_new_columns(),
        sqlite_autoincrement=True,
    )
    op.execute(f"INSERT INTO {NEW} ({', '.join(kept)}) SELECT {', '.join(kept)} FROM {OLD} ORDER BY seq")
    op.drop_table(OLD)
    op.rename_table(NEW, OLD)
    op.create_index("ix_shortlist_impressions_shown_at", OLD, ["shown_at"])
