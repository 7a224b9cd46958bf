"""Transactions on a click log's database: who waits for whom, what is tried again, and errors in our words."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from index.clicklog.connection import WRITES
from index.clicklog.migrations import migrate
from index.clicklog.schema import POSTGRESQL
from rankers.errors import WorkerError

T = TypeVar("T")

ATTEMPTS = 3
DEADLOCK, SERIALIZATION_FAILURE = "40P01", "40001"
_ADDING = 0x5307716  # any number that other users of the database do not lock


class Database:
    """Runs transactions in a database that has the tables, which the first one makes or upgrades.

    Parameters
    ----------
    engine
        As `index.clicklog.connection.open_engine` makes it.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(**{WRITES: True})
        self._is_postgresql = engine.dialect.name == POSTGRESQL
        # SQLite has one writer at a time, and its own way of waiting is to look again after up to 0.1 s.
        self._turn: AbstractContextManager[Any] = nullcontext() if self._is_postgresql else threading.Lock()
        self._revision = ""

    @property
    def revision(self) -> str:
        """Version of the tables; empty before the first transaction."""
        return self._revision

    @property
    def parallel_writers(self) -> int:
        """How many transactions that write make sense at a time: in PostgreSQL, one can work while another commits."""
        return 2 if self._is_postgresql else 1

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Do something in a transaction, which is on disk when this returns.

        Parameters
        ----------
        work
            Called up to three times if the connection broke, or the database ended a deadlock by taking this
            transaction back; so doing it again must be harmless.

        Returns
        -------
        T
            What `work` gave.

        Raises
        ------
        WorkerError
            If the database fails.
        """
        with self._errors():
            for _ in range(ATTEMPTS - 1):
                try:
                    return self._write_once(work)
                except DBAPIError as error:
                    if not _is_passing(error):
                        raise
            return self._write_once(work)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Open a transaction that only reads."""
        with self._errors():
            self._prepare()
            with self._engine.begin() as connection:
                yield connection

    def before_adding(self, connection: sa.Connection) -> None:
        """Tell `last` about a transaction that is going to add rows."""
        if self._is_postgresql:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(_ADDING)))

    def last(self, table: sa.Table) -> int:
        """The sequence number up to which every row is visible, for good.

        PostgreSQL gives numbers out before it commits, so a row can turn up below one that is there already. Waiting
        for the transactions that add rows, and holding new ones up for that moment, leaves no such row. SQLite has
        none: its writers come one after the other.
        """
        with self.read() as connection:
            if self._is_postgresql:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADDING)))
            return connection.scalar(sa.select(sa.func.max(table.c.seq))) or 0

    def forget(self) -> None:
        """Take what was deleted out of SQLite's write-ahead log too, if no other connection is reading just now."""
        if self._is_postgresql:
            return
        with self._errors():
            connection = self._engine.raw_connection()
            try:
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                connection.close()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _write_once(self, work: Callable[[sa.Connection], T]) -> T:
        self._prepare()
        with self._turn, self._writer.begin() as connection:
            return work(connection)

    def _prepare(self) -> None:
        if not self._revision:
            with self._turn, self._writer.begin() as connection:
                self._revision = migrate(connection)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            url = self._engine.url.render_as_string(hide_password=True)
            raise WorkerError(f"the click log at {url} failed: {error.__cause__ or error}") from error


def _is_passing(error: DBAPIError) -> bool:
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) in {DEADLOCK, SERIALIZATION_FAILURE}
