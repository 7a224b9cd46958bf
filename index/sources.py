"""Where documents and queries come from: files in the layouts people have, and the Python reference."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from index.python_docs import python_docs
from rankers.errors import InvalidInputError, NotFoundError
from rankers.types import Document, Query

PYTHON_DOCS = "python-docs"
CORPUS_FILE = "corpus.jsonl"
QUERIES_FILE = "queries.jsonl"


def read_documents(source: str) -> Iterator[Document]:
    """Read documents, one at a time.

    Parameters
    ----------
    source
        ``python-docs``: the Python language reference that comes with the interpreter. A directory in BEIR layout: its
        ``corpus.jsonl``. Any other file: JSON objects, one per line, with `id` or `_id`, `text`, and optionally
        `title`, `features` (name to number) and `metadata` (anything). Other fields are ignored, null is absent.

    Yields
    ------
    Document
        In the order of the source.

    Raises
    ------
    NotFoundError
        If there is no such source.
    InvalidInputError
        If a line is not a document; the message names file, line and what is wrong.
    """
    if source == PYTHON_DOCS:
        yield from python_docs()
        return
    path = Path(source)
    if path.is_dir():
        path /= CORPUS_FILE
    if not path.is_file():
        raise NotFoundError(
            f"no documents at {path}; give a .jsonl file, a directory that has {CORPUS_FILE}, or {PYTHON_DOCS}"
        )
    for place, record in _records(path):
        yield _document(place, record)


def read_beir_queries(directory: Path) -> list[Query]:
    """Read the queries of a directory in BEIR layout.

    Parameters
    ----------
    directory
        It has ``queries.jsonl``: JSON objects, one per line, with `id` or `_id` and `text`.

    Returns
    -------
    list of Query
        In the order of the file.

    Raises
    ------
    NotFoundError
        If there is no such file.
    InvalidInputError
        If a line is not a query; the message names file, line and what is wrong.
    """
    path = directory / QUERIES_FILE
    if not path.is_file():
        raise NotFoundError(f"no queries at {path}; a BEIR directory has {QUERIES_FILE}")
    return [Query(_id(place, record), _text(place, record, "text")) for place, record in _records(path)]


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a file, each with its place for messages; blank lines are skipped."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            place = f"{path}, line {number}"
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:  # JSONDecodeError or UnicodeDecodeError
                raise InvalidInputError(f"{place}: not JSON in UTF-8: {error}") from error
            if not isinstance(record, dict):
                raise InvalidInputError(f"{place}: expected a JSON object, got {_shown(record)}")
            yield place, record


def _document(place: str, record: Mapping[str, Any]) -> Document:
    title = "" if record.get("title") is None else _text(place, record, "title")
    features = _mapping(place, record, "features")
    for name, value in features.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidInputError(
                f"{place}: feature {name!r} must be a number, got {_shown(value)}", field=f"features.{name}"
            )
    return Document(
        _id(place, record), _text(place, record, "text"), title, features, _mapping(place, record, "metadata")
    )


def _id(place: str, record: Mapping[str, Any]) -> str:
    value = record["_id"] if "_id" in record else record.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise InvalidInputError(
            f"{place}: 'id' (or '_id') must be a string that is not empty, got {_shown(value)}", field="id"
        )
    return value


def _text(place: str, record: Mapping[str, Any], field: str) -> str:
    value = record.get(field)
    if not isinstance(value, str):
        raise InvalidInputError(f"{place}: {field!r} must be a string, got {_shown(value)}", field=field)
    return value


def _mapping(place: str, record: Mapping[str, Any], field: str) -> dict[str, Any]:
    value = record.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInputError(f"{place}: {field!r} must be an object, got {_shown(value)}", field=field)
    return value


def _shown(value: object) -> str:
    """A value as JSON, cut to fit in a message."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
