"""The indexes of FAISS."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.ann.peers import EFS, PROBES, Rows, Vectors


class Faiss:
    """An index of FAISS that is one file. `make` gives it, trained and full; `turn` sets a knob."""

    def __init__(
        self, make: Callable[[Vectors, Path], Any], turn: Callable[[Any, int], None], knobs: tuple[int, ...]
    ) -> None:
        self.knobs = knobs
        self._make = make
        self._turn = turn

    def build(self, base: Vectors, folder: Path) -> None:
        from index.spann.kernels import faiss

        faiss.write_index(self._make(base, folder), str(folder / "index.faiss"))

    def open(self, folder: Path, threads: int) -> None:
        from index.spann.kernels import faiss

        faiss.omp_set_num_threads(threads)
        self._index = faiss.read_index(str(folder / "index.faiss"))

    def search(self, queries: Vectors, k: int, knob: Any) -> Rows:
        self._turn(self._index, knob)
        rows: Rows = self._index.search(queries, k)[1]
        return rows


def _flat(base: Vectors) -> Any:
    from index.spann.kernels import faiss

    index = faiss.IndexFlatIP(base.shape[1])
    index.add(base)
    return index


def _hnsw(base: Vectors) -> Any:
    from index.spann.kernels import faiss

    index = faiss.IndexHNSWFlat(base.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 200
    index.add(base)
    return index


def _ivf(base: Vectors) -> Any:
    from index.spann.kernels import faiss

    lists = 2 ** round(math.log2(3 * math.sqrt(len(base))))
    index = faiss.index_factory(base.shape[1], f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(base[: 64 * lists])
    index.add(base)
    return index


def _ivf_on_disk(base: Vectors, folder: Path) -> Any:
    """As FAISS's own demo of on-disk lists does it."""
    from index.spann.kernels import faiss

    index = _ivf(base)
    lists = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(folder / "lists.ivfdata"))
    lists.merge_from(index.invlists, 0)
    index.replace_invlists(lists, True)
    lists.this.disown()
    return index


def _turn_hnsw(index: Any, ef: int) -> None:
    index.hnsw.efSearch = ef


def _turn_ivf(index: Any, probes: int) -> None:
    index.nprobe = probes


def _turn_nothing(index: Any, knob: int) -> None:
    pass


FAISS_PEERS: dict[str, Callable[[], Faiss]] = {
    "faiss-flat": lambda: Faiss(lambda base, _: _flat(base), _turn_nothing, (0,)),
    "faiss-hnsw": lambda: Faiss(lambda base, _: _hnsw(base), _turn_hnsw, EFS),
    "faiss-ivfflat": lambda: Faiss(lambda base, _: _ivf(base), _turn_ivf, PROBES),
    "faiss-ivf-ondisk": lambda: Faiss(_ivf_on_disk, _turn_ivf, PROBES),
}
