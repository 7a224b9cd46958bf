"""Documents on disk: one SQLite file, shared by threads and processes."""

from __future__ import annotations

import json
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from rankers.errors import InvalidInputError, NotFoundError
from rankers.types import Document

WRITE_BATCH = 1000
"""Documents sent to SQLite at once, all within one transaction."""
LOOKUP_BATCH = 500
"""Ids in one IN list; the oldest limit of SQLite is 999."""
LOCK_TIMEOUT_S = 60.0
"""How long a writer waits for another one."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    position INTEGER PRIMARY KEY,
    id       TEXT NOT NULL UNIQUE,
    text     TEXT NOT NULL,
    title    TEXT NOT NULL,
    features TEXT NOT NULL,
    metadata TEXT NOT NULL
)
"""
_STATE_SCHEMA = "CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT NOT NULL)"
_UPSERT = """
INSERT INTO documents (id, text, title, features, metadata) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    text = excluded.text, title = excluded.title, features = excluded.features, metadata = excluded.metadata
"""
_COLUMNS = "id, text, title, features, metadata"
_Row: TypeAlias = tuple[str, str, str, str, str]


class Corpus:
    """Documents by id, in the order they were first added.

    Methods may be called from several threads, and several processes may open one file: SQLite's write-ahead log lets
    readers go on while one writes. Every write is a transaction, so a crash or an error leaves the documents as
    they were. Beside the documents there are a few texts by name, which change in the same transactions.

    Parameters
    ----------
    path
        The file; it is made, with its folder, if missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._reader = self._connect()
        self._reader.execute("PRAGMA journal_mode = WAL")
        self._reader.execute(_SCHEMA)
        self._reader.execute(_STATE_SCHEMA)
        self._close = weakref.finalize(self, self._reader.close)  # also when nobody calls `close`

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the corpus cannot be used afterwards."""
        with self._lock:
            self._close()

    def append(self, documents: Iterable[Document]) -> int:
        """Add documents, all or none of them.

        A document whose id is present replaces the one stored and keeps its place in the order; of several with one
        id, the last wins.

        Parameters
        ----------
        documents
            Read as a stream: they need not fit in memory.

        Returns
        -------
        int
            How many were stored, replacements included.

        Raises
        ------
        InvalidInputError
            If features, metadata or text cannot be stored; the message names the document.
        """
        with self._transaction() as connection:
            return _upsert(connection, documents)

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents by id and say how many there were; unknown ids are no error."""
        with self._transaction() as connection:
            return _delete(connection, ids)

    def change(
        self, documents: Iterable[Document] = (), deleted: Iterable[str] = (), *, state: Mapping[str, str] | None = None
    ) -> None:
        """Delete, then append as `append` does, and set texts by name: all of it or nothing, also in a crash."""
        with self._transaction() as connection:
            _delete(connection, deleted)
            _upsert(connection, documents)
            connection.executemany("REPLACE INTO state (name, value) VALUES (?, ?)", (state or {}).items())

    def state(self, name: str) -> str | None:
        """Give a text that `change` set, None if it never did."""
        with self._lock:
            row = self._reader.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def metadata(self) -> dict[str, Mapping[str, Any]]:
        """Metadata of all documents that have any, by id."""
        with closing(self._connect()) as connection:
            rows = connection.execute("SELECT id, metadata FROM documents WHERE metadata != '{}'")
            return {document_id: _mapping(text) for document_id, text in rows}

    def find(self, ids: Sequence[str]) -> dict[str, Document]:
        """Look documents up; ids that are not there are absent from the result."""
        found: dict[str, Document] = {}
        for start in range(0, len(ids), LOOKUP_BATCH):
            some = ids[start : start + LOOKUP_BATCH]
            marks = ",".join("?" * len(some))
            with self._lock:
                rows = self._reader.execute(f"SELECT {_COLUMNS} FROM documents WHERE id IN ({marks})", some).fetchall()
            found.update((row[0], _document(row)) for row in rows)
        return found

    def get(self, document_id: str) -> Document:
        """Look one document up; raises `NotFoundError` if there is none."""
        found = self.find([document_id])
        if document_id not in found:
            raise NotFoundError(f"no document {document_id!r} in {self.path}")
        return found[document_id]

    def stream(self) -> Iterator[Document]:
        """All documents in order, as they are when the first is read: later writes neither wait nor show."""
        with closing(self._connect()) as connection:
            # One statement reads one snapshot of the write-ahead log.
            for row in connection.execute(f"SELECT {_COLUMNS} FROM documents ORDER BY position"):
                yield _document(row)

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._reader.execute("SELECT count(*) FROM documents").fetchone()
        return int(count)

    def _connect(self) -> sqlite3.Connection:
        # Without an isolation level Python opens no transaction on its own. Threads take turns at the lock.
        connection = sqlite3.connect(self.path, timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = FULL")  # a commit is on the disk when it returns
        return connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        # A connection of its own: readers see nothing of it before the commit and do not wait for it.
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


def check_storable(documents: Iterable[Document]) -> None:
    """Raise `InvalidInputError` for the first document that `Corpus.append` would refuse."""
    for document in documents:
        _row(document)


def _upsert(connection: sqlite3.Connection, documents: Iterable[Document]) -> int:
    rows = map(_row, documents)
    stored = 0
    while batch := list(islice(rows, WRITE_BATCH)):
        connection.executemany(_UPSERT, batch)
        stored += len(batch)
    return stored


def _delete(connection: sqlite3.Connection, ids: Iterable[str]) -> int:
    cursor = connection.executemany("DELETE FROM documents WHERE id = ?", ((document_id,) for document_id in ids))
    return max(cursor.rowcount, 0)  # -1 if there was no id at all


def _row(document: Document) -> _Row:
    try:
        # Unpaired surrogates, which JSON can carry, are no text that a file can hold.
        f"{document.id}{document.title}{document.text}".encode()
        features = json.dumps({name: float(value) for name, value in document.features.items()}, allow_nan=False)
        metadata = json.dumps(dict(document.metadata), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"document {document.id!r} cannot be stored: {error}; "
            "text must be Unicode, features finite numbers, metadata JSON",
            field="documents",
        ) from error
    return document.id, document.text, document.title, features, metadata


def _document(row: _Row) -> Document:
    document_id, text, title, features, metadata = row
    return Document(document_id, text, title, _mapping(features), _mapping(metadata))


def _mapping(text: str) -> dict[str, Any]:
    # Most documents have neither features nor metadata, and parsing would be most of the time of a look-up.
    return {} if text == "{}" else dict(json.loads(text))
