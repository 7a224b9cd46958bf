"""Hierarchical balanced k-means: the heads that stand for a collection.

Chen et al., "SPANN: Highly-efficient Billion-scale Approximate Nearest Neighbor Search", NeurIPS 2021, section 3.2. A
part of the collection is split into at most `BRANCHES` clusters, each of which is split again, until every cluster has
its share of heads: one.

The paper's heads are the real vectors nearest the centres. Ours start there and are moved to the means of what is
nearest to them, then out to the mean length of those vectors: a mean lies inside the shell that long vectors of many
dimensions form, nearer to everything. On 100,000 embeddings of sentences this reads a third fewer codes at the same
recall.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from index.spann.heads import HeadIndex

BRANCHES = 32
ROUNDS = 6
SAMPLE_PER_BRANCH = 128
BALANCE = 0.1
"""Weight of a cluster's size in the cost of joining it, relative to the mean squared distance."""
BLOCK_ROWS = 16_384
NEAREST_ROWS = 4_096


def choose_heads(
    vectors: npt.NDArray[np.float32],
    count: int,
    *,
    seed: int = 0,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> npt.NDArray[np.int64]:
    """Choose vectors that stand for balanced clusters.

    Parameters
    ----------
    vectors
        float32 [N, D], usually mapped from a file; read in blocks.
    count
        Heads wanted, 1 to N. Where vectors are equal there may be fewer.
    seed
        Of samples.
    on_progress
        Called with ``"heads"``, vectors done and N.

    Returns
    -------
    numpy.ndarray
        int64, rows of the heads, each once; those of near clusters lie near one another.
    """
    random = np.random.default_rng(seed)
    heads: list[npt.NDArray[np.int64]] = []
    done = 0
    # Each entry: rows of a part, and the heads it is worth.
    waiting = [(np.arange(len(vectors)), count)]
    while waiting:
        rows, share = waiting.pop()
        labels, nearest = _split(vectors, rows, min(share, BRANCHES), random)
        sizes = np.bincount(labels, minlength=len(nearest))
        shares = np.maximum(1, share * sizes // len(rows))
        # Equal vectors cannot be told apart: a part that no split divides is worth one head.
        whole = len(nearest) == 1
        order = np.argsort(labels, kind="stable")
        parts = np.split(rows[order], np.cumsum(sizes)[:-1])
        for part, part_share, head in zip(parts, shares.tolist(), rows[nearest].tolist(), strict=True):
            if part_share == 1 or whole:
                heads.append(np.asarray([head]))
                done += len(part)
            else:
                waiting.append((part, part_share))
        if on_progress is not None:
            on_progress("heads", done, len(vectors))
    return np.concatenate(heads)


def move_heads(vectors: npt.NDArray[np.float32], heads: HeadIndex) -> npt.NDArray[np.float32]:
    """Move heads to the middle of what is nearest to them.

    Parameters
    ----------
    vectors
        float32 [N, D], usually mapped from a file; read in blocks.
    heads
        Compared by L2.

    Returns
    -------
    numpy.ndarray
        float32 [H, D]: the mean of the vectors nearest to each head, scaled to their mean length. One that nothing is
        nearest to, or whose mean is zero, stays.
    """
    sums = np.zeros(heads.array.shape, np.float32)
    lengths = np.zeros(len(heads))
    counts = np.zeros(len(heads), np.int64)
    for start in range(0, len(vectors), NEAREST_ROWS):
        block = np.ascontiguousarray(vectors[start : start + NEAREST_ROWS])
        nearest = heads.search(block, 1)[0][:, 0]
        order = np.argsort(nearest, kind="stable")
        used, starts = np.unique(nearest[order], return_index=True)
        sums[used] += np.add.reduceat(block[order], starts, axis=0)
        lengths += np.bincount(nearest, weights=np.linalg.norm(block, axis=1), minlength=len(heads))
        counts += np.bincount(nearest, minlength=len(heads))
    norms = np.linalg.norm(sums, axis=1)
    moves = (norms > 0) & (counts > 0)
    moved = heads.array.copy()
    moved[moves] = sums[moves] * (lengths[moves] / counts[moves] / norms[moves])[:, None]
    return moved


def _split(
    vectors: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], clusters: int, random: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Give each row's cluster, and the position in `rows` of the vector nearest each centre; no cluster is empty."""
    sample = rows
    if len(rows) > clusters * SAMPLE_PER_BRANCH:
        sample = np.sort(random.choice(rows, clusters * SAMPLE_PER_BRANCH, replace=False))
    centres = _centres(np.asarray(vectors[sample]), clusters, random)
    labels = np.empty(len(rows), np.int64)
    least = np.full(len(centres), np.inf)
    nearest = np.zeros(len(centres), np.int64)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = vectors[rows[start : start + BLOCK_ROWS]]
        costs = _squared_distances(block, centres)
        chosen = np.argmin(costs, axis=1)
        labels[start : start + len(block)] = chosen
        cost = costs[np.arange(len(block)), chosen]
        # The last of those written to one place stays, so the nearest must come last.
        order = np.argsort(-cost, kind="stable")
        best = np.full(len(centres), -1)
        best[chosen[order]] = order
        better = np.flatnonzero((best >= 0) & (cost[best] < least))
        least[better], nearest[better] = cost[best[better]], best[better] + start
    used, labels = np.unique(labels, return_inverse=True)
    return labels, nearest[used]


def _centres(sample: npt.NDArray[np.float32], clusters: int, random: np.random.Generator) -> npt.NDArray[np.float32]:
    """Fit centres by Lloyd's rounds in which joining a large cluster costs more."""
    centres = sample[random.choice(len(sample), clusters, replace=False)].copy()
    counts = np.zeros(clusters)
    for _ in range(ROUNDS):
        costs = _squared_distances(sample, centres)
        scale = max(float(costs.min(axis=1).mean()), 0.0)
        labels = np.argmin(costs + (BALANCE * scale * clusters / len(sample)) * counts.astype(np.float32), axis=1)
        counts = np.bincount(labels, minlength=clusters).astype(np.float64)
        order = np.argsort(labels, kind="stable")
        used = np.flatnonzero(counts)
        starts = np.concatenate(([0], np.cumsum(counts[used])[:-1])).astype(np.int64)
        centres[used] = np.add.reduceat(sample[order], starts, axis=0) / counts[used, None]
    return centres


def _squared_distances(block: npt.NDArray[np.float32], centres: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    squares = np.einsum("ij,ij->i", block, block)[:, None] + np.einsum("ij,ij->i", centres, centres)
    distances: npt.NDArray[np.float32] = squares - 2 * (block @ centres.T)
    return distances
