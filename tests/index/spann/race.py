"""Readers and a writer at the same time, who compare what they see."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.spann.building import build_index
from index.spann.live import SpannIndex
from index.spann.vectors import ArrayStream

DIMENSIONS = 8


def drawn(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Draw vectors, float32 [count, DIMENSIONS]."""
    return np.random.default_rng(seed).normal(size=(count, DIMENSIONS)).astype(np.float32)


def names(count: int) -> list[str]:
    """Name as many documents."""
    return [f"d{i}" for i in range(count)]


class Race:
    """One writer and several readers, who compare what they find with what the writer says.

    Of every id there is the list of its versions: its vector, and the moments between which it may have been alive:
    from before the call that wrote it until after the call that replaced it.
    """

    def __init__(self, root: Path, *, rows: int, seed: int) -> None:
        build_index(root, [(name, {}) for name in names(rows)], ArrayStream(drawn(rows)))
        self.root = root
        self.wrong: list[str] = []
        self.searches = self.writes = 0
        self._ended = threading.Event()
        self._choose = random.Random(seed)
        self._versions: dict[str, list[list[Any]]] = {
            name: [[vector, 0.0, float("inf")]] for name, vector in zip(names(rows), drawn(rows), strict=True)
        }
        self._ids = names(rows + rows // 3)

    def run(self, *, seconds: float, readers: int) -> None:
        """Let them run."""
        with SpannIndex.open(self.root, merge_rows=64) as index:
            threads = [threading.Thread(target=self._guarded, args=(self._write, index))]
            threads += [threading.Thread(target=self._guarded, args=(self._read, index)) for _ in range(readers)]
            for thread in threads:
                thread.start()
            self._ended.wait(seconds)
            self._ended.set()
            for thread in threads:
                thread.join()
            if index.merge_error is not None:
                self.wrong.append(str(index.merge_error))

    def _guarded(self, loop: Callable[[SpannIndex], None], index: SpannIndex) -> None:
        try:
            while not self._ended.is_set():
                loop(index)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is to show it
            self.wrong.append(repr(error))
            self._ended.set()

    def _write(self, index: SpannIndex) -> None:
        ids = self._choose.sample(self._ids, self._choose.choice([1, 5, 20]))
        before = time.perf_counter()
        if self._choose.random() < 0.4:
            index.delete(ids)
        else:
            vectors = drawn(len(ids), seed=self.writes + 1000)
            for name, vector in zip(ids, vectors, strict=True):
                self._versions.setdefault(name, []).append([vector, before, float("inf")])
            index.replace(ids, vectors)
        after = time.perf_counter()
        for name in ids:
            for version in self._versions.get(name, []):
                if version[1] < before and version[2] == float("inf"):
                    version[2] = after
        self.writes += 1

    def _read(self, index: SpannIndex) -> None:
        query = np.random.default_rng(self.searches).normal(size=(1, DIMENSIONS)).astype(np.float32)
        before = time.perf_counter()
        (hits,) = index.search(query, 10)
        after = time.perf_counter()
        self.searches += 1
        if len({name for name, _ in hits}) < len(hits):
            self.wrong.append(f"an id is there twice: {hits}")
        for name, score in hits:
            alive = [vector for vector, start, end in list(self._versions[name]) if start <= after and end >= before]
            if not any(abs(float(vector @ query[0]) - score) < 1e-4 for vector in alive):
                self.wrong.append(f"{name} with {score} was not alive; {len(alive)} versions were")
