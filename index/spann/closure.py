"""Closure assignment: which postings a vector is in.

A vector near the border of two clusters goes into both, so that a query there needs to read only one (Chen et al.,
NeurIPS 2021, section 3.2.2). The relative neighbourhood rule leaves out a head that an earlier one stands for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from index.spann.heads import HeadIndex

CANDIDATES_PER_REPLICA = 3
LEAST_CANDIDATES = 8


def assign_replicas(
    vectors: npt.NDArray[np.float32], heads: HeadIndex, *, replicas: int, rng_factor: float = 1.0
) -> npt.NDArray[np.int32]:
    """Choose the postings of vectors.

    Heads are visited from the nearest on. Head c is rejected if `rng_factor` * d(c, s) < d(x, c) for a chosen head s.

    Parameters
    ----------
    vectors
        float32 [B, D], contiguous.
    heads
        All heads, at least one, compared by L2.
    replicas
        Most postings per vector, R.
    rng_factor
        The rule's factor, 1 in the paper; distances are Euclidean.

    Returns
    -------
    numpy.ndarray
        int32 [B, R]: heads, nearest first; -1 where there are fewer.
    """
    candidates = min(len(heads), max(LEAST_CANDIDATES, CANDIDATES_PER_REPLICA * replicas))
    rows, to_vector = heads.search(vectors, candidates)
    if replicas == 1:
        return rows[:, :1].astype(np.int32)
    near = heads.array[rows]
    squares = np.einsum("bcd,bcd->bc", near, near)
    between = squares[:, :, None] + squares[:, None, :] - 2 * (near @ near.transpose(0, 2, 1))
    chosen = np.full((len(vectors), replicas), -1, np.int32)
    chosen_count = np.zeros(len(vectors), np.int64)
    covered = rows < 0
    for place in range(candidates):
        who = np.flatnonzero(~covered[:, place] & (chosen_count < replicas))
        chosen[who, chosen_count[who]] = rows[who, place]
        chosen_count[who] += 1
        covered[who] |= rng_factor**2 * between[who, place] < to_vector[who]
    return chosen
