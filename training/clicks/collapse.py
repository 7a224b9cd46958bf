"""A filtered click log collapsed in SQL: every (query, list, layout, model version) once, with its counts.

Letters in shapes: N (query, document) pairs, F features, S distinct lists, L places.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Sequence

import duckdb
import numpy as np
import numpy.typing as npt

from rankers.errors import MissingExtraError
from rankers.events import LIST, Layout
from training.clicks.keys import ListKeys
from training.ultr.lists import PADDING, ClickLists, ClickPatterns

try:
    import pyarrow as pa
except ImportError as error:
    raise MissingExtraError("pyarrow", extra="train") from error

WORD_BITS = 60
"""Places per 64-bit integer: clicked places travel through SQL as bits, which can be grouped and spilled."""
READ_AT_ONCE = 1_000

CONTENT = """
CREATE TABLE content AS
SELECT row_number() OVER (ORDER BY l.list) - 1 AS number, l.* FROM lists l
WHERE l.list IN (SELECT list FROM kept) ORDER BY l.list
"""
# The most recent impression of a list has the most recent features of that list's documents.
LATEST = """
CREATE TABLE latest AS
SELECT c.number, arg_max(k.id, (k.shown_us, k.number)) AS id, max(k.shown_us) AS shown_us,
    count(DISTINCT k.features_hash) > 1 AS changed
FROM kept k JOIN content c USING (list) GROUP BY c.number
"""
PLACES = """
CREATE TABLE places AS
SELECT number, query, generate_subscripts(document_ids, 1) AS place, unnest(document_ids) AS document_id FROM content
"""
QUERIES = """
SELECT DISTINCT query FROM content WHERE query NOT IN (SELECT query FROM known_queries) ORDER BY query
"""
PAIRS = """
SELECT q.number AS query, p.document_id
FROM (SELECT DISTINCT query, document_id FROM places) p JOIN queries q USING (query)
WHERE NOT EXISTS (FROM known_pairs k WHERE k.query = q.number AND k.document_id = p.document_id)
ORDER BY q.number, p.document_id
"""
# For each pair, the list that showed it last with features: a document below a ranker's depth has none.
SOURCES = """
CREATE TABLE sources AS
SELECT p.row, arg_max(l.number, (l.shown_us, l.number)) AS number, any_value(p.document_id) AS document_id
FROM places s JOIN queries q USING (query) JOIN pairs p ON p.query = q.number AND p.document_id = s.document_id
JOIN latest l ON l.number = s.number
JOIN (SELECT DISTINCT id, unnest(json_keys(features)) AS document_id FROM impressions
      WHERE id IN (SELECT id FROM latest)) f ON f.id = l.id AND f.document_id = s.document_id
GROUP BY p.row
"""
FEATURES = """
SELECT s.rows, s.document_ids, f.features
FROM (SELECT id, any_value(features) AS features FROM impressions WHERE id IN (SELECT id FROM latest) GROUP BY id) f
JOIN latest l USING (id)
JOIN (SELECT number, list(row) AS rows, list(document_id) AS document_ids FROM sources GROUP BY number) s USING (number)
WHERE f.features IS NOT NULL
"""


def collapse(connection: duckdb.DuckDBPyConnection, onto: ListKeys | None = None) -> tuple[ClickLists, ListKeys, int]:
    """Collapse what was kept of a click log.

    Parameters
    ----------
    connection
        Of a `training.clicks.filtered_log.FilteredLog`.
    onto
        Keys whose numbers are to be kept.

    Returns
    -------
    tuple
        Lists, keys, and how many lists were shown with more than one set of feature values.

    Raises
    ------
    InvalidInputError
        If a layout is unknown.
    """
    for statement in (CONTENT, LATEST, PLACES):
        connection.execute(statement)
    queries, pair_queries, document_ids = _number_pairs(connection, onto)
    rows, list_queries = _rows(connection)
    layouts = _column(connection, "SELECT layout FROM content ORDER BY number")
    slots, slot_names = _slots(layouts, rows, onto.slots if onto else ())
    version_names, versions = np.unique(
        np.array(_column(connection, "SELECT model_version FROM content ORDER BY number"), dtype=np.str_),
        return_inverse=True,
    )
    patterns = _patterns(connection, rows.shape[1])
    features, feature_names = _features(connection, len(document_ids))
    ((changed,),) = connection.execute("SELECT count(*) FROM latest WHERE changed").fetchall()
    shown = np.bincount(patterns.lists, weights=patterns.sessions, minlength=len(rows)).astype(np.int64)
    clicks = np.zeros(rows.shape, dtype=np.int64)
    np.add.at(clicks, patterns.lists, patterns.clicked * patterns.sessions[:, None])
    lists = ClickLists(features, feature_names, rows, list_queries, slots, shown, clicks, patterns)
    keys = ListKeys(queries, pair_queries, document_ids, slot_names, versions, tuple(version_names.tolist()))
    return lists, keys, changed


def _number_pairs(
    connection: duckdb.DuckDBPyConnection, onto: ListKeys | None
) -> tuple[tuple[str, ...], npt.NDArray[np.int64], tuple[str, ...]]:
    """Make the tables `queries` (query, number) and `pairs` (query number, document_id, row), known ones first."""
    queries, document_ids = (onto.queries, onto.document_ids) if onto else ((), ())
    pair_queries = onto.pair_queries if onto else np.empty(0, dtype=np.int64)
    connection.register("known_queries", pa.table({"query": pa.array(queries, pa.string())}))
    queries += tuple(_column(connection, QUERIES))
    numbers = pa.array(np.arange(len(queries)))
    connection.register("queries", pa.table({"query": pa.array(queries, pa.string()), "number": numbers}))
    known = pa.table({"query": pa.array(pair_queries), "document_id": pa.array(document_ids, pa.string())})
    connection.register("known_pairs", known)
    found = connection.execute(PAIRS).fetchnumpy()
    pair_queries = np.concatenate([pair_queries, found["query"]])
    document_ids += tuple(found["document_id"].tolist())
    pairs = pa.table(
        {
            "query": pa.array(pair_queries),
            "document_id": pa.array(document_ids, pa.string()),
            "row": pa.array(np.arange(len(document_ids))),
        }
    )
    connection.register("pairs", pairs)
    return queries, pair_queries, document_ids


def _rows(connection: duckdb.DuckDBPyConnection) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    found = connection.execute(
        "SELECT s.number, s.place - 1 AS place, p.row, q.number AS query FROM places s JOIN queries q USING (query) "
        "JOIN pairs p ON p.query = q.number AND p.document_id = s.document_id"
    ).fetchnumpy()
    number = np.asarray(found["number"], dtype=np.int64)
    place = np.asarray(found["place"], dtype=np.int64)
    rows = np.full((int(number.max(initial=-1)) + 1, int(place.max(initial=-1)) + 1), PADDING, dtype=np.int64)
    rows[number, place] = found["row"]
    queries = np.zeros(len(rows), dtype=np.int64)
    queries[number] = found["query"]
    return rows, queries


def _patterns(connection: duckdb.DuckDBPyConnection, places: int) -> ClickPatterns:
    words = range(-(-places // WORD_BITS))
    bits = "".join(
        f", bit_or(CASE WHEN (place - 1) // {WORD_BITS} = {word} THEN 1::BIGINT << ((place - 1) % {WORD_BITS})::INT "
        f"ELSE 0 END) AS word_{word}"
        for word in words
    )
    named = "".join(f", coalesce(word_{word}, 0) AS word_{word}" for word in words)
    found = connection.execute(
        f"SELECT c.number{named}, count(*) AS sessions FROM kept k JOIN content c USING (list) LEFT JOIN "
        f"(SELECT impression{bits} FROM clicked GROUP BY impression) w ON k.number = w.impression "
        "GROUP BY ALL ORDER BY ALL"
    ).fetchnumpy()
    clicked = np.zeros((len(found["number"]), places), dtype=np.bool_)
    for place in range(places):
        word = np.asarray(found[f"word_{place // WORD_BITS}"], dtype=np.int64)
        clicked[:, place] = (word >> (place % WORD_BITS)) & 1
    return ClickPatterns(
        np.asarray(found["number"], dtype=np.int64), clicked, np.asarray(found["sessions"], dtype=np.int64)
    )


def _slots(
    layouts: Sequence[str], rows: npt.NDArray[np.int64], known: tuple[str, ...]
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Number the slots of every layout that occurs, in the order of layouts, after those known."""
    names = {name: number for number, name in enumerate(known)}
    slots = np.zeros(rows.shape, dtype=np.int64)
    lengths = np.not_equal(rows, PADDING).sum(axis=1)
    of_list = np.array(layouts, dtype=np.str_)
    for layout in sorted(set(layouts), key=lambda layout: (layout != LIST, layout)):
        lists = of_list == layout
        longest = int(lengths[lists].max())
        numbers = [names.setdefault(_slot_name(layout, place), len(names)) for place in range(longest)]
        slots[lists, :longest] = numbers
    slots[rows == PADDING] = 0
    return slots, tuple(names)


def _slot_name(layout: str, place: int) -> str:
    if layout == LIST:
        return f"{layout} {place + 1}"
    row, column = Layout.parse(layout).place(place + 1)
    return f"{layout} row {row} column {column}"


def _features(connection: duckdb.DuckDBPyConnection, pairs: int) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    connection.execute(SOURCES)
    columns: dict[str, int] = {}
    at_row, at_column, values = array("q"), array("q"), array("d")
    found = connection.execute(FEATURES)
    while batch := found.fetchmany(READ_AT_ONCE):
        for rows, document_ids, text in batch:
            parsed = json.loads(text)
            for row, document_id in zip(rows, document_ids, strict=True):
                for name, value in parsed.get(document_id, {}).items():
                    at_row.append(row)
                    at_column.append(columns.setdefault(name, len(columns)))
                    values.append(math.nan if value is None else value)
    names = tuple(sorted(columns))
    order = np.empty(len(names), dtype=np.int64)
    order[[columns[name] for name in names]] = np.arange(len(names))
    features = np.full((pairs, len(names)), np.nan, dtype=np.float32)
    features[np.asarray(at_row), order[np.asarray(at_column)]] = np.asarray(values)
    return features, names


def _column(connection: duckdb.DuckDBPyConnection, query: str) -> list[str]:
    return [value for (value,) in connection.execute(query).fetchall()]
