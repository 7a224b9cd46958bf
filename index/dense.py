"""Nearest vectors by inner product, on FAISS: exact, or through a graph.

The graph is HNSW: Malkov, Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical
Navigable Small World graphs", TPAMI 2018; M, ef_construction and ef_search are named as there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import faiss
import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError

DenseKind = Literal["flat", "hnsw"]
VECTORS_FILE = "faiss.index"
IDS_FILE = "ids.json"
INFO_FILE = "dense.json"


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
    """

    def __init__(self, vectors: faiss.Index, ids: Sequence[str], kind: DenseKind) -> None:
        self.ids = tuple(ids)
        self.kind = kind
        self._vectors = vectors

    @classmethod
    def build(
        cls,
        vectors: npt.NDArray[np.float32],
        ids: Sequence[str],
        kind: DenseKind = "flat",
        *,
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
        if vectors.ndim != 2 or len(vectors) != len(ids):
            raise InvalidInputError(f"{len(ids)} ids need vectors [{len(ids)}, D], got shape {vectors.shape}")
        if len(set(ids)) < len(ids):
            raise InvalidInputError("a document id occurs twice; ids must be unique in an index")
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise InvalidInputError(f"the vector of document {ids[int(np.argmin(finite))]!r} is not finite")
        index = _empty_index(kind, vectors.shape[1], m=m, ef_construction=ef_construction, ef_search=ef_search)
        index.add(np.ascontiguousarray(vectors, dtype=np.float32))
        return cls(index, ids, kind)

    def save(self, folder: Path) -> None:
        """Write the index to a folder, which is made if missing."""
        folder.mkdir(parents=True, exist_ok=True)
        faiss.write_index(self._vectors, str(folder / VECTORS_FILE))
        (folder / IDS_FILE).write_text(json.dumps(self.ids))
        info = {"kind": self.kind, "documents": len(self), "dimensions": self.dimensions}
        (folder / INFO_FILE).write_text(json.dumps(info) + "\n")

    @classmethod
    def load(cls, folder: Path) -> DenseIndex:
        """Read an index that `save` wrote."""
        info = json.loads((folder / INFO_FILE).read_text())
        ids = json.loads((folder / IDS_FILE).read_text())
        return cls(faiss.read_index(str(folder / VECTORS_FILE)), ids, info["kind"])

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dimensions(self) -> int:
        """Length of a vector, D."""
        return int(self._vectors.d)

    def search(self, vectors: npt.NDArray[np.float32], k: int) -> list[list[tuple[str, float]]]:
        """Find the documents with the greatest inner products.

        Parameters
        ----------
        vectors
            float32 [B, D], finite: one per query.
        k
            Most hits per query, at least 1.

        Returns
        -------
        list of list of tuple
            Document id and inner product per hit, best first; equal ones in input order. Fewer than `k` where there
            are fewer documents, or where a graph finds no more.

        Raises
        ------
        InvalidInputError
            If the vectors have another length or a number is not finite.
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
        scores, positions = self._vectors.search(np.ascontiguousarray(vectors, dtype=np.float32), min(k, len(self)))
        # FAISS leaves the order of equal scores open.
        order = np.lexsort((positions, -scores), axis=1)
        scores, positions = np.take_along_axis(scores, order, axis=1), np.take_along_axis(positions, order, axis=1)
        return [
            [(self.ids[i], score) for i, score in zip(row, row_scores, strict=True) if i >= 0]
            for row, row_scores in zip(positions.tolist(), scores.tolist(), strict=True)
        ]


def _empty_index(kind: str, dimensions: int, *, m: int, ef_construction: int, ef_search: int) -> faiss.Index:
    if kind == "flat":
        return faiss.IndexFlatIP(dimensions)
    if kind == "hnsw":
        graph = faiss.IndexHNSWFlat(dimensions, m, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = ef_construction
        graph.hnsw.efSearch = ef_search
        return graph
    raise InvalidInputError(f"no dense index {kind!r}; there are flat and hnsw", field="dense_kind")
