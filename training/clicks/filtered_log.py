"""A click log in DuckDB, joined and filtered: memory is bounded, what does not fit goes to disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

from rankers.errors import InvalidInputError, MissingExtraError, NotFoundError
from training.clicks import filter_sql as sql
from training.clicks.filters import FilterReport, FilterRules, Reason, Removed

try:
    import duckdb
except ImportError as error:
    raise MissingExtraError("duckdb", extra="train") from error

MICROSECONDS = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FOREVER = 2**61
EXAMPLES = 3
PARQUET, JSON_LINES = ".parquet", (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
FORMATS = (PARQUET, *JSON_LINES)

IMPRESSION_COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "id": "VARCHAR",
        "query_text": "VARCHAR",
        "document_ids": "VARCHAR[]",
        "shown_at": "TIMESTAMPTZ",
        "seq": "BIGINT",
        "model_version": "VARCHAR",
        "features": "VARCHAR",
        "feature_set": "VARCHAR",
        "session_key": "VARCHAR",
        "user_key": "VARCHAR",
        "layout": "VARCHAR",
        "arms": "VARCHAR[]",
    }
)
EVENT_COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "id": "VARCHAR",
        "impression_id": "VARCHAR",
        "document_id": "VARCHAR",
        "kind": "VARCHAR",
        "happened_at": "TIMESTAMPTZ",
        "seq": "BIGINT",
        "position": "BIGINT",
        "value": "DOUBLE",
    }
)
"""Columns read, and their types. Others are ignored; from `seq` on they may be missing."""


@dataclass(frozen=True, slots=True)
class FilteredLog:
    """An open, filtered click log.

    `connection` has the tables `lists` (list, query, document_ids, layout, model_version); `kept` (number, id, list,
    shown_us, actor, features_hash), the impressions that can be believed; `clicked` (impression, place from 1, times),
    with the clicks of bots, so join it to `kept`; and `impressions`, everything read.
    """

    connection: duckdb.DuckDBPyConnection
    report: FilterReport


@contextmanager
def open_filtered_log(
    impressions: Sequence[Path],
    events: Sequence[Path],
    *,
    rules: FilterRules | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    feature_set: str | None = None,
    temp_dir: Path | None = None,
    memory_limit_mb: int = 1024,
    threads: int | None = None,
) -> Iterator[FilteredLog]:
    """Read a click log, join events to impressions and filter both, on disk where memory does not suffice.

    Parameters
    ----------
    impressions
        Parquet or JSON-lines files of impressions, with the columns `IMPRESSION_COLUMNS`.
    events
        The same of events, with the columns `EVENT_COLUMNS`.
    rules
        What to filter; the defaults of `FilterRules` if not given.
    since
        The first moment of the period; impressions shown before are left out.
    until
        The end of the period: what was shown, or happened, at that moment or later is left out.
    feature_set
        As ``name@version``: impressions logged with another one, or with none, are left out; none are if not given.
    temp_dir
        Folder for the tables and what does not fit in memory, about as large as the log; the system's if not given.
        What is written is deleted at the end.
    memory_limit_mb
        MiB that DuckDB may use.
    threads
        Threads of DuckDB; one per core if not given. Each takes some of the memory.

    Yields
    ------
    FilteredLog
        Closed at the end of the context.

    Raises
    ------
    NotFoundError
        If a file does not exist.
    InvalidInputError
        If a file cannot be read or lacks a column, or the period has no time zone.
    """
    with tempfile.TemporaryDirectory(dir=temp_dir, prefix="shortlist-clicks-") as folder:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{memory_limit_mb}MiB",
            "temp_directory": str(Path(folder) / "spilled"),
            "preserve_insertion_order": False,
        }
        if threads is not None:
            settings["threads"] = threads
        with duckdb.connect(str(Path(folder) / "tables.duckdb"), config=settings) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            _open_source(connection, "impression_files", impressions, IMPRESSION_COLUMNS, Path(folder))
            _open_source(connection, "event_files", events, EVENT_COLUMNS, Path(folder))
            try:
                period = {"since": _microseconds(since, -FOREVER), "until": _microseconds(until, FOREVER)}
                report = _filter(connection, rules or FilterRules(), period, feature_set)
            except (duckdb.ConversionException, duckdb.InvalidInputException) as error:
                raise InvalidInputError(f"the click log cannot be read: {error}; export it again") from error
            yield FilteredLog(connection, report)


def _filter(
    connection: duckdb.DuckDBPyConnection, rules: FilterRules, period: dict[str, int], feature_set: str | None
) -> FilterReport:
    window = {"skew": round(rules.clock_skew_s * MICROSECONDS), "window": round(rules.click_window_s * MICROSECONDS)}
    bots = {
        "per_minute": rules.impressions_per_minute,
        "all_impressions": rules.all_places_impressions,
        "all_share": rules.all_places_share,
        "chance": rules.same_place_chance,
        "visits": rules.no_dwell_visits,
        "visit_share": rules.no_dwell_share,
        "no_dwell_s": rules.no_dwell_s,
    }
    connection.execute(sql.IMPRESSIONS)
    connection.execute(sql.EVENTS)
    connection.execute(sql.LISTS, period)
    connection.execute(sql.STAGED, period | {"feature_set": feature_set})
    connection.execute(sql.REPEATED.format(into="repeated_impressions", rows="staged"))
    connection.execute(sql.SHOWN)
    connection.execute(sql.FOUND, {"until": period["until"]} | window)
    connection.execute(sql.REPEATED.format(into="repeated_events", rows="found"))
    connection.execute(sql.VALID)
    connection.execute(sql.CLICKED)
    connection.execute(sql.BOTS, bots)
    connection.execute(sql.KEPT)
    return _report(connection)


def _report(connection: duckdb.DuckDBPyConnection) -> FilterReport:
    examples = {"examples": EXAMPLES}
    removed = [
        Removed(table, Reason(reason), count, tuple(ids))
        for table, found in (
            ("impressions", connection.execute(sql.REMOVED_IMPRESSIONS, examples).fetchall()),
            ("events", connection.execute(sql.REMOVED_EVENTS, examples).fetchall()),
        )
        for reason, count, ids in found
    ]
    ((repeated, ids),) = connection.execute(sql.REPEATED_CLICKS, examples).fetchall()
    if repeated:
        removed.append(Removed("events", Reason.REPEATED_CLICK, repeated, tuple(ids)))
    order = list(Reason)
    ((read, kept, events, others, clicks, actors, unattributed),) = connection.execute(sql.COUNTS).fetchall()
    return FilterReport(
        impressions=read,
        impressions_kept=kept,
        events=events,
        events_kept=clicks + others,
        clicks_kept=clicks,
        actors=actors,
        unattributed=unattributed,
        removed=tuple(sorted(removed, key=lambda one: (one.table != "impressions", order.index(one.reason)))),
    )


def _open_source(
    connection: duckdb.DuckDBPyConnection, view: str, files: Sequence[Path], columns: Mapping[str, str], folder: Path
) -> None:
    """Make a view of files with all of `columns`, NULL where an optional one is missing."""
    for file in files:
        if not file.is_file():
            raise NotFoundError(f"no click log at {file}; export one with the service's log, or name its files")
    if not files:
        raise InvalidInputError("a click log needs at least one file of impressions and one of events")
    listed = "[" + ", ".join("'" + str(file).replace("'", "''") + "'" for file in files) + "]"
    try:
        if all(file.name.endswith(PARQUET) for file in files):
            source = f"read_parquet({listed}, union_by_name = true)"
        elif all(file.name.endswith(JSON_LINES) for file in files):
            # Several passes are made over the columns: parsing text once is cheaper.
            types = ", ".join(f"{name}: '{kind}'" for name, kind in columns.items())
            parsed = str(folder / f"{view}.parquet").replace("'", "''")
            connection.execute(
                f"COPY (FROM read_json({listed}, format = 'newline_delimited', columns = {{{types}}})) TO '{parsed}'"
            )
            source = f"read_parquet('{parsed}')"
        else:
            raise InvalidInputError(
                f"{[file.name for file in files]} are not all .parquet, or all .jsonl; convert some"
            )
        present = {row[0] for row in connection.execute(f"DESCRIBE FROM {source}").fetchall()}
        required = list(columns)[: list(columns).index("seq")]
        if missing := [name for name in required if name not in present]:
            raise InvalidInputError(f"{files[0]} lacks the columns {missing}; it has {sorted(present)}")
        selected = ", ".join(
            f"{name if name in present else 'NULL'}::{kind} AS {name}" for name, kind in columns.items()
        )
        connection.execute(f"CREATE VIEW {view} AS SELECT {selected} FROM {source}")
    except (duckdb.IOException, duckdb.InvalidInputException, duckdb.BinderException) as error:
        raise InvalidInputError(f"{files[0]} cannot be read: {error}") from error


def _microseconds(moment: datetime | None, missing: int) -> int:
    if moment is None:
        return missing
    if moment.tzinfo is None:
        raise InvalidInputError(f"{moment} has no time zone; say which, for example with tzinfo=UTC")
    return (moment - EPOCH) // timedelta(microseconds=1)
