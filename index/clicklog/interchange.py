"""A click log as files: a folder with impressions and events, in Parquet or in JSON lines.

Columns are the fields of `rankers.events.Impression` and `Event`, and `seq`, the order of storage, which an import
ignores. Parquet has `features` as JSON text, because documents differ in what is known of them. Keys of users and
sessions are the hashes that the log has: who reads the files needs the salt to find a user in them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeAlias

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from index.clicklog import schema
from index.clicklog.rows import event_row, impression_row
from index.clicklog.store import Records, SqlClickLog
from rankers.errors import InvalidInputError, MissingExtraError, NotFoundError
from rankers.events import Event, Impression

Format = Literal["parquet", "jsonl"]
Row: TypeAlias = dict[str, Any]

RECORDS_PER_STEP = 1000
"""Held in memory, stored in one transaction and, in Parquet, one row group."""
FEATURES = "features"


@dataclass(frozen=True, slots=True)
class Moved:
    """How many records were written to files, or were new to the log."""

    impressions: int
    events: int


def export_log(log: SqlClickLog, folder: Path, format: Format = "parquet") -> Moved:
    """Write a click log to ``impressions.FORMAT`` and ``events.FORMAT``, with bounded memory.

    Parameters
    ----------
    log
        What to write. Records that are stored meanwhile may be missing.
    folder
        Made when missing. A file that is there is replaced when the new one is complete.
    format
        ``parquet`` or ``jsonl``.

    Returns
    -------
    Moved
        Records written.

    Raises
    ------
    MissingExtraError
        If pyarrow is not installed, which Parquet needs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown = ({"seq": seq, **impression_row(impression)} for seq, impression in log.impressions())
    happened = ({"seq": seq, **event_row(event)} for seq, event in log.events())
    # Events first, or some would be there whose impression was stored after impressions had been written.
    events = _write(folder / f"events.{format}", happened, schema.events)
    return Moved(_write(folder / f"impressions.{format}", shown, schema.impressions), events)


def import_log(log: SqlClickLog, folder: Path) -> Moved:
    """Read files of `export_log` into a click log, with bounded memory.

    Parameters
    ----------
    log
        Where to. What it has already, by id, is skipped: an import that failed can be started again.
    folder
        Has ``impressions*`` and ``events*``, either of which may be missing or come in parts: ``.parquet`` or
        ``.jsonl``.

    Returns
    -------
    Moved
        Records that were new.

    Raises
    ------
    NotFoundError
        If there is no such file.
    InvalidInputError
        If a record is not what it should be; the message names file and number. Those before it are stored.
    MissingExtraError
        If pyarrow is not installed, which Parquet needs.
    """
    impressions = _read_all(folder, "impressions", TypeAdapter(Impression))
    events = _read_all(folder, "events", TypeAdapter(Event))
    if impressions is None and events is None:
        raise NotFoundError(f"{folder} has neither impressions* nor events* that end in .parquet or .jsonl")
    shown = sum(log.add([Records(impressions=step)])[0] for step in _steps(impressions or ()))
    return Moved(shown, sum(log.add([Records(events=step)])[0] for step in _steps(events or ())))


def _read_all(folder: Path, name: str, records: TypeAdapter[Any]) -> Iterator[Any] | None:
    readers: Mapping[str, Callable[[Path], Iterator[Row]]] = {".parquet": _read_parquet, ".jsonl": _read_jsonl}
    files = sorted(path for path in folder.glob(f"{name}*") if path.suffix in readers)
    if not files:
        return None
    return (record for file in files for record in _validated(file, readers[file.suffix](file), records))


def _validated(file: Path, rows: Iterator[Row], records: TypeAdapter[Any]) -> Iterator[Any]:
    number = 0
    try:
        for row in rows:
            number += 1
            yield records.validate_python(row)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise InvalidInputError(f"{file}, record {number}: {name} is {first['input']!r}: {first['msg']}") from error
    except ValueError as error:
        raise InvalidInputError(f"{file} cannot be read after record {number}: {error}") from error


def _steps(records: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(records)
    while step := list(islice(iterator, RECORDS_PER_STEP)):
        yield step


@contextmanager
def _replacing(file: Path) -> Iterator[Path]:
    """Give a place to write to; what is there becomes the file when it is complete."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _write(file: Path, rows: Iterable[Row], table: sa.Table) -> int:
    with _replacing(file) as partial:
        return _write_parquet(partial, rows, table) if file.suffix == ".parquet" else _write_jsonl(partial, rows)


def _write_jsonl(file: Path, rows: Iterable[Row]) -> int:
    count = 0
    with file.open("wb") as lines:
        for row in rows:
            lines.write(to_json(row) + b"\n")
            count += 1
    return count


def _read_jsonl(file: Path) -> Iterator[Row]:
    with file.open("rb") as lines:
        for line in lines:
            if line.strip():
                yield from_json(line)


def _write_parquet(file: Path, rows: Iterable[Row], table: sa.Table) -> int:
    pa, parquet = _pyarrow()
    moment, texts = pa.timestamp("us", tz="UTC"), pa.list_(pa.string())
    types = {"seq": pa.int64(), "document_ids": texts, "arms": texts, "shown_at": moment, "happened_at": moment}
    types |= {"position": pa.int32(), "value": pa.float64()}
    columns = pa.schema([(name, types.get(name, pa.string())) for name in table.columns.keys()])  # noqa: SIM118
    count = 0
    with parquet.ParquetWriter(file, columns, compression="zstd") as writer:
        for step in _steps(rows):
            flat = [row | {FEATURES: json.dumps(row[FEATURES])} if FEATURES in row else row for row in step]
            writer.write_table(pa.Table.from_pylist(flat, schema=columns))
            count += len(step)
    return count


def _read_parquet(file: Path) -> Iterator[Row]:
    _, parquet = _pyarrow()
    with parquet.ParquetFile(file) as table:
        for batch in table.iter_batches(batch_size=RECORDS_PER_STEP):
            for row in batch.to_pylist():
                yield row | {FEATURES: from_json(row[FEATURES])} if row.get(FEATURES) is not None else row


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", extra="parquet") from error
    return pyarrow, parquet
