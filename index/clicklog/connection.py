"""From a URL to an engine whose transactions are on disk when they end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from index.clicklog.schema import POSTGRESQL, SQLITE
from rankers.errors import ConfigError, MissingExtraError

WRITES = "shortlist_writes"
"""Execution option: the transaction is going to write."""
BUSY_TIMEOUT_S = 30
CONNECT_TIMEOUT_S = 5
PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",  # a sync per commit; the default in WAL mode syncs only at checkpoints
    "secure_delete = ON",  # what is deleted is overwritten
)


def open_engine(url: str) -> sa.Engine:
    """Prepare connections to a click log; the first is made when it is needed.

    Parameters
    ----------
    url
        ``sqlite:///FILE`` or ``postgresql+psycopg://USER:PASSWORD@HOST/DATABASE``. A missing folder is made.

    Returns
    -------
    sa.Engine
        For SQLite with a write-ahead log and a sync per commit. PostgreSQL commits synchronously unless its server was
        told otherwise.

    Raises
    ------
    ConfigError
        If the URL cannot be used.
    MissingExtraError
        If the driver is not installed.
    """
    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigError(f"click log URL {url!r} cannot be read: {error}") from error
    if backend not in {SQLITE, POSTGRESQL}:
        raise ConfigError(f"click log URL starts with {backend!r}; use sqlite:///FILE or postgresql+psycopg://...")
    try:
        return _sqlite(parsed) if backend == SQLITE else _postgresql(parsed)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or parsed.drivername, extra="postgres") from error


def _postgresql(url: URL) -> sa.Engine:
    timeout = {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_TIMEOUT_S}
    return sa.create_engine(url, pool_pre_ping=True, connect_args=timeout)


def _sqlite(url: URL) -> sa.Engine:
    connect_args: dict[str, Any] = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(url, connect_args=connect_args)
    else:  # the database lives as long as its one connection, for which threads take turns
        pool = {"poolclass": sa.QueuePool, "pool_size": 1, "max_overflow": 0}
        engine = sa.create_engine(url, connect_args=connect_args, **pool)
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver would begin transactions too late, and none for a migration
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    # A transaction that first reads and then wants to write would fail if another wrote in between.
    writes = connection.get_execution_options().get(WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
