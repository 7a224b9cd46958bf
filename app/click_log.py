"""Impressions and clicks in a database: SQLite in a file, or PostgreSQL for several machines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Dialect, Row
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy.types import TypeDecorator

from rankers.errors import ConfigError, InvalidInputError, MissingExtraError, NotFoundError, WorkerError
from rankers.events import Click, Impression

SQLITE, POSTGRESQL = "sqlite", "postgresql"
SCHEMA_LOCK = 0x5307715  # any number that other users of the database do not lock
ROWS_PER_FETCH = 1000


class _UtcDateTime(TypeDecorator[datetime]):
    """A moment: stored in UTC, given back with its time zone, which SQLite would forget."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Convert to UTC."""
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Restore the time zone."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def open_click_log(url: str) -> SqlClickLog:
    """Prepare a click log; the database is reached for with the first call.

    Parameters
    ----------
    url
        ``sqlite:///FILE`` or ``postgresql+psycopg://USER:PASSWORD@HOST/DATABASE``. Folder and tables are made when
        missing.

    Returns
    -------
    SqlClickLog
        Ready to use.

    Raises
    ------
    ConfigError
        If the URL cannot be used.
    MissingExtraError
        If the driver is not installed.
    """
    return SqlClickLog(_connect(url))


class SqlClickLog:
    """A `rankers.events.ClickLog` in a database that SQLAlchemy speaks to.

    A call returns when the transaction is on disk: SQLite runs with a write-ahead log and a sync per commit, PostgreSQL
    commits synchronously unless its server was told otherwise. Safe to call from several threads and processes.

    Parameters
    ----------
    engine
        SQLite or PostgreSQL; see `open_click_log`.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._metadata = sa.MetaData()
        self._has_tables = False
        # SQLite numbers rows by itself only in a column of exactly this type.
        sequence = sa.BigInteger().with_variant(sa.Integer, SQLITE)
        self._impressions = sa.Table(
            "shortlist_impressions",
            self._metadata,
            sa.Column("seq", sequence, primary_key=True, autoincrement=True),
            sa.Column("id", sa.Text, nullable=False, unique=True),
            sa.Column("query_text", sa.Text, nullable=False),
            sa.Column("document_ids", sa.JSON, nullable=False),
            sa.Column("pipeline", sa.Text, nullable=False),
            sa.Column("model_version", sa.Text, nullable=False),
            sa.Column("shown_at", _UtcDateTime, nullable=False, index=True),
            sa.Column("features", sa.JSON, nullable=False),
        )
        self._clicks = sa.Table(
            "shortlist_clicks",
            self._metadata,
            sa.Column("seq", sequence, primary_key=True, autoincrement=True),
            sa.Column("id", sa.Text, nullable=False, unique=True),
            sa.Column("impression_id", sa.ForeignKey(self._impressions.c.id), nullable=False, index=True),
            sa.Column("document_id", sa.Text, nullable=False),
            sa.Column("position", sa.Integer, nullable=False),
            sa.Column("clicked_at", _UtcDateTime, nullable=False, index=True),
        )

    def add_impressions(self, impressions: Sequence[Impression]) -> int:
        """Store impressions in one transaction.

        Parameters
        ----------
        impressions
            Any number; ones whose id is known are skipped.

        Returns
        -------
        int
            How many were new.

        Raises
        ------
        InvalidInputError
            If a time has no zone, or a feature is not a finite number.
        WorkerError
            If the database fails; then none was stored.
        """
        rows = [
            {
                "id": impression.id,
                "query_text": _storable(impression.query_text),
                "document_ids": list(impression.document_ids),
                "pipeline": impression.pipeline,
                "model_version": impression.model_version,
                "shown_at": _with_zone(impression.shown_at),
                "features": _finite(impression.features),
            }
            for impression in impressions
        ]
        return self._insert(self._impressions, rows)

    def add_clicks(self, clicks: Sequence[Click]) -> int:
        """Store clicks in one transaction: all of them, or on an error none.

        Parameters
        ----------
        clicks
            Any number; ones whose id is known are skipped.

        Returns
        -------
        int
            How many were new.

        Raises
        ------
        NotFoundError
            If an impression is not known.
        InvalidInputError
            If a time has no zone.
        WorkerError
            If the database fails; then none was stored.
        """
        rows = [
            {
                "id": click.id,
                "impression_id": click.impression_id,
                "document_id": click.document_id,
                "position": click.position,
                "clicked_at": _with_zone(click.clicked_at),
            }
            for click in clicks
        ]
        return self._insert(self._clicks, rows)

    def impression(self, impression_id: str) -> Impression | None:
        """Look one impression up."""
        found = self.find_impressions([impression_id])
        return found.get(impression_id)

    def find_impressions(self, impression_ids: Sequence[str]) -> dict[str, Impression]:
        """Look impressions up; unknown ids are absent from the result."""
        query = sa.select(self._impressions).where(self._impressions.c.id.in_(list(impression_ids)))
        return {row.id: _impression(row) for row in self._rows(query)}

    def impressions(self) -> Iterator[Impression]:
        """All impressions, oldest first."""
        order = (self._impressions.c.shown_at, self._impressions.c.seq)
        return map(_impression, self._rows(sa.select(self._impressions).order_by(*order)))

    def clicks(self) -> Iterator[Click]:
        """All clicks, oldest first."""
        order = (self._clicks.c.clicked_at, self._clicks.c.seq)
        return map(_click, self._rows(sa.select(self._clicks).order_by(*order)))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _insert(self, table: sa.Table, rows: list[dict[str, Any]]) -> int:
        if not rows:
            return 0
        insert = postgresql.insert if self._engine.dialect.name == POSTGRESQL else sqlite.insert
        statement = insert(table).on_conflict_do_nothing(index_elements=["id"]).returning(table.c.id)
        with self._transaction() as connection:
            return len(connection.execute(statement, rows).all())

    def _rows(self, query: sa.Select[Any]) -> Iterator[Row[Any]]:
        with self._transaction() as connection:
            yield from connection.execution_options(yield_per=ROWS_PER_FETCH).execute(query)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Open a transaction, in a database that has the tables; its errors become ours."""
        try:
            if not self._has_tables:
                self._create_tables()
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError as error:
            raise NotFoundError("a click names an impression that is not in the click log") from error
        except SQLAlchemyError as error:
            url = self._engine.url.render_as_string(hide_password=True)
            raise WorkerError(f"the click log at {url} failed: {error.__cause__ or error}") from error

    def _create_tables(self) -> None:
        with self._engine.begin() as connection:
            if self._engine.dialect.name == POSTGRESQL:  # two services that start together must not both create
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(SCHEMA_LOCK)))
            for table in self._metadata.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))
                for index in table.indexes:
                    connection.execute(CreateIndex(index, if_not_exists=True))
        self._has_tables = True


def _connect(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigError(f"click log URL {url!r} cannot be read: {error}") from error
    if backend not in {SQLITE, POSTGRESQL}:
        raise ConfigError(f"click log URL starts with {backend!r}; use sqlite:///FILE or postgresql+psycopg://...")
    try:
        if backend == POSTGRESQL:
            return sa.create_engine(parsed, pool_pre_ping=True)
        _make_folder(parsed)
        engine = sa.create_engine(parsed, connect_args={"timeout": 30})
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or parsed.drivername, extra="postgres") from error
    sa.event.listen(engine, "connect", _make_durable)
    return engine


def _make_folder(url: URL) -> None:
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)


def _make_durable(connection: Any, _record: object) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _with_zone(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise InvalidInputError(f"{moment.isoformat()} has no time zone; give one, such as {moment.isoformat()}Z")
    return moment


def _finite(features: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Copy features for JSON, which has no way to write NaN or an infinity."""
    for document_id, values in features.items():
        for name, value in values.items():
            if not math.isfinite(value):
                raise InvalidInputError(f"feature {name!r} of document {document_id!r} is {value}, must be finite")
    return {document_id: dict(values) for document_id, values in features.items()}


def _storable(text: str) -> str:
    """Replace the one character that PostgreSQL cannot store."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _impression(row: Row[Any]) -> Impression:
    return Impression(
        id=row.id,
        query_text=row.query_text,
        document_ids=tuple(row.document_ids),
        pipeline=row.pipeline,
        model_version=row.model_version,
        shown_at=row.shown_at,
        features=row.features,
    )


def _click(row: Row[Any]) -> Click:
    return Click(
        id=row.id,
        impression_id=row.impression_id,
        document_id=row.document_id,
        position=row.position,
        clicked_at=row.clicked_at,
    )
