"""Metadata of rows, by field and value: answers a filter with a set of rows.

For each field and type there are the distinct values in order, and for each value the rows that have it, one value
after another. So equality, a set of values and a range are each a few slices of one array of rows.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.arrays import Arrays, open_arrays, write_arrays
from index.bitmaps import Bitmap, all_rows, no_rows, pack
from rankers.errors import NotReadyError
from rankers.filters import All, AnyOf, Between, Filter, Not, OneOf, Value, values_of

COLUMNS_FILE = "columns.bin"
KNOWN_FILTERS = 8
"""Answers that are kept, because filters come again."""


def allowed_rows(columns: Columns | None, condition: Filter) -> Bitmap:
    """Find the rows that satisfy a filter; raises `NotReadyError` if there are no columns to look in."""
    if columns is None:
        raise NotReadyError("the index was built before there were filters; run: shortlist index build")
    return columns.rows(condition)


class Columns:
    """Finds the rows whose metadata satisfies a filter. Never changes; any number of threads may use it.

    Parameters
    ----------
    arrays
        As `ColumnsBuilder.finish` and `open` give them.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self._known: dict[str, Bitmap] = {}
        self._count = int(arrays["count"][0])
        self._fields: dict[str, int] = json.loads(arrays["fields"].tobytes())

    @classmethod
    def build(cls, metadata: Iterable[Mapping[str, Any]]) -> Columns:
        """Sort the metadata of rows, one mapping per row in order, read as a stream."""
        builder = ColumnsBuilder()
        for fields in metadata:
            builder.add(fields)
        return builder.finish()

    @classmethod
    def open(cls, folder: Path, *, verify: bool = False) -> Columns:
        """Map what `save` wrote; raises `CorruptIndexError` if that is missing or damaged."""
        return cls(open_arrays(folder / COLUMNS_FILE, verify=verify))

    def save(self, folder: Path) -> None:
        """Write the columns into a folder that exists."""
        write_arrays(folder / COLUMNS_FILE, self._arrays)

    @classmethod
    def open_if_there(cls, folder: Path) -> Columns | None:
        """Do as `open`, but give None where an index was built before there were filters."""
        return cls.open(folder) if (folder / COLUMNS_FILE).exists() else None

    def __len__(self) -> int:
        return self._count

    def rows(self, condition: Filter) -> Bitmap:
        """Find the rows that satisfy a filter.

        Parameters
        ----------
        condition
            The filter.

        Returns
        -------
        Bitmap
            A set of rows, see `index.bitmaps`; not to be changed.
        """
        key = repr(condition)  # true equals 1 in Python, but not written down
        found = self._known.get(key)
        if found is None:
            found = self._rows(condition)
            if len(self._known) >= KNOWN_FILTERS:
                self._known.clear()
            self._known[key] = found
        return found

    def _rows(self, condition: Filter) -> Bitmap:
        match condition:
            case OneOf(field, values):
                return self._bitmap(s for value in values for s in self._between(field, Between(field, value, value)))
            case Between(field):
                return self._bitmap(self._between(field, condition))
            case All(parts):
                return reduce(np.bitwise_and, map(self._rows, parts))
            case AnyOf(parts):
                return reduce(np.bitwise_or, map(self._rows, parts))
            case Not(part):
                return all_rows(self._count) & ~self._rows(part)

    def _between(self, field: str, between: Between) -> Iterator[npt.NDArray[np.uint32]]:
        bound = between.low if between.low is not None else between.high
        number = self._fields.get(_key(field, bound)) if bound is not None else None
        if number is None:
            return
        offsets, rows = self._arrays[f"{number}.offsets"], self._arrays[f"{number}.rows"]
        values = _Texts(self._arrays, number) if isinstance(bound, str) else self._arrays[f"{number}.values"]
        first, last = 0, len(offsets) - 1
        if between.low is not None:
            first = (bisect_left if between.with_low else bisect_right)(values, _sortable(between.low))
        if between.high is not None:
            last = (bisect_right if between.with_high else bisect_left)(values, _sortable(between.high))
        if first < last:
            yield rows[int(offsets[first]) : int(offsets[last])]

    def _bitmap(self, slices: Iterable[npt.NDArray[np.uint32]]) -> Bitmap:
        mask: npt.NDArray[np.bool_] | None = None
        for rows in slices:
            mask = np.zeros(self._count, dtype=np.bool_) if mask is None else mask
            mask[rows] = True
        return no_rows(self._count) if mask is None else pack(mask)


class ColumnsBuilder:
    """Takes the metadata of rows one by one."""

    def __init__(self) -> None:
        self._count = 0
        self._postings: dict[str, dict[Value, array[int]]] = {}

    def add(self, metadata: Mapping[str, Any]) -> None:
        """Take the metadata of the next row."""
        row = self._count
        self._count += 1
        for field in metadata:
            for value in values_of(metadata, field):
                rows = self._postings.setdefault(_key(field, value), {}).setdefault(value, array("I"))
                if not rows or rows[-1] != row:  # a list may hold a value twice
                    rows.append(row)

    def finish(self) -> Columns:
        """Sort what was taken; it stays in memory until it is saved and opened."""
        arrays: dict[str, npt.NDArray[Any]] = {"count": np.array([self._count])}
        for number, held in enumerate(self._postings.values()):
            arrays |= {f"{number}.{name}": part for name, part in _sorted(held).items()}
        fields = json.dumps({key: number for number, key in enumerate(self._postings)})
        return Columns(arrays | {"fields": np.frombuffer(fields.encode(), dtype=np.uint8)})


class _Texts(Sequence[bytes]):
    """Distinct strings of a field in order, read from the mapped file one by one."""

    def __init__(self, arrays: Arrays, number: int) -> None:
        self._starts, self._bytes = arrays[f"{number}.starts"], arrays[f"{number}.bytes"]

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, at: Any) -> Any:
        return self._bytes[int(self._starts[at]) : int(self._starts[at + 1])].tobytes()


def _sorted(held: Mapping[Value, array[int]]) -> dict[str, npt.NDArray[Any]]:
    ordered = sorted(held.items(), key=lambda item: _sortable(item[0]))
    lengths = [len(rows) for _, rows in ordered]
    arrays = {
        "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "rows": np.concatenate([np.frombuffer(rows, dtype=np.uint32) for _, rows in ordered]),
    }
    keys = [_sortable(value) for value, _ in ordered]
    texts = [key for key in keys if isinstance(key, bytes)]
    if not texts:
        return arrays | {"values": np.array(keys, dtype=np.float64)}
    return arrays | {
        "starts": np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64),
        "bytes": np.frombuffer(b"".join(texts), dtype=np.uint8),
    }


def _key(field: str, value: Value) -> str:
    return f"{type(value).__name__} {field}"


def _sortable(value: Value) -> bytes | float:
    # UTF-8 sorts as code points do; JSON can carry unpaired surrogates.
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else float(value)
