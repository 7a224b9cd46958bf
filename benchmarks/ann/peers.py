"""The indexes that are compared, behind the same three functions; each imports its library itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
EFS = (16, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256, 384, 512, 768, 1024)
PROBES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


class Peer(Protocol):
    """An index of unit vectors by inner product."""

    knobs: tuple[Any, ...]
    """Settings of a search, from little to much work."""

    def build(self, base: Vectors, folder: Path) -> None:
        """Write an index of float32 [N, D] into a folder."""

    def open(self, folder: Path, threads: int) -> None:
        """Open it for searches with so many threads."""

    def search(self, queries: Vectors, k: int, knob: Any) -> Rows:
        """Find rows, int64 [Q, k]."""


class Spann:
    """Ours. `options` are parameters of the build."""

    knobs = tuple(
        (lists, rerank)
        for lists, rerank in zip(
            (8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 224, 256, 320, 384, 512, 768, 1024),
            (20, 20, 20, 25, 25, 25, 40, 40, 40, 40, 40, 50, 50, 60, 60, 60, 60, 60, 60, 60, 60),
            strict=True,
        )
    )

    def __init__(self, *, prefetch: bool = False, **options: Any) -> None:
        self._options = options
        self._prefetch = prefetch

    def build(self, base: Vectors, folder: Path) -> None:
        from index.spann.parameters import SpannParameters
        from index.spann.segment import Segment
        from index.spann.vectors import ArrayStream

        Segment.build(folder, ArrayStream(base), parameters=SpannParameters(**self._options))

    def open(self, folder: Path, threads: int) -> None:
        from index.spann.segment import Segment

        self._segment = Segment.open(folder, prefetch=self._prefetch)
        self._threads = threads

    def search(self, queries: Vectors, k: int, knob: Any) -> Rows:
        from index.spann.parameters import Effort

        effort = Effort(lists=knob[0], rerank=knob[1])
        return self._segment.search(queries, k, effort=effort, threads=self._threads)[0]


class HnswLib:
    knobs = EFS

    def build(self, base: Vectors, folder: Path) -> None:
        import hnswlib

        index = hnswlib.Index("ip", base.shape[1])
        index.init_index(len(base), M=32, ef_construction=200)
        index.add_items(base, num_threads=1)
        index.save_index(str(folder / "index.hnswlib"))
        (folder / "dimensions").write_text(str(base.shape[1]))

    def open(self, folder: Path, threads: int) -> None:
        import hnswlib

        self._index = hnswlib.Index("ip", int((folder / "dimensions").read_text()))
        self._index.load_index(str(folder / "index.hnswlib"))
        self._index.set_num_threads(threads)

    def search(self, queries: Vectors, k: int, knob: Any) -> Rows:
        self._index.set_ef(knob)
        return np.asarray(self._index.knn_query(queries, k)[0], np.int64)


class Usearch:
    knobs = EFS

    def build(self, base: Vectors, folder: Path) -> None:
        from usearch.index import Index

        index = Index(ndim=base.shape[1], metric="ip", dtype="f32", connectivity=32, expansion_add=200)
        index.add(np.arange(len(base)), base, threads=1)
        index.save(str(folder / "index.usearch"))

    def open(self, folder: Path, threads: int) -> None:
        from usearch.index import Index

        self._index = Index.restore(str(folder / "index.usearch"))
        self._threads = threads

    def search(self, queries: Vectors, k: int, knob: Any) -> Rows:
        self._index.expansion_search = knob
        found = self._index.search(queries if len(queries) > 1 else queries[0], k, threads=self._threads)
        return np.asarray(found.keys, np.int64).reshape(len(queries), k)


class LanceDb:
    """IVF-PQ with a second look at the raw vectors, the kind of index its documentation starts with."""

    knobs = tuple((probes, refine) for probes in (4, 8, 16, 32, 64, 128) for refine in (5, 20))

    def build(self, base: Vectors, folder: Path) -> None:
        import lancedb
        import pyarrow as pa

        values = pa.FixedSizeListArray.from_arrays(pa.array(base.reshape(-1)), base.shape[1])
        table = lancedb.connect(str(folder)).create_table(
            "base", pa.table({"row": np.arange(len(base)), "vector": values})
        )
        partitions = 2 ** round(math.log2(math.sqrt(len(base))))
        table.create_index(metric="dot", num_partitions=partitions, num_sub_vectors=base.shape[1] // 8)

    def open(self, folder: Path, threads: int) -> None:  # noqa: ARG002 - it has no such setting
        import lancedb

        self._table = lancedb.connect(str(folder)).open_table("base")

    def search(self, queries: Vectors, k: int, knob: Any) -> Rows:
        found = np.full((len(queries), k), -1, np.int64)
        for i, query in enumerate(queries):
            search = self._table.search(query).distance_type("dot").nprobes(knob[0]).refine_factor(knob[1])
            rows = search.select(["row"]).limit(k).to_arrow()["row"].to_numpy()
            found[i, : len(rows)] = rows
        return found


class DiskAnn:
    """Microsoft's DiskANN on disk: codes in memory, the graph and the vectors in a file."""

    knobs = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)

    def build(self, base: Vectors, folder: Path) -> None:
        import diskannpy

        diskannpy.build_disk_index(
            data=base,
            distance_metric="l2",  # the order of unit vectors is the same
            index_directory=str(folder),
            complexity=100,
            graph_degree=64,
            search_memory_maximum=len(base) * base.shape[1] / 4 / 2**30,
            build_memory_maximum=8,
            num_threads=1,
            pq_disk_bytes=0,
            vector_dtype=np.float32,
        )

    def open(self, folder: Path, threads: int) -> None:
        import diskannpy

        self._index = diskannpy.StaticDiskIndex(
            index_directory=str(folder), num_threads=threads, num_nodes_to_cache=0, vector_dtype=np.float32
        )
        self._threads = threads

    def search(self, queries: Vectors, k: int, knob: Any) -> Rows:
        if len(queries) == 1:
            return np.asarray(self._index.search(queries[0], k, knob, beam_width=4).identifiers, np.int64)[None]
        found = self._index.batch_search(queries, k, knob, num_threads=self._threads, beam_width=4)
        return np.asarray(found.identifiers, np.int64)


class DiskAnnRust:
    """The same system rewritten by its authors in Rust."""

    knobs = DiskAnn.knobs

    def build(self, base: Vectors, folder: Path) -> None:
        import diskannpy

        diskannpy.build_disk_index(
            data=base,
            distance_metric="l2",
            index_directory=str(folder),
            complexity=100,
            graph_degree=64,
            build_memory_maximum=8,
            num_threads=1,
            num_of_pq_chunks=base.shape[1] // 4,
            vector_dtype=np.float32,
        )

    def open(self, folder: Path, threads: int) -> None:
        import diskannpy

        self._index = diskannpy.StaticDiskIndex(
            index_directory=str(folder),
            num_threads=threads,
            beam_width=4,
            distance_metric="l2",
            vector_dtype=np.float32,
        )
        self._threads = threads

    def search(self, queries: Vectors, k: int, knob: Any) -> Rows:
        if len(queries) == 1:
            return np.asarray(self._index.search(queries[0], k, knob).identifiers, np.int64)[None]
        found = self._index.batch_search(queries, k, knob, num_threads=self._threads)
        return np.asarray(found.identifiers, np.int64).reshape(len(queries), k)
