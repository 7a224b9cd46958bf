"""Streams of vectors, for collections that do not fit in memory, and the file that keeps them as they came."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from index.spann.kernels import faiss
from index.spann.memory import PAGE_BYTES
from index.spann.parameters import Metric
from rankers.errors import InvalidInputError


class VectorStream(Protocol):
    """Vectors in a fixed order that can be read as often as wanted."""

    @property
    def dimensions(self) -> int:
        """Length of a vector, D."""

    def __len__(self) -> int:
        """Count the vectors, N."""

    def blocks(self, rows: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yield all vectors in order, as float32 [at most `rows`, D]; the same ones at every call."""


class ArrayStream:
    """An array [N, D] as a stream; also one that is mapped from a file, and of another type of float.

    Parameters
    ----------
    vectors
        [N, D]; converted block by block.
    """

    def __init__(self, vectors: npt.NDArray[np.floating]) -> None:
        if vectors.ndim != 2:
            raise InvalidInputError(f"vectors must have shape [N, D], got {vectors.shape}")
        self._vectors = vectors

    @property
    def dimensions(self) -> int:
        """Length of a vector, D."""
        return int(self._vectors.shape[1])

    def __len__(self) -> int:
        return len(self._vectors)

    def blocks(self, rows: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yield all vectors in order, as float32 [at most `rows`, D]."""
        for start in range(0, len(self._vectors), rows):
            yield np.ascontiguousarray(self._vectors[start : start + rows], dtype=np.float32)


def prepare_vectors(
    vectors: npt.NDArray[np.float32], metric: Metric, *, first_row: int = 0, what: str = "vector"
) -> npt.NDArray[np.float32]:
    """Check vectors, and give them unit length if the metric is the cosine.

    Parameters
    ----------
    vectors
        float32 [N, D].
    metric
        What they are compared by.
    first_row
        Row of the first one, for messages.
    what
        What they are, for messages.

    Returns
    -------
    numpy.ndarray
        float32 [N, D], contiguous.

    Raises
    ------
    InvalidInputError
        If a number is not finite, or a vector has no direction where one is needed.
    """
    # A sum is finite only if its terms are: one pass, without an array of N x D booleans.
    with np.errstate(over="ignore", invalid="ignore"):
        sums = vectors.sum(axis=1)
    if not np.isfinite(sums).all():
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            row = int(np.argmin(finite))
            raise InvalidInputError(
                f"{what} {first_row + row} has a number that is not finite; leave it out or repair it"
            )
    if metric != "cosine":
        return np.ascontiguousarray(vectors)
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    if not norms.all():
        row = int(np.argmin(norms))
        raise InvalidInputError(f"{what} {first_row + row} is zero and has no cosine with anything; leave it out")
    if not np.isfinite(norms).all():
        row = int(np.argmin(np.isfinite(norms)))
        raise InvalidInputError(f"{what} {first_row + row} is too long for float32; divide its numbers by the greatest")
    return np.ascontiguousarray(vectors / norms)


class MappedFile:
    """A file read through a map.

    Parameters
    ----------
    path
        The file.
    read_ahead
        Whether to read more than the pages that are touched, for those who read all of it.
    """

    def __init__(self, path: Path, *, read_ahead: bool = False) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        size = os.fstat(self._descriptor).st_size
        self.content: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
        if size:
            mapped = mmap.mmap(self._descriptor, size, prot=mmap.PROT_READ)
            if not read_ahead:
                # Without this a fault can read megabytes.
                mapped.madvise(mmap.MADV_RANDOM)
            self.content = np.frombuffer(mapped, np.uint8)

    def fetch(self, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> None:
        """Ask the system to read ranges of bytes, all at the same time, without waiting for them."""
        starts, stops = starts // PAGE_BYTES, -(-stops // PAGE_BYTES)
        order = np.argsort(starts)
        starts, stops = starts[order], np.maximum.accumulate(stops[order])
        gaps = np.flatnonzero(starts[1:] > stops[:-1]) + 1
        first = np.concatenate(([0], gaps))
        last = np.concatenate((gaps, [len(starts)])) - 1
        for start, stop in zip(starts[first].tolist(), stops[last].tolist(), strict=True):
            os.posix_fadvise(self._descriptor, start * PAGE_BYTES, (stop - start) * PAGE_BYTES, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Let go of the file; the map goes with the last array that shows it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self.content = np.empty(0, np.uint8)


class RawVectors:
    """The vectors of a segment as they came, in a mapped file, and exact scores from it.

    Parameters
    ----------
    path
        float32 [N, D], row by row.
    dimensions
        D.
    metric
        What a score is.
    """

    def __init__(self, path: Path, dimensions: int, metric: Metric) -> None:
        self._file = MappedFile(path)
        self._metric = metric
        self.array: npt.NDArray[np.float32] = self._file.content.view(np.float32).reshape(-1, dimensions)

    def __len__(self) -> int:
        return len(self.array)

    def scores(
        self, queries: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], *, fetch: bool = False
    ) -> npt.NDArray[np.float32]:
        """Score rows exactly.

        Parameters
        ----------
        queries
            float32 [B, D], contiguous.
        rows
            int64 [B, n], contiguous; -1 where there is none.
        fetch
            Read what is not in memory all at once.

        Returns
        -------
        numpy.ndarray
            float32 [B, n]; minus infinity where the row is -1.
        """
        if fetch:
            wanted = np.unique(rows[rows >= 0])
            row_bytes = 4 * self.array.shape[1]
            if len(wanted):
                self._file.fetch(wanted * row_bytes, (wanted + 1) * row_bytes)
        scores = np.empty(rows.shape, np.float32)
        kernel = faiss.fvec_L2sqr_by_idx if self._metric == "l2" else faiss.fvec_inner_products_by_idx
        kernel(
            faiss.swig_ptr(scores),
            faiss.swig_ptr(queries),
            faiss.swig_ptr(self.array),
            faiss.swig_ptr(rows),
            self.array.shape[1],
            *rows.shape,
        )
        if self._metric == "l2":
            np.negative(scores, out=scores)
        return scores

    def close(self) -> None:
        """Let go of the file."""
        self.array = self.array[:0].copy()
        self._file.close()
