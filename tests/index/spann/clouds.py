"""Small collections with clusters, and brute force over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from index.spann.parameters import Metric


def cloud(count: int, dimensions: int = 16, *, seed: int = 0, clusters: int = 60) -> npt.NDArray[np.float32]:
    """Draw vectors around centres that depend on `dimensions` and `clusters` alone."""
    centres = np.random.default_rng(99).normal(size=(clusters, dimensions))
    random = np.random.default_rng(seed)
    noise = 0.4 * random.normal(size=(count, dimensions))
    return (centres[random.integers(0, clusters, count)] + noise).astype(np.float32)


def true_scores(
    vectors: npt.NDArray[np.float32], queries: npt.NDArray[np.float32], metric: Metric
) -> npt.NDArray[np.float64]:
    """Score everything, [Q, N], in double precision."""
    x, q = vectors.astype(np.float64), queries.astype(np.float64)
    if metric == "cosine":
        x, q = x / np.linalg.norm(x, axis=1, keepdims=True), q / np.linalg.norm(q, axis=1, keepdims=True)
    if metric == "l2":
        scores: npt.NDArray[np.float64] = -((q[:, None] - x[None]) ** 2).sum(axis=2)
        return scores
    products: npt.NDArray[np.float64] = q @ x.T
    return products


def recall(found: npt.NDArray[np.float32], truth: npt.NDArray[np.float64], k: int = 10) -> float:
    """Share of hits that score no less than the true k-th, so that ties count."""
    least = -np.sort(-truth, axis=1)[:, k - 1 : k]
    return float((found[:, :k] >= least - 1e-4 * np.maximum(1, np.abs(least))).mean())


class StoppingStream:
    """A stream that breaks after some vectors, as a killed build does.

    Parameters
    ----------
    vectors
        What it gives.
    after
        Vectors before it raises `KeyboardInterrupt`; None: it gives all.
    """

    def __init__(self, vectors: npt.NDArray[np.float32], after: int | None = None) -> None:
        self._vectors = vectors
        self._after = after
        self.given = 0

    @property
    def dimensions(self) -> int:
        return int(self._vectors.shape[1])

    def __len__(self) -> int:
        return len(self._vectors)

    def blocks(self, rows: int) -> Iterator[npt.NDArray[np.float32]]:
        for start in range(0, len(self), rows):
            if self._after is not None and start >= self._after:
                raise KeyboardInterrupt
            block = self._vectors[start : start + rows]
            self.given += len(block)
            yield block


def stop_at(phase: str) -> Callable[[str, int, int], None]:
    """Give a progress function that interrupts a build at the first report of a phase."""

    def progress(name: str, done: int, total: int) -> None:
        if name == phase:
            raise KeyboardInterrupt

    return progress
