"""An index that is written to while it is searched."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from index import bitmaps
from index.spann import files
from index.spann.background import BackgroundMerge
from index.spann.building import segment_entry
from index.spann.memory import MERGE_ROWS, MOST_DELTA
from index.spann.merging import MOST_DEAD, MergeInput, MergeStoppedError, build_segment, choose, fit_to_memory
from index.spann.operations import Deletion, Operation, checked_ids, checked_put, checked_vectors, encode
from index.spann.parameters import Metric, SpannParameters
from index.spann.parts import AnyPart, Part, SearchRequest, SegmentSource, View
from index.spann.recovery import Recovered, empty_part, recover
from index.spann.rows import Metadata
from index.spann.store import Store
from rankers.errors import InvalidInputError, NotReadyError, OverloadedError, ShortlistError, StorageError
from rankers.filters import Filter

WRITE_TIMEOUT_S = 60.0
RETRY_S = 10.0


class SpannIndex:
    """Vectors on disk by document id: searched, written to, merged and copied at the same time.

    Any number of threads may call any method. One process at a time may open an index for writing; others may open it
    read-only, and see what had been acknowledged by then.

    **A write** is in the log, on disk, before the call returns, and visible to searches that begin after that. Its
    rows go to a delta buffer that is compared exactly; rows they replace are masked.

    **Writes that outrun merges wait.** With four times as many rows in the delta buffer as begin a merge, a write waits
    until the merge that is running has taken some away. So the buffer never holds more, unless one call brings more.

    **A merge** builds a new segment of the delta buffer and of segments that are small beside it or have many dead
    rows, while searches and writes go on. It becomes current by one rename. Files that are no longer needed are removed
    when the last search that uses them is over.

    Open one with `open`; make one with `index.spann.building`.
    """

    def __init__(
        self, root: Path, recovered: Recovered, *, lock: int | None, merge_rows: int | None, write_timeout_s: float
    ) -> None:
        self.root = root
        self._view = recovered.view
        self._store = Store(root, recovered, lock)
        budgeted = self._store.manifest.parameters.delta_rows(self.dimensions)
        if merge_rows is not None and budgeted is not None:
            merge_rows = min(merge_rows, budgeted // MOST_DELTA)
        self._merge_rows = merge_rows
        self._write_timeout_s = write_timeout_s
        self._write_lock = threading.Lock()
        self._merge_lock = threading.Lock()
        self._background = BackgroundMerge(self.merge, self._write_lock)
        self._is_closed = threading.Event()

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        read_only: bool = False,
        merge_rows: int | None = MERGE_ROWS,
        write_timeout_s: float = WRITE_TIMEOUT_S,
        verify: bool = False,
    ) -> SpannIndex:
        """Open an index.

        Parameters
        ----------
        root
            Its folder.
        read_only
            Whether to leave writing to others.
        merge_rows
            Rows in the delta buffer from which it is merged in the background, or fewer if the memory budget of the
            index allows only those; None never does, and then it is for the caller to merge before there are too many.
        write_timeout_s
            How long a write may wait for a merge.
        verify
            Whether to compare all checksums, which reads every file.

        Returns
        -------
        SpannIndex
            As it was when the last write was acknowledged. Close it, or use it in a ``with`` statement.

        Raises
        ------
        NotReadyError
            If there is no index.
        CorruptIndexError
            If a file is missing or damaged; the message names it.
        OverloadedError
            If it is open for writing elsewhere.
        """
        if read_only:
            recovered = recover(root, verify=verify)
            return cls(root, recovered, lock=None, merge_rows=None, write_timeout_s=write_timeout_s)
        if not root.is_dir():
            raise NotReadyError(f"there is no index at {root}; build it")
        lock = files.hold_lock(root)
        try:
            recovered = recover(root, verify=verify)
            for path in files.orphans(root, recovered.manifest):
                files.remove(path)
            return cls(root, recovered, lock=lock, merge_rows=merge_rows, write_timeout_s=write_timeout_s)
        except BaseException:
            os.close(lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self._view.size

    @property
    def dimensions(self) -> int:
        """Length of a vector, D."""
        return self._store.manifest.dimensions

    @property
    def metric(self) -> Metric:
        """What scores are."""
        return self._store.manifest.parameters.metric

    @property
    def segments(self) -> tuple[SegmentSource, ...]:
        """The segments, from old to new."""
        return tuple(part.source for part in self._view.segments)

    @property
    def merge_error(self) -> ShortlistError | None:
        """Why the last merge in the background failed, None if it did not."""
        return self._background.error

    @property
    def delta_rows(self) -> int:
        """Rows that are alive in delta buffers."""
        return sum(part.size for part in self._view.deltas)

    @property
    def memory_bytes(self) -> int:
        """What searches hold in memory, pages of mapped files left out; `max_memory_mb` bounds it."""
        return sum(part.memory_bytes for part in self._view.parts)

    def ids(self) -> Iterator[str]:
        """All ids, as they were when the first is read; by parts, and rows within them."""
        for part in self._view.parts:
            yield from (part.source.name(row) for row in part.live_rows.tolist())

    def fetch(self, ids: Sequence[str]) -> dict[str, tuple[npt.NDArray[np.float32], Metadata]]:
        """Look up vector and metadata by id; ids that are not there are absent from the result."""
        with self._write_lock:  # the look-up by name knows the newest rows only
            return {
                part.source.name(row): (part.source.vectors(np.array([row]))[0], part.source.fields(row))
                for part in self._view.parts
                for row in part.find(ids).tolist()
            }

    def vectors(self, ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of documents, float32 [len(ids), D]; raises `KeyError` for one that is not here."""
        found = self.fetch(ids)
        return np.array([found[document_id][0] for document_id in ids], np.float32).reshape(-1, self.dimensions)

    def search(
        self,
        vectors: npt.NDArray[np.float32],
        k: int,
        *,
        condition: Filter | None = None,
        recall: float | None = None,
        threads: int = 1,
    ) -> list[list[tuple[str, float]]]:
        """Find the nearest vectors.

        Parameters
        ----------
        vectors
            float32 [B, D], finite: one per query.
        k
            Most hits per query, at least 1.
        condition
            What the metadata of hits must satisfy.
        recall
            Share of the true nearest ones to find, as tuned; None for the default of the segments.
        threads
            Threads that one call may use.

        Returns
        -------
        list of list of tuple
            Id and score per hit, greatest score first: the inner product, the cosine, or minus the squared distance.

        Raises
        ------
        InvalidInputError
            If the vectors have another length, a number is not finite, or `k` is under 1.
        NotReadyError
            If the index has been closed.
        """
        if k < 1:
            raise InvalidInputError(f"k is {k}, must be at least 1", field="k")
        if vectors.ndim != 2 or vectors.shape[1] != self.dimensions:
            raise InvalidInputError(
                f"the index has vectors of {self.dimensions} dimensions, the query vectors have shape {vectors.shape}; "
                "embed queries with the encoder that embedded the documents"
            )
        queries = checked_vectors(vectors, self.metric, [f"query vector {i}" for i in range(len(vectors))])
        if self._is_closed.is_set():
            raise NotReadyError(f"the index at {self.root} has been closed")
        return self._view.search(SearchRequest(queries, k, condition, recall, threads))

    def add(
        self, ids: Sequence[str], vectors: npt.NDArray[np.floating], metadata: Sequence[Metadata] | None = None
    ) -> None:
        """Add rows, all or none of them; they are on disk and can be found when this returns.

        Parameters
        ----------
        ids
            Unique, and none of them in the index.
        vectors
            [len(ids), D], finite.
        metadata
            JSON objects to filter by, one per id.

        Raises
        ------
        InvalidInputError
            If anything cannot be indexed, or an id is there already.
        OverloadedError
            If the delta buffer is full and no merge has made room in time; nothing was written.
        StorageError
            If the disk is full or fails.
        """
        self._put(ids, vectors, metadata, only_new=True)

    def replace(
        self, ids: Sequence[str], vectors: npt.NDArray[np.floating], metadata: Sequence[Metadata] | None = None
    ) -> None:
        """Do as `add`, but take the place of the rows that have these ids, where there are any."""
        self._put(ids, vectors, metadata, only_new=False)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete rows by id and say how many there were; unknown ids are no error. On disk when this returns."""
        checked_ids(ids)
        with self._write_lock:
            self._check_writable()
            present = tuple(self._view.present(ids))
            if present:
                self._write(Deletion(present))
                self._merge_if_due()
        return len(present)

    def merge(self, *, full: bool = False) -> None:
        """Merge the delta buffer, and the segments that it pays to rebuild with it, into one new segment.

        Parameters
        ----------
        full
            Whether to rebuild everything as one segment.

        Raises
        ------
        StorageError
            If the disk is full or fails; the index stays as it was.
        """
        with self._merge_lock:
            self._seal()
            segments, (*deltas, _) = self._view.segments, self._view.deltas
            chosen = choose(segments, sum(part.size for part in deltas), full=full)
            given = self._store.manifest.parameters
            chosen, parameters = fit_to_memory(chosen, segments, deltas, given, self.dimensions)
            if not deltas and len(chosen) <= 1 and all(part.size == part.count for part in chosen):
                return
            parts: list[AnyPart] = [*chosen, *deltas]
            inputs = [MergeInput(part, part.live_rows) for part in parts]
            built = self._build(inputs, parameters) if any(len(one.rows) for one in inputs) else None
            try:
                self._commit(inputs, built)
            except ShortlistError:
                if built is not None:
                    self._store.discard(built)
                raise

    def settle(self) -> None:
        """Wait for the merge in the background, and do one if it is due; raises what that raises."""
        with self._write_lock:
            self._background.wait()
            is_due = self._is_merge_due()
        if is_due:
            self.merge()

    def snapshot(self, target: Path) -> None:
        """Copy the index as it is now into a new folder that stands on its own; writes go on meanwhile.

        Parameters
        ----------
        target
            A folder that does not exist. It can be opened as it is, or given to `restore`.

        Raises
        ------
        InvalidInputError
            If `target` exists.
        StorageError
            If the disk is full or fails.
        """
        with self._merge_lock:  # so that no file is removed
            with self._write_lock:
                manifest, log_end = self._store.manifest, self._store.log_end
            files.copy_index(self.root, manifest, log_end, target)

    def close(self) -> None:
        """Stop a merge in the background and close the files; what was acknowledged stays."""
        self._is_closed.set()
        with self._write_lock:
            self._background.wait()
        with self._merge_lock, self._write_lock:
            self._store.close()
            self._view = View()

    def _put(
        self,
        ids: Sequence[str],
        vectors: npt.NDArray[np.floating],
        metadata: Sequence[Metadata] | None,
        *,
        only_new: bool,
    ) -> None:
        put = checked_put(ids, vectors, metadata, dimensions=self.dimensions, metric=self.metric)
        if not put.ids:
            return
        with self._write_lock:
            self._wait_for_room(len(put.ids))
            self._check_writable()
            if only_new and (present := next(self._view.present(put.ids), None)) is not None:
                raise InvalidInputError(f"id {present!r} is in the index; use replace", field="ids")
            self._write(put)
            self._merge_if_due()

    def _write(self, operation: Operation) -> None:
        self._store.append(encode(operation))
        self._view = self._view.after(operation)

    def _check_writable(self) -> None:
        if self._is_closed.is_set() or not self._store.is_writable:
            state = "has been closed" if self._is_closed.is_set() else "is open read-only"
            raise NotReadyError(f"the index at {self.root} {state}; open it for writing")

    def _wait_for_room(self, rows: int) -> None:
        """Wait until the delta buffer may take so many rows; whatever they are, if it is empty."""
        if self._merge_rows is None:
            return
        most, ends_at = MOST_DELTA * self._merge_rows, time.monotonic() + self._write_timeout_s
        while self._buffered and self._buffered + rows > most:
            self._check_writable()
            self._background.start()
            if not self._background.wait(ends_at - time.monotonic()):
                raise OverloadedError(
                    f"the delta buffer of the index at {self.root} has {self._buffered:,} rows of at most {most:,}, "
                    f"and no merge made room within {self._write_timeout_s:g} s; write more slowly, or wait for longer",
                    retry_after_s=RETRY_S,
                )
            self._check_writable()  # being closed may be why the merge failed
            if self._background.error is not None:
                reason = self._background.error
                raise StorageError(
                    f"the delta buffer of the index at {self.root} is full and cannot be merged: {reason}"
                ) from reason

    @property
    def _buffered(self) -> int:
        """Rows in delta buffers, dead ones too: those whose memory is taken."""
        return sum(part.count for part in self._view.deltas)

    def _is_merge_due(self) -> bool:
        dead = any(part.size < (1 - MOST_DEAD) * part.count for part in self._view.segments)
        return self._merge_rows is not None and (dead or self._buffered >= self._merge_rows)

    def _merge_if_due(self) -> None:
        if self._is_merge_due():
            self._background.start()

    def _seal(self) -> None:
        """End the current log and its delta buffer, if they hold anything, and begin new ones."""
        with self._write_lock:
            self._check_writable()
            entry = self._store.seal()
            if entry is not None:
                delta = empty_part(self._store.manifest, entry)
                self._view = View(self._view.segments, (*self._view.deltas, delta))

    def _build(self, inputs: Sequence[MergeInput], parameters: SpannParameters) -> SegmentSource:
        folder = files.new_segment_folder(self.root)
        try:
            build_segment(folder, inputs, parameters, self.dimensions, self._check_open)
            return SegmentSource(self.root, segment_entry(folder))
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError | RuntimeError):  # FAISS tells of a full disk with the latter
                raise StorageError(f"{folder} cannot be built: {error}; make room and merge again") from error
            raise

    def _commit(self, inputs: Sequence[MergeInput], built: SegmentSource | None) -> None:
        """Put a new segment in the place of the inputs it was built of; rows deleted meanwhile are dead in it."""
        replaced = {id(one.part.source) for one in inputs}
        with self._write_lock:
            self._check_open()
            now = {id(part.source): part for part in self._view.parts}
            segments = [part for part in self._view.segments if id(part.source) not in replaced]
            if built is not None:
                mask = np.concatenate([bitmaps.has(now[id(one.part.source)].live, one.rows) for one in inputs])
                live = built.saved_live if mask.all() else bitmaps.pack(mask)
                segments.append(Part(built, live, len(mask)))
            deltas = [part for part in self._view.deltas if id(part.source) not in replaced]
            self._store.commit(segments, deltas)
            self._view = View(tuple(segments), tuple(deltas))
        for one in inputs:
            if isinstance(one.part.source, SegmentSource):
                one.part.source.retire()

    def _check_open(self) -> None:
        if self._is_closed.is_set():
            raise MergeStoppedError(f"the index at {self.root} was closed during a merge")
