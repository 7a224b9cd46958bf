"""The parts of a live index, and what of them is alive: a view that never changes while it is searched."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from index import bitmaps
from index.arrays import open_arrays, write_arrays
from index.bitmaps import Bitmap
from index.manifest import sync
from index.spann.delta import Delta
from index.spann.manifest import SegmentEntry, stamp
from index.spann.operations import Operation, Put
from index.spann.rows import Metadata, Rows
from index.spann.segment import Segment
from rankers.errors import CorruptIndexError
from rankers.filters import Filter

VECTORS_FOLDER = "vectors"
RowNumbers: TypeAlias = npt.NDArray[np.int64]
Scores: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What is looked for in every part: see `SpannIndex.search`."""

    queries: npt.NDArray[np.float32]
    k: int
    condition: Filter | None = None
    recall: float | None = None
    threads: int = 1


class SegmentSource:
    """A segment on disk. Closed when nobody refers to it any more, and then removed if a merge has replaced it.

    Parameters
    ----------
    root
        Folder of the index.
    entry
        What the manifest says of the segment.
    verify
        Whether to compare all checksums.

    Raises
    ------
    CorruptIndexError
        If a file is missing or damaged.
    """

    def __init__(self, root: Path, entry: SegmentEntry, *, verify: bool = False) -> None:
        self.entry = entry
        self.folder = root / entry.folder
        self.rows = Rows(self.folder, verify=verify)
        self.segment = Segment.open(self.folder / VECTORS_FOLDER, verify=verify)
        self.saved_live = bitmaps.all_rows(entry.rows)
        if entry.live is not None:
            self.saved_live = open_arrays(self.folder / entry.live, verify=True)["live"]
        self._unwanted: list[Path] = []
        weakref.finalize(self, _release, self.segment, self._unwanted)
        if not len(self.rows) == len(self.segment) == entry.rows:
            raise CorruptIndexError(
                f"{self.folder} has {len(self.rows)} ids and {len(self.segment)} vectors instead of {entry.rows}"
            )

    @property
    def memory_bytes(self) -> int:
        """What it holds in memory: heads and codec, and which rows are alive on disk."""
        return self.segment.memory_bytes + self.saved_live.nbytes

    def part(self) -> Part[SegmentSource]:
        """Make the part of a view as it is on disk."""
        return Part(self, self.saved_live, self.entry.rows)

    def save_live(self, live: Bitmap, number: int) -> SegmentEntry:
        """Write which rows are alive, for manifest `number`, and give what that manifest is to say of the segment.

        The file that it replaces is named by the manifest before, and is not touched.
        """
        if live is self.saved_live:
            return self.entry
        name = f"live-{number:06d}.bin"
        write_arrays(self.folder / name, {"live": live})
        sync(self.folder)
        files = {kept: stamped for kept, stamped in self.entry.files.items() if kept != self.entry.live}
        return replace(self.entry, live=name, files=files | {name: stamp(self.folder / name)})

    def __len__(self) -> int:
        return len(self.segment)

    def retire(self) -> None:
        """Remove the files once the last search that uses them is over."""
        self._unwanted.append(self.folder)

    def find(self, ids: Sequence[str]) -> RowNumbers:
        """Row of each id, -1 where there is none."""
        return self.rows.find(ids)

    def name(self, row: int) -> str:
        """Id of a row."""
        return self.rows.id(row)

    def fields(self, row: int) -> Metadata:
        """Metadata of a row."""
        return self.rows.metadata(row)

    def vectors(self, rows: RowNumbers) -> npt.NDArray[np.float32]:
        """Vectors of rows, float32 [len(rows), D]."""
        return self.segment.vectors(rows)

    def search(self, request: SearchRequest, part: Part[SegmentSource]) -> tuple[RowNumbers, Scores]:
        """Search the live rows: rows and scores [B, at most k], rows -1 where there are no more."""
        live, found = part.live, part.size
        if request.condition is not None:
            live = live & self.rows.columns.rows(request.condition)
            found = bitmaps.size(live)
        if not found:
            return np.empty((len(request.queries), 0), np.int64), np.empty((len(request.queries), 0), np.float32)
        return self.segment.search(
            request.queries,
            min(request.k, found),
            allowed=None if found == part.count else live,
            recall=request.recall,
            threads=request.threads,
        )


def _release(segment: Segment, unwanted: list[Path]) -> None:
    segment.close()
    for folder in unwanted:
        shutil.rmtree(folder, ignore_errors=True)  # what is left is removed when the index is opened for writing


class DeltaSource:
    """A delta buffer, and the number of the log that keeps it."""

    def __init__(self, log: int, delta: Delta) -> None:
        self.log = log
        self.delta = delta

    @property
    def memory_bytes(self) -> int:
        """What it holds in memory."""
        return self.delta.memory_bytes

    def find(self, ids: Sequence[str]) -> RowNumbers:
        """Row of each id, -1 where there is none."""
        return self.delta.find(ids)

    def name(self, row: int) -> str:
        """Id of a row."""
        return self.delta.ids[row]

    def fields(self, row: int) -> Metadata:
        """Metadata of a row."""
        return self.delta.metadata[row]

    def vectors(self, rows: RowNumbers) -> npt.NDArray[np.float32]:
        """Vectors of rows, float32 [len(rows), D]."""
        return self.delta.vectors(rows)

    def search(self, request: SearchRequest, part: Part[DeltaSource]) -> tuple[RowNumbers, Scores]:
        """Compare with every live row: rows and scores [B, at most k]."""
        return self.delta.search(request.queries, request.k, part.live, part.count, request.condition)


AnySource = TypeVar("AnySource", SegmentSource, DeltaSource)


@dataclass(frozen=True, slots=True)
class Part(Generic[AnySource]):
    """The first `count` rows of a source, those alive in `live`."""

    source: AnySource
    live: Bitmap
    count: int
    size: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", bitmaps.size(self.live))

    @property
    def memory_bytes(self) -> int:
        """What it holds in memory, pages of mapped files left out."""
        return self.live.nbytes + self.source.memory_bytes

    @property
    def live_rows(self) -> RowNumbers:
        """Rows that are alive, ascending."""
        return np.flatnonzero(bitmaps.unpack(self.live, self.count))

    def find(self, ids: Sequence[str]) -> RowNumbers:
        """Live rows that have these ids, in any order; only those there are."""
        rows = self.source.find(ids)
        rows = rows[rows >= 0]
        return rows[bitmaps.has(self.live, rows)]

    def without(self, ids: Sequence[str]) -> Part[AnySource]:
        """Make the same part with some ids dead."""
        if not self.size:
            return self
        rows = self.find(ids)
        return replace(self, live=bitmaps.without(self.live, rows)) if len(rows) else self


AnyPart: TypeAlias = Part[SegmentSource] | Part[DeltaSource]
_Found: TypeAlias = tuple[AnyPart, RowNumbers, Scores]


@dataclass(frozen=True, slots=True)
class View:
    """What an index holds at one moment: segments from old to new, then delta buffers from old to new.

    An id is alive in at most one part.
    """

    segments: tuple[Part[SegmentSource], ...] = ()
    deltas: tuple[Part[DeltaSource], ...] = ()

    @property
    def parts(self) -> tuple[AnyPart, ...]:
        """All of them."""
        return (*self.segments, *self.deltas)

    @property
    def size(self) -> int:
        """Rows that are alive."""
        return sum(part.size for part in self.parts)

    def present(self, ids: Sequence[str]) -> Iterator[str]:
        """Those of some ids that are alive."""
        for part in self.parts:
            yield from (part.source.name(row) for row in part.find(ids).tolist())

    def after(self, operation: Operation) -> View:
        """Make the view after an operation, whose rows go to the last delta buffer."""
        segments = tuple(part.without(operation.ids) for part in self.segments)
        *sealed, last = (part.without(operation.ids) for part in self.deltas)
        if isinstance(operation, Put):
            last.source.delta.append(operation.ids, operation.vectors, operation.metadata)
            added = len(operation.ids)
            last = Part(last.source, bitmaps.extended(last.live, last.count, added), last.count + added)
        return View(segments, (*sealed, last))

    def search(self, request: SearchRequest) -> list[list[tuple[str, float]]]:
        """Search every part and merge what they find; equal scores in order of parts and rows."""
        found: list[_Found] = [(part, *part.source.search(request, part)) for part in self.segments if part.size]
        found += [(part, *part.source.search(request, part)) for part in self.deltas if part.size]
        return [_best(found, at, request.k) for at in range(len(request.queries))]


def _best(found: Sequence[_Found], query: int, k: int) -> list[tuple[str, float]]:
    hits = [
        (score, part, row)
        for part, rows, scores in found
        for row, score in zip(rows[query].tolist(), scores[query].tolist(), strict=True)
        if row >= 0
    ]
    if len(found) > 1:
        hits.sort(key=lambda hit: -hit[0])
    return [(part.source.name(row), score) for score, part, row in hits[:k]]
