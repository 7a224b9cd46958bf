"""Impressions, and clicks that refer to them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "shortlist_impressions",
        sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("query_text", sa.Text, nullable=False),
        sa.Column("document_ids", sa.JSON, nullable=False),
        sa.Column("pipeline", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("shown_at", MOMENT, nullable=False),
        sa.Column("features", sa.JSON, nullable=False),
    )
    op.create_index("ix_shortlist_impressions_shown_at", "shortlist_impressions", ["shown_at"])
    op.create_table(
        "shortlist_clicks",
        sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("impression_id", sa.Text, sa.ForeignKey("shortlist_impressions.id"), nullable=False),
        sa.Column("document_id", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("clicked_at", MOMENT, nullable=False),
    )
    op.create_index("ix_shortlist_clicks_impression_id", "shortlist_clicks", ["impression_id"])
    op.create_index("ix_shortlist_clicks_clicked_at", "shortlist_clicks", ["clicked_at"])
