"""Many rows in, and a lookup of many, each as one call of the database.

Python's SQLite driver gives the interpreter's lock away and takes it back for every step of a statement. Beside a busy
event loop each of those can wait for 5 ms: `executemany` of 500 rows took 4 ms alone, and 52 ms with such a neighbour.
So many rows go in with one statement, and what is looked up comes back as one. In PostgreSQL a call is one round trip.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache, lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from index.clicklog.schema import POSTGRESQL, UtcDateTime, impressions

ROWS_PER_STATEMENT = 500
"""For SQLite; a row has up to 13 values, and a statement at most 32,766."""


class KnownIdError(Exception):
    """A row that was said to be new is in the table already; the transaction is of no more use."""


def insert_rows(
    connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, all_new: bool = False
) -> int:
    """Insert rows whose `id`, or `key`, is not in the table yet.

    Parameters
    ----------
    connection
        In a transaction.
    table
        One of `index.clicklog.schema`.
    rows
        A value per column but `seq`, as `index.clicklog.rows` makes them.
    all_new
        Expect no row to be there: PostgreSQL then takes them in with COPY, in two thirds of the time.

    Returns
    -------
    int
        How many were new.

    Raises
    ------
    KnownIdError
        If `all_new` was wrong.
    """
    if not rows:
        return 0
    if connection.dialect.name != POSTGRESQL:
        return _insert_into_sqlite(connection, table, rows)
    if all_new:
        _copy(connection, table, rows)
        return len(rows)
    return connection.execute(_insert_recordset(table), {"rows": [_for_json(row) for row in rows]}).rowcount


def find_document_ids(connection: sa.Connection, impression_ids: Sequence[str]) -> dict[str, list[str]]:
    """Look up what was shown, in order, for those of many impressions that are known.

    Parameters
    ----------
    connection
        In a transaction.
    impression_ids
        Any number.

    Returns
    -------
    dict
        Document ids by impression id.
    """
    if not impression_ids:
        return {}
    query = _lookup(connection.dialect.name)
    found = connection.execute(query, {"ids": list(impression_ids)}).scalar_one()
    return dict(found or {})


def _insert_into_sqlite(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> int:
    columns = [(column.name, _sqlite_form(column)) for column in _columns(table)]
    added = 0
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        chunk = rows[start : start + ROWS_PER_STATEMENT]
        values = tuple(form(row[name]) if form else row[name] for row in chunk for name, form in columns)
        added += connection.exec_driver_sql(_insert_values(table, len(chunk)), values).rowcount
    return added


def _copy(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """SQLAlchemy has no COPY, so errors of the driver are made SQLAlchemy's here."""
    import psycopg

    columns = [(column.name, json.dumps if isinstance(column.type, sa.JSON) else None) for column in _columns(table)]
    statement = f"COPY {table.name} ({', '.join(name for name, _ in columns)}) FROM STDIN"
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    try:
        with driver.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            for row in rows:
                copy.write_row([form(row[name]) if form else row[name] for name, form in columns])
    except psycopg.errors.UniqueViolation as error:
        raise KnownIdError from error
    except psycopg.Error as error:
        is_gone = driver.closed
        if is_gone:
            connection.invalidate(error)
        raise DBAPIError(statement, None, error, connection_invalidated=is_gone) from error


def _columns(table: sa.Table) -> list[sa.Column[Any]]:
    return [column for column in table.columns if column.name != "seq"]


@cache
def _insert_recordset(table: sa.Table) -> sa.Insert:
    columns = _columns(table)
    names = [column.name for column in columns]
    types = [sa.column(column.name, column.type) for column in columns]
    sent = sa.func.json_to_recordset(sa.bindparam("rows", type_=sa.JSON))
    recordset = sent.table_valued(*types).render_derived(with_types=True)
    insert = postgresql.insert(table).from_select(names, sa.select(*recordset.c))
    return insert.on_conflict_do_nothing().execution_options(preserve_rowcount=True)


@lru_cache(maxsize=256)
def _insert_values(table: sa.Table, count: int) -> str:
    columns = _columns(table)
    # Compiling a row and repeating it takes microseconds; compiling all of them would take SQLAlchemy milliseconds.
    row = sqlite.insert(table).values({column.name: sa.bindparam(column.name) for column in columns})
    head, values = str(row.compile(dialect=sqlite.dialect())).split(" VALUES ")
    return f"{head} VALUES {', '.join([values] * count)} ON CONFLICT DO NOTHING"


@cache
def _lookup(dialect: str) -> sa.Select[Any]:
    ids = sa.bindparam("ids", type_=sa.JSON)
    if dialect == POSTGRESQL:
        wanted = sa.func.json_array_elements_text(ids).table_valued("value")
        found = sa.func.json_object_agg(impressions.c.id, impressions.c.document_ids, type_=sa.JSON)
    else:
        wanted = sa.func.json_each(ids).table_valued("value")
        found = sa.func.json_group_object(impressions.c.id, sa.func.json(impressions.c.document_ids), type_=sa.JSON)
    return sa.select(found).where(impressions.c.id.in_(sa.select(wanted.c.value)))


def _for_json(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}


def _sqlite_form(column: sa.Column[Any]) -> Callable[[Any], Any] | None:
    """How SQLAlchemy keeps a type in SQLite that SQLite does not have; None for one that it has."""
    if isinstance(column.type, UtcDateTime):
        return lambda moment: moment.replace(tzinfo=None).isoformat(" ", "microseconds")
    return json.dumps if isinstance(column.type, sa.JSON) else None
