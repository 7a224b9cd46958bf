"""The part of an index that is in memory: the heads, and a way to those nearest a query.

Up to `SCANNED_HEADS` all heads are scanned in the compressed form of André et al., "Quicker ADC", TPAMI 2019, which for
some ten thousand heads is faster than a graph and takes less memory than its links; over that they are the nodes of a
graph (HNSW). The nearest are then compared exactly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.spann.durable import whole_file
from index.spann.kernels import FaissIndex, faiss
from index.spann.memory import SCANNED_HEADS
from index.spann.parameters import Metric

VECTORS_FILE = "heads.f32"
ACCESS_FILE = "heads.faiss"
CODED_HEADS = 512
"""Fewer heads are compared exactly right away."""
TRAINED_HEADS = 16_384
SPARE_HEADS = 32
"""Candidates beyond half as many again as the heads wanted."""
GRAPH_NEIGHBOURS = 16
GRAPH_CONSTRUCTION = 100


class HeadIndex:
    """Finds the heads nearest to queries.

    Parameters
    ----------
    flat
        The FAISS index that holds the heads, float32 [H, D].
    access
        A FAISS index that finds candidates, or None where all heads are compared.
    metric
        What the index compares by; a cosine is an inner product here.
    """

    def __init__(self, flat: FaissIndex, access: Any, metric: Metric) -> None:
        self.flat = flat
        self._access = access
        self._l2 = metric == "l2"
        self._greatest_norm = 0.0
        if flat.ntotal:
            self.array: npt.NDArray[np.float32] = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(
                flat.ntotal, flat.d
            )
            self._greatest_norm = float(np.einsum("hd,hd->h", self.array, self.array).max())
        else:
            self.array = np.empty((0, flat.d), np.float32)
        self._pointer = faiss.swig_ptr(self.array) if flat.ntotal else None

    @classmethod
    def build(cls, heads: npt.NDArray[np.float32], metric: Metric) -> HeadIndex:
        """Index heads.

        Parameters
        ----------
        heads
            float32 [H, D].
        metric
            What they are compared by.

        Returns
        -------
        HeadIndex
            In memory; see `save`.
        """
        flat = _flat(heads, metric)
        access = None
        if len(heads) > SCANNED_HEADS:
            access = faiss.IndexHNSWFlat(heads.shape[1], GRAPH_NEIGHBOURS, flat.metric_type)
            access.hnsw.efConstruction = GRAPH_CONSTRUCTION
            access.add(heads)
        elif len(heads) > CODED_HEADS:
            access = _scanned(heads, flat.metric_type)
        return cls(flat, access, metric)

    def save(self, folder: Path) -> None:
        """Write `ACCESS_FILE` if there are many heads, then `VECTORS_FILE`."""
        if self._access is not None:
            with whole_file(folder / ACCESS_FILE) as part:
                faiss.write_index(self._access, str(part), faiss.IO_FLAG_SKIP_STORAGE)
        with whole_file(folder / VECTORS_FILE) as part:
            self.array.tofile(part)

    @classmethod
    def open(cls, folder: Path, dimensions: int, metric: Metric) -> HeadIndex:
        """Read what `save` wrote.

        Parameters
        ----------
        folder
            Where the files are.
        dimensions
            D.
        metric
            As given to `build`.

        Returns
        -------
        HeadIndex
            In memory.
        """
        heads = np.fromfile(folder / VECTORS_FILE, np.float32).reshape(-1, dimensions)
        flat = _flat(heads, metric)
        access = None
        if len(heads) > SCANNED_HEADS:
            access = faiss.read_index(str(folder / ACCESS_FILE), faiss.IO_FLAG_SKIP_STORAGE)
            access.own_fields = False
            access.storage = flat
        elif len(heads) > CODED_HEADS:
            access = faiss.read_index(str(folder / ACCESS_FILE))
        return cls(flat, access, metric)

    def __len__(self) -> int:
        return int(self.flat.ntotal)

    @property
    def memory_bytes(self) -> int:
        """What it holds in memory: the heads, and the codes or the graph by which they are found."""
        return self.array.nbytes + _access_bytes(self._access)

    def search(
        self, queries: npt.NDArray[np.float32], count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Find the nearest heads.

        Parameters
        ----------
        queries
            float32 [B, D], contiguous.
        count
            Heads wanted, at most H.

        Returns
        -------
        tuple of numpy.ndarray
            int64 and float32 [B, count]: heads, nearest first, and their inner products with the query, or their
            squared distances from it. A head of -1 is none.
        """
        size = len(queries)
        candidates = count + count // 2 + SPARE_HEADS
        if self._access is None or candidates > len(self):
            candidates = len(self)
        rows = np.empty((size, candidates), np.int64)
        scores = np.empty((size, candidates), np.float32)
        if candidates == len(self):
            rows[:] = np.arange(len(self))
        else:
            parameters = None
            if len(self) > SCANNED_HEADS:
                parameters = faiss.SearchParametersHNSW(efSearch=candidates)
            self._access.search_c(
                size, faiss.swig_ptr(queries), candidates, faiss.swig_ptr(scores), faiss.swig_ptr(rows), parameters
            )
        kernel = faiss.fvec_L2sqr_by_idx if self._l2 else faiss.fvec_inner_products_by_idx
        kernel(
            faiss.swig_ptr(scores),
            faiss.swig_ptr(queries),
            self._pointer,
            faiss.swig_ptr(rows),
            queries.shape[1],
            size,
            candidates,
        )
        if size == 1:
            first = (scores[0] if self._l2 else -scores[0]).argsort()[:count]
            return rows[:, first], scores[:, first]
        order = np.argsort(scores if self._l2 else -scores, axis=1)[:, :count]
        return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)

    def distances(self, queries: npt.NDArray[np.float32], scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Turn what `search` gives into squared distances.

        An inner product s becomes |q|^2 + max |head|^2 - 2 s: the distance once every head is given one more number
        that makes all of them equally long (Bachrach et al., RecSys 2014), and the plain one for unit vectors.
        """
        if self._l2:
            return scores
        squares = np.einsum("bd,bd->b", queries, queries)[:, None] + np.float32(self._greatest_norm)
        distances: npt.NDArray[np.float32] = squares - 2 * scores
        return distances


def _access_bytes(access: Any) -> int:
    if access is None:
        return 0
    if isinstance(access, faiss.IndexPQFastScan):
        return int(access.codes.size() + 4 * access.pq.centroids.size())
    graph = access.hnsw
    return int(4 * graph.neighbors.size() + 8 * graph.offsets.size() + 4 * graph.levels.size())


def _flat(heads: npt.NDArray[np.float32], metric: Metric) -> FaissIndex:
    flat = faiss.IndexFlatL2(heads.shape[1]) if metric == "l2" else faiss.IndexFlatIP(heads.shape[1])
    if len(heads):
        flat.add(heads)
    return flat


def _scanned(heads: npt.NDArray[np.float32], metric: int) -> FaissIndex:
    """Give heads as codes of four bits per two numbers, or per four where the number of dimensions allows it."""
    dimensions = heads.shape[1]
    width = next(width for width in (4, 2, 1) if dimensions % width == 0)
    access = faiss.IndexPQFastScan(dimensions, dimensions // width, 4, metric)
    access.pq.cp.niter = 10
    # FAISS warns on standard error under 39 per centroid, which is up to 623 heads.
    access.pq.cp.min_points_per_centroid = 1
    access.train(heads[:: max(1, len(heads) // TRAINED_HEADS)])
    access.add(heads)
    return access
