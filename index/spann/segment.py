"""An immutable part of an index: files in one folder that answer searches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from index.spann.curve import Curve, read_curve
from index.spann.kernels import faiss
from index.spann.parameters import Effort, Metric, SpannParameters
from index.spann.searching import Found, PostingSearch, count_bits, search_exactly
from index.spann.segment_build import EXACT_VECTORS, SEGMENT_FILE, VECTORS_FILE, build_segment, checksum
from index.spann.vectors import ArrayStream, RawVectors, VectorStream, prepare_vectors
from rankers.errors import CorruptIndexError, InvalidInputError

EXACT_ALLOWED = 8_192
"""With at most so many rows allowed all of them are compared."""
BLOCK_QUERIES = 128
Progress = Callable[[str, int, int], None]


class Segment:
    """Vectors, rows 0 to N - 1, and the structures that find the nearest. Safe to search from several threads.

    Made by `open`.

    Parameters
    ----------
    folder
        Where its files are.
    info
        What `SEGMENT_FILE` holds.
    prefetch
        Read postings and raw vectors all at once before they are used: faster where the disk must be read, a
        tenth of a millisecond slower where all is cached.
    """

    def __init__(self, folder: Path, info: dict[str, Any], *, prefetch: bool) -> None:
        self.folder = folder
        self.parameters = SpannParameters(**info["parameters"])
        self.dimensions = int(info["dimensions"])
        self.prefetch = prefetch
        self._length = int(info["vectors"])
        self._raw = RawVectors(folder / VECTORS_FILE, self.dimensions, self.metric)
        self._postings: PostingSearch | None = None
        self._curve: Curve | None = None
        if self._length > EXACT_VECTORS:
            self._postings = PostingSearch(folder, self._raw, self.parameters, prefetch=prefetch)
            self._curve = read_curve(folder)

    @classmethod
    def build(
        cls,
        folder: Path,
        vectors: VectorStream,
        *,
        parameters: SpannParameters,
        on_progress: Progress | None = None,
    ) -> None:
        """Build a segment; one whose build was killed goes on after the last phase that was finished.

        Parameters
        ----------
        folder
            A folder of its own, made if missing. What another build left there is removed.
        vectors
            N vectors; read once, and never all in memory.
        parameters
            What to build.
        on_progress
            Called with a phase, how many vectors it has done, and of how many.

        Raises
        ------
        InvalidInputError
            If a number is not finite, a vector is zero and the metric is the cosine, the memory is too little, or the
            folder holds a finished segment.
        """
        build_segment(folder, vectors, parameters, on_progress)

    @classmethod
    def open(cls, folder: Path, *, verify: bool = False, prefetch: bool = False) -> Segment:
        """Open a built segment.

        Parameters
        ----------
        folder
            Where `build` wrote.
        verify
            Read all files and compare their checksums, not only their sizes.
        prefetch
            See `Segment`.

        Returns
        -------
        Segment
            Ready to search.

        Raises
        ------
        CorruptIndexError
            If a file is missing or not what was written; the message names it.
        """
        return cls(folder, check_files(folder, verify=verify), prefetch=prefetch)

    def __len__(self) -> int:
        return self._length

    @property
    def metric(self) -> Metric:
        """What a score is."""
        return self.parameters.metric

    @property
    def head_count(self) -> int:
        """Heads, and postings; 0 where there are so few vectors that all are compared."""
        return self._postings.head_count if self._postings is not None else 0

    @property
    def curve(self) -> Curve | None:
        """What recall costs, None if that was never measured."""
        return self._curve

    @property
    def memory_bytes(self) -> int:
        """What a search holds in memory, pages of mapped files left out."""
        return self._postings.memory_bytes if self._postings is not None else 0

    def vectors(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Give the vectors of rows, int64 [n], as float32 [n, D]; of unit length if the metric is the cosine."""
        return np.ascontiguousarray(self._raw.array[rows])

    def stream(self) -> VectorStream:
        """Give all vectors in order."""
        return ArrayStream(self._raw.array)

    def close(self) -> None:
        """Let go of the files. No search may be under way, and none can follow."""
        if self._postings is not None:
            self._postings.close()
        self._raw.close()

    def search(
        self,
        queries: npt.NDArray[np.float32],
        k: int,
        *,
        allowed: npt.NDArray[np.uint8] | None = None,
        recall: float | None = None,
        effort: Effort | None = None,
        threads: int = 1,
    ) -> Found:
        """Find the best rows for queries.

        Parameters
        ----------
        queries
            float32 [B, D].
        k
            Rows per query, at least 1.
        allowed
            uint8 [N / 8 rounded up]: bit i of byte b is 1 if row 8 b + i may be found. None allows all.
        recall
            Share of the true best ten to find, over 0 and at most 1; what it takes was fitted by `fit_curve`.
        effort
            The internals instead of `recall`.
        threads
            Threads for a batch. Several callers may search at the same time too.

        Returns
        -------
        tuple of numpy.ndarray
            Rows, int64 [B, k], best first, -1 where there are no more; and their exact scores, float32 [B, k].

        Raises
        ------
        InvalidInputError
            If shapes do not fit, a number is not finite, or `k` or `recall` is out of range.
        """
        if k < 1:
            raise InvalidInputError(f"k must be at least 1, got {k}", field="k")
        queries = self.prepare(queries)
        effort = effort or self._effort(recall)
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        if not len(queries) or not self._length:
            return rows, scores
        few = self._few(allowed)
        before = faiss.omp_get_max_threads()
        if threads != before:
            faiss.omp_set_num_threads(threads)
        try:
            for start in range(0, len(queries), BLOCK_QUERIES):
                block = slice(start, start + BLOCK_QUERIES)
                if self._postings is None or few is not None:
                    every = np.arange(self._length) if few is None else few
                    found = search_exactly(self._raw, queries[block], k, every, fetch=self.prefetch)
                else:
                    found = self._postings.search(queries[block], k, allowed, effort)
                width = found[0].shape[1]
                rows[block, :width], scores[block, :width] = found
        finally:
            if threads != before:
                faiss.omp_set_num_threads(before)
        return rows, scores

    def prepare(self, queries: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Check queries, and give them unit length if the metric is the cosine; raises `InvalidInputError`."""
        if queries.ndim != 2 or queries.shape[1] != self.dimensions:
            raise InvalidInputError(
                f"the index has vectors of {self.dimensions} dimensions, the queries have shape {queries.shape}; "
                "use the encoder that embedded the documents"
            )
        return prepare_vectors(queries.astype(np.float32, copy=False), self.metric, what="query")

    def _effort(self, recall: float | None) -> Effort:
        if recall is not None and not 0 < recall <= 1:
            raise InvalidInputError(f"recall must be over 0 and at most 1, got {recall}", field="recall")
        return self._curve.effort(recall) if self._curve is not None else Effort()

    def _few(self, allowed: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.int64] | None:
        """Give the allowed rows if they are few enough to compare with all of them, else None."""
        if allowed is not None and len(allowed) != -(-self._length // 8):
            raise InvalidInputError(
                f"{self._length:,} rows need {-(-self._length // 8):,} bytes of bits, got {len(allowed)}"
            )
        if allowed is None or (self._postings is not None and count_bits(allowed) > EXACT_ALLOWED):
            return None
        return np.flatnonzero(np.unpackbits(allowed, count=self._length, bitorder="little"))

    def read_bytes(self, queries: npt.NDArray[np.float32], effort: Effort) -> float:
        """Say how many bytes of pages a query touches in the mean: postings, and vectors compared exactly."""
        if self._postings is None:
            return float(4 * self.dimensions * self._length)
        return self._postings.read_bytes(queries, effort)


def check_files(folder: Path, *, verify: bool) -> dict[str, Any]:
    """Compare the files of a segment with what `SEGMENT_FILE` says of them, and give what it holds."""
    path = folder / SEGMENT_FILE
    try:
        info = json.loads(path.read_text())
        files = info["files"].items()
        SpannParameters(**info["parameters"])
    except FileNotFoundError as error:
        raise CorruptIndexError(f"{path} is missing: the segment was never finished, or was removed") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptIndexError(f"{path} cannot be read ({error}); restore it from a snapshot") from error
    for name, expected in files:
        part = folder / name
        if not part.exists():
            raise CorruptIndexError(f"{part} is missing; restore it from a snapshot or build again")
        size = part.stat().st_size
        if size != expected["bytes"]:
            raise CorruptIndexError(
                f"{part} has {size:,} bytes instead of {expected['bytes']:,}; restore it from a snapshot"
            )
        if verify and checksum(part) != expected["crc32"]:
            raise CorruptIndexError(f"{part} has changed since it was written (checksum); restore it from a snapshot")
    return cast(dict[str, Any], info)
