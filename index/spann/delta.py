"""The delta buffer: vectors that are in no segment yet, searched exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from index.bitmaps import Bitmap, unpack
from index.columns import Columns
from index.spann.memory import ROW_BYTES
from index.spann.parameters import Metric
from index.spann.rows import Metadata
from rankers.filters import Filter, matches

FIRST_ROWS = 64
BLOCK_ROWS = 256
"""Rows whose metadata is sorted into columns together; those behind the last block are looked at one by one."""


class Delta:
    """Rows that are only ever appended: whoever knows a number of rows can read those while more are added.

    Parameters
    ----------
    dimensions
        Length of a vector, D.
    metric
        As of the index.
    """

    def __init__(self, dimensions: int, metric: Metric) -> None:
        self._metric = metric
        self._vectors = np.empty((FIRST_ROWS, dimensions), dtype=np.float32)
        self._rows_by_id: dict[str, int] = {}
        self._blocks: list[Columns] = []
        self.ids: list[str] = []
        self.metadata: list[Metadata] = []

    def __len__(self) -> int:
        return len(self.ids)

    def append(self, ids: Sequence[str], vectors: npt.NDArray[np.float32], metadata: Sequence[Metadata]) -> None:
        """Add rows; an id that is there already means its newest row from now on."""
        start, end = len(self.ids), len(self.ids) + len(ids)
        if end > len(self._vectors):
            grown = np.empty((max(end, 2 * len(self._vectors)), self._vectors.shape[1]), dtype=np.float32)
            grown[:start] = self._vectors[:start]
            self._vectors = grown  # readers keep the array they began with
        self._vectors[start:end] = vectors
        self.metadata.extend(metadata)
        while len(self.metadata) - len(self._blocks) * BLOCK_ROWS >= BLOCK_ROWS:
            first = len(self._blocks) * BLOCK_ROWS
            self._blocks.append(Columns.build(self.metadata[first : first + BLOCK_ROWS]))
        self._rows_by_id.update(zip(ids, range(start, end), strict=True))
        self.ids.extend(ids)

    @property
    def memory_bytes(self) -> int:
        """What it holds in memory; ids and metadata are estimated."""
        return self._vectors.nbytes + ROW_BYTES * len(self.ids)

    def find(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Give the newest row of each id: int64 [len(ids)], -1 where there is none."""
        return np.array([self._rows_by_id.get(name, -1) for name in ids], dtype=np.int64)

    def vectors(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Vectors of rows, float32 [len(rows), D]."""
        found: npt.NDArray[np.float32] = self._vectors[rows]
        return found

    def search(
        self, queries: npt.NDArray[np.float32], k: int, live: Bitmap, count: int, condition: Filter | None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Compare with every live row.

        Parameters
        ----------
        queries
            float32 [B, D], of unit length if the metric is the cosine.
        k
            Most hits per query.
        live
            Rows that were not deleted or replaced.
        count
            Rows there were when the search began.
        condition
            Rows that do not satisfy it are passed over.

        Returns
        -------
        tuple
            Rows int64 [B, at most k] and their scores float32, best first; equal ones in order of rows.
        """
        mask = unpack(live, count)
        if condition is not None:
            mask &= self._allowed(condition, count)
        scores = exact_scores(queries, self._vectors[:count], self._metric)
        scores[:, ~mask] = -np.inf
        k = min(k, int(mask.sum()))
        rows = np.argpartition(-scores, k - 1, axis=1)[:, :k] if 0 < k < count else np.arange(count)[None, :k]
        rows = np.broadcast_to(rows, (len(queries), k))
        scores = np.take_along_axis(scores, rows, axis=1)
        order = np.lexsort((rows, -scores), axis=1)
        return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)

    def _allowed(self, condition: Filter, count: int) -> npt.NDArray[np.bool_]:
        masks = [unpack(block.rows(condition), BLOCK_ROWS) for block in list(self._blocks)]
        rest = self.metadata[len(masks) * BLOCK_ROWS : count]
        masks.append(np.array([matches(condition, metadata) for metadata in rest], dtype=np.bool_))
        return np.concatenate(masks)[:count]


def exact_scores(
    queries: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32], metric: Metric
) -> npt.NDArray[np.float32]:
    """Scores of all pairs: float32 [B, N]; for L2 minus the squared distance."""
    if metric == "l2":
        return np.stack([-((vectors - query) ** 2).sum(axis=1) for query in queries])
    return queries @ vectors.T
