"""The vectors: normalised, with the true neighbours of the queries, in float32 files that every peer can map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

K = 10
BLOCK_ROWS = 50_000


def prepare(source: str, folder: Path, *, queries: int) -> None:
    """Write ``base.npy``, ``queries.npy`` and ``truth.npy`` (scores of the true best ten) unless they are there.

    `source` is a folder with ``base.f16.npy`` and ``queries.f16.npy``, or ``synthetic:N:D``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "truth.npy").exists():
        return
    if source.startswith("synthetic:"):
        count, dimensions = map(int, source.split(":")[1:])
        asked = _clusters(folder / "base.npy", count, dimensions, queries)
    else:
        np.save(folder / "base.npy", np.load(Path(source) / "base.f16.npy").astype(np.float32))
        asked = np.load(Path(source) / "queries.f16.npy").astype(np.float32)[:queries]
    np.save(folder / "queries.npy", asked)
    base = np.load(folder / "base.npy", mmap_mode="r")
    best = np.full((len(asked), K), -np.inf, np.float32)
    for start in range(0, len(base), BLOCK_ROWS):
        scores = asked @ np.asarray(base[start : start + BLOCK_ROWS]).T
        scores = np.concatenate((best, -np.partition(-scores, K, axis=1)[:, :K]), axis=1)
        best = -np.sort(-scores, axis=1)[:, :K]
    np.save(folder / "truth.npy", best)


def _clusters(path: Path, count: int, dimensions: int, queries: int) -> npt.NDArray[np.float32]:
    """Draw unit vectors around centres whose sizes differ tenfold, in a space of lower rank, as embeddings are."""
    random = np.random.default_rng(0)
    clusters = max(10, count // 500)
    rank = dimensions // 2
    basis = random.normal(size=(rank, dimensions)).astype(np.float32)
    centres = random.normal(size=(clusters, rank)).astype(np.float32)
    weights = random.lognormal(sigma=1.0, size=clusters)
    base = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, dimensions))
    asked = np.empty((queries, dimensions), np.float32)
    for target in (base, asked):
        for start in range(0, len(target), BLOCK_ROWS):
            size = min(BLOCK_ROWS, len(target) - start)
            chosen = random.choice(clusters, size, p=weights / weights.sum())
            block = (centres[chosen] + 0.6 * random.normal(size=(size, rank)).astype(np.float32)) @ basis
            block += 0.5 * random.normal(size=block.shape).astype(np.float32)
            target[start : start + size] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return asked
