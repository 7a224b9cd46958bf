"""Nearest vectors by inner product, on FAISS: exact, or through a graph.

The graph is HNSW: Malkov, Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical
Navigable Small World graphs", TPAMI 2018; M, ef_construction and ef_search are named as there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from index import bitmaps
from index.columns import Columns, allowed_rows
from rankers.errors import InvalidInputError
from rankers.filters import Filter

DenseKind = Literal["flat", "hnsw"]
VECTORS_FILE = "faiss.index"
IDS_FILE = "ids.json"
INFO_FILE = "dense.json"
EXACT_ROWS = 10_000
"""Where a filter allows at most so many rows, they are all compared: that is faster than a graph, and exact."""
MAX_EF_SEARCH = 10_000


class VectorIndex(Protocol):
    """Finds documents by their vectors: `DenseIndex` in memory, `index.spann.live.SpannIndex` on disk."""

    def __len__(self) -> int:
        """Count the documents."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of a vector, D."""
        ...

    def vectors(self, ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """Give vectors of documents back, float32 [len(ids), D]; raises `KeyError` for one that is not here."""
        ...

    def search(
        self,
        vectors: npt.NDArray[np.float32],
        k: int,
        *,
        condition: Filter | None = None,
        recall: float | None = None,
    ) -> list[list[tuple[str, float]]]:
        """Find the `k` nearest documents per query that satisfy a filter, and a share `recall` of them at least."""
        ...


class DenseIndex:
    """Finds documents by their vectors. Built or loaded once, then safe to search from threads.

    Parameters
    ----------
    vectors
        A FAISS index over N vectors whose metric is the inner product.
    ids
        Document ids in the order of the vectors.
    kind
        What `vectors` is.
    columns
        Metadata of the documents, to filter by.
    """

    def __init__(
        self, vectors: faiss.Index, ids: Sequence[str], kind: DenseKind, columns: Columns | None = None
    ) -> None:
        self.ids = tuple(ids)
        self.kind = kind
        self._vectors = vectors
        self._columns = columns

    @classmethod
    def build(
        cls,
        vectors: npt.NDArray[np.float32],
        ids: Sequence[str],
        kind: DenseKind = "flat",
        *,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        m: int = 32,
        ef_construction: int = 200,
        ef_search: int = 128,
    ) -> DenseIndex:
        """Index vectors.

        Parameters
        ----------
        vectors
            float32 [N, D], finite. Of unit length if scores are to be cosines.
        ids
            N document ids, unique.
        kind
            ``flat`` compares with every vector; ``hnsw`` walks a graph, faster from about 100,000 vectors on.
        metadata
            One mapping per vector, to filter by; None for none.
        m
            Neighbours per vector and layer of the graph.
        ef_construction
            Candidates looked at when a vector enters the graph.
        ef_search
            Candidates looked at by a search; more finds more of the true neighbours, more slowly.

        Returns
        -------
        DenseIndex
            In memory; see `save`.

        Raises
        ------
        InvalidInputError
            If shapes do not fit, a number is not finite, an id occurs twice, or there is no such kind.
        """
        if metadata is not None and len(metadata) != len(ids):
            raise InvalidInputError(f"{len(ids)} ids need as many metadata, got {len(metadata)}")
        if vectors.ndim != 2 or len(vectors) != len(ids):
            raise InvalidInputError(f"{len(ids)} ids need vectors [{len(ids)}, D], got shape {vectors.shape}")
        if len(set(ids)) < len(ids):
            raise InvalidInputError("a document id occurs twice; ids must be unique in an index")
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise InvalidInputError(f"the vector of document {ids[int(np.argmin(finite))]!r} is not finite")
        index = _empty_index(kind, vectors.shape[1], m=m, ef_construction=ef_construction, ef_search=ef_search)
        index.add(np.ascontiguousarray(vectors, dtype=np.float32))
        return cls(index, ids, kind, Columns.build(metadata or ({} for _ in ids)))

    def save(self, folder: Path) -> None:
        """Write the index to a folder, which is made if missing."""
        folder.mkdir(parents=True, exist_ok=True)
        faiss.write_index(self._vectors, str(folder / VECTORS_FILE))
        (folder / IDS_FILE).write_text(json.dumps(self.ids))
        if self._columns is not None:
            self._columns.save(folder)
        info = {"kind": self.kind, "documents": len(self), "dimensions": self.dimensions}
        (folder / INFO_FILE).write_text(json.dumps(info) + "\n")

    @classmethod
    def load(cls, folder: Path) -> DenseIndex:
        """Read an index that `save` wrote."""
        info = json.loads((folder / INFO_FILE).read_text())
        ids = json.loads((folder / IDS_FILE).read_text())
        return cls(faiss.read_index(str(folder / VECTORS_FILE)), ids, info["kind"], Columns.open_if_there(folder))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dimensions(self) -> int:
        """Length of a vector, D."""
        return int(self._vectors.d)

    def vectors(self, ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of documents, float32 [len(ids), D]; raises `KeyError` for one that is not here."""
        rows = np.array([self._rows[document_id] for document_id in ids], dtype=np.int64)
        found: npt.NDArray[np.float32] = self._vectors.reconstruct_batch(rows)
        return found

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {document_id: row for row, document_id in enumerate(self.ids)}

    def search(
        self,
        vectors: npt.NDArray[np.float32],
        k: int,
        *,
        condition: Filter | None = None,
        recall: float | None = None,  # noqa: ARG002 - of indexes that are tuned
    ) -> list[list[tuple[str, float]]]:
        """Find the documents with the greatest inner products.

        Parameters
        ----------
        vectors
            float32 [B, D], finite: one per query.
        k
            Most hits per query, at least 1.
        condition
            What the metadata of hits must satisfy.
        recall
            Has no effect: a flat index finds all, a graph was given its parameters when it was built.

        Returns
        -------
        list of list of tuple
            Document id and inner product per hit, best first; equal ones in input order. Fewer than `k` where there
            are fewer documents, or where a graph finds no more.

        Raises
        ------
        InvalidInputError
            If the vectors have another length or a number is not finite.
        NotReadyError
            If there is a filter, and the index was built before there were any.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dimensions:
            raise InvalidInputError(
                f"the index has vectors of {self.dimensions} dimensions, the query vectors have shape {vectors.shape}; "
                "embed queries with the encoder that embedded the documents"
            )
        if not np.isfinite(vectors).all():
            raise InvalidInputError("a query vector is not finite")
        if not len(self) or not len(vectors):
            return [[] for _ in vectors]
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        if condition is None:
            scores, positions = self._vectors.search(queries, min(k, len(self)))
        else:
            scores, positions = self._search_allowed(queries, k, allowed_rows(self._columns, condition))
        # FAISS leaves the order of equal scores open.
        order = np.lexsort((positions, -scores), axis=1)
        scores, positions = np.take_along_axis(scores, order, axis=1), np.take_along_axis(positions, order, axis=1)
        return [
            [(self.ids[i], score) for i, score in zip(row, row_scores, strict=True) if i >= 0]
            for row, row_scores in zip(positions.tolist(), scores.tolist(), strict=True)
        ]

    def _search_allowed(
        self, queries: npt.NDArray[np.float32], k: int, allowed: bitmaps.Bitmap
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        count = bitmaps.size(allowed)
        if not count:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        kernels: Any = faiss  # whose own stub lacks what follows
        vectors: Any = self._vectors
        selector = kernels.IDSelectorBitmap(allowed)
        parameters = kernels.SearchParameters(sel=selector)
        if self.kind == "hnsw" and count <= EXACT_ROWS:
            vectors = kernels.downcast_index(vectors.storage)
        elif self.kind == "hnsw":
            # As many allowed candidates as there would be without a filter.
            ef_search = min(int(vectors.hnsw.efSearch * len(self) / count), MAX_EF_SEARCH)
            parameters = kernels.SearchParametersHNSW(sel=selector, efSearch=ef_search)
        scores, positions = vectors.search(queries, min(k, count), params=parameters)
        return scores, positions


def _empty_index(kind: str, dimensions: int, *, m: int, ef_construction: int, ef_search: int) -> faiss.Index:
    if kind == "flat":
        return faiss.IndexFlatIP(dimensions)
    if kind == "hnsw":
        graph = faiss.IndexHNSWFlat(dimensions, m, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = ef_construction
        graph.hnsw.efSearch = ef_search
        return graph
    raise InvalidInputError(f"no dense index {kind!r}; there are flat and hnsw", field="dense_kind")
