"""The tables of the click log. `index.clicklog.migrations` makes them; a test holds the two together."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

SQLITE, POSTGRESQL = "sqlite", "postgresql"


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: stored in UTC, given back with its time zone, which SQLite would forget."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Convert to UTC."""
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Restore the time zone, UTC whatever the zone of the session."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData()

# SQLite numbers rows by itself only in a column of exactly this type. A number is never used twice, not even that of
# a deleted row (AUTOINCREMENT): a reader that resumes after it would miss the new one.
_SEQUENCE = sa.BigInteger().with_variant(sa.Integer, SQLITE)

impressions = sa.Table(
    "shortlist_impressions",
    metadata,
    sa.Column("seq", _SEQUENCE, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("query_text", sa.Text, nullable=False),
    sa.Column("document_ids", sa.JSON, nullable=False),
    sa.Column("pipeline", sa.Text, nullable=False),
    sa.Column("model_version", sa.Text, nullable=False),
    sa.Column("shown_at", UtcDateTime, nullable=False, index=True),
    sa.Column("features", sa.JSON, nullable=False),
    sa.Column("feature_set", sa.Text, nullable=False, server_default=""),
    sa.Column("session_key", sa.Text),
    sa.Column("user_key", sa.Text),
    sa.Column("layout", sa.Text, nullable=False, server_default="list"),
    sa.Column("source", sa.Text, nullable=False, server_default="served"),
    sa.Column("arms", sa.JSON, nullable=False, server_default="[]"),
    sqlite_autoincrement=True,
)
sa.Index(
    "ix_shortlist_impressions_user_key",
    impressions.c.user_key,
    sqlite_where=impressions.c.user_key.is_not(None),
    postgresql_where=impressions.c.user_key.is_not(None),
)

# No foreign key: an event may come before its impression.
events = sa.Table(
    "shortlist_events",
    metadata,
    sa.Column("seq", _SEQUENCE, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("impression_id", sa.Text, nullable=False, index=True),
    sa.Column("document_id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("position", sa.Integer),
    sa.Column("happened_at", UtcDateTime, nullable=False, index=True),
    sa.Column("value", sa.Double),
    sqlite_autoincrement=True,
)

meta = sa.Table(
    "shortlist_log_meta",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
