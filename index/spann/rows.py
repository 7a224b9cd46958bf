"""What a segment's rows are called, and their metadata: in files that are mapped, not held in memory.

``rows.bin`` is what was given; ``lookup.bin`` and ``columns.bin`` follow from it and can be made again.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.arrays import Arrays, open_arrays, write_arrays
from index.columns import COLUMNS_FILE, Columns
from rankers.errors import InvalidInputError

ROWS_FILE = "rows.bin"
LOOKUP_FILE = "lookup.bin"
FILES = (ROWS_FILE, LOOKUP_FILE, COLUMNS_FILE)
DERIVED_FILES = (LOOKUP_FILE, COLUMNS_FILE)
Metadata = Mapping[str, Any]


class Rows:
    """Ids and metadata of the rows 0..N-1 of a segment.

    Parameters
    ----------
    folder
        Where `write_rows` wrote them.
    verify
        Whether to compare all checksums.

    Raises
    ------
    CorruptIndexError
        If a file is missing, cut short or changed.
    """

    def __init__(self, folder: Path, *, verify: bool = False) -> None:
        self._rows = open_arrays(folder / ROWS_FILE, verify=verify)
        # Memory views give single numbers many times faster than arrays, and every hit needs two.
        self._starts, self._names = (self._rows[name].data for name in ("id_starts", "id_bytes"))
        self._lookup = open_arrays(folder / LOOKUP_FILE, verify=verify)
        self.columns = Columns.open(folder, verify=verify)

    def __len__(self) -> int:
        return len(self._rows["id_starts"]) - 1

    def id(self, row: int) -> str:
        """Id of a row."""
        return bytes(self._names[self._starts[row] : self._starts[row + 1]]).decode("utf-8", "surrogatepass")

    def metadata(self, row: int) -> Metadata:
        """Metadata of a row."""
        return _metadata(self._rows, row)

    def find(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Give the row of each id: int64 [len(ids)], -1 where there is none."""
        wanted = np.array([_hash(name) for name in ids], dtype=np.uint64)
        firsts = np.searchsorted(self._lookup["hashes"], wanted).tolist()
        return np.array(
            [
                self._confirm(name, hashed, first)
                for name, hashed, first in zip(ids, wanted.tolist(), firsts, strict=True)
            ],
            dtype=np.int64,
        )

    def _confirm(self, name: str, wanted: int, at: int) -> int:
        hashes, order = self._lookup["hashes"], self._lookup["order"]
        while at < len(hashes) and int(hashes[at]) == wanted:
            if self.id(int(order[at])) == name:
                return int(order[at])
            at += 1
        return -1


def write_rows(folder: Path, rows: Iterable[tuple[str, Metadata]]) -> int:
    """Write the three files.

    Parameters
    ----------
    folder
        It exists.
    rows
        Id and metadata per row; read once, as a stream.

    Returns
    -------
    int
        How many there were.

    Raises
    ------
    InvalidInputError
        If an id occurs twice, or metadata is not JSON.
    """
    ids, metadata = _Texts(), _Texts()
    for name, fields in rows:
        ids.append(name)
        metadata.append(metadata_json(name, fields))
    write_arrays(folder / ROWS_FILE, ids.arrays("id") | metadata.arrays("metadata"))
    write_derived(folder)
    return len(ids)


def write_derived(folder: Path) -> None:
    """Make the files that follow from ``rows.bin``, whether they are there or not."""
    rows = open_arrays(folder / ROWS_FILE, verify=True)
    count = len(rows["id_starts"]) - 1
    hashes = np.fromiter((_hash(_text(rows, "id", row)) for row in range(count)), dtype=np.uint64, count=count)
    order = np.argsort(hashes, kind="stable").astype(np.uint32)
    hashes = hashes[order]
    for at in np.flatnonzero(hashes[1:] == hashes[:-1]):
        name = _text(rows, "id", int(order[at]))
        if name == _text(rows, "id", int(order[at + 1])):
            raise InvalidInputError(f"id {name!r} occurs twice; ids must be unique in an index", field="ids")
    write_arrays(folder / LOOKUP_FILE, {"hashes": hashes, "order": order})
    Columns.build(_metadata(rows, row) for row in range(count)).save(folder)


def metadata_json(name: str, metadata: Metadata) -> str:
    """Write metadata as JSON; raises `InvalidInputError` if it cannot be."""
    try:
        return json.dumps(dict(metadata), allow_nan=False) if metadata else "{}"
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"the metadata of {name!r} is not JSON: {error}", field="metadata") from error


class _Texts:
    """Strings, one behind the other."""

    def __init__(self) -> None:
        self._ends = array("Q", [0])
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, text: str) -> None:
        self._bytes += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def arrays(self, name: str) -> dict[str, npt.NDArray[Any]]:
        return {
            f"{name}_starts": np.frombuffer(self._ends, dtype=np.uint64),
            f"{name}_bytes": np.frombuffer(self._bytes, dtype=np.uint8),
        }


def _text(arrays: Arrays, name: str, row: int) -> str:
    starts = arrays[f"{name}_starts"]
    content: bytes = arrays[f"{name}_bytes"][int(starts[row]) : int(starts[row + 1])].tobytes()
    return content.decode("utf-8", "surrogatepass")


def _metadata(arrays: Arrays, row: int) -> Metadata:
    text = _text(arrays, "metadata", row)
    return {} if text == "{}" else dict(json.loads(text))


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
