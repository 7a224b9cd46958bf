"""Which documents of a corpus to write queries for: some of every topic, typical ones first.

DUQGen (Chandradevan, Dhole, Agichtein, "DUQGen: Effective Unsupervised Domain Adaptation of Neural Rankers by
Diversifying Synthetic Query Generation", NAACL 2024): k-means over document vectors, as many documents of a
cluster as its size is worth, drawn in it with the softmax of their similarity to its centre.
"""

from __future__ import annotations

import faiss
import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError

ITERATIONS = 20
"""Of k-means."""


def sample_diverse(
    vectors: npt.NDArray[np.float32], count: int, *, clusters: int, temperature: float = 1.0, seed: int = 0
) -> list[int]:
    """Draw documents from all clusters of a corpus.

    A document x of the cluster with centre c is drawn, without replacement, with probability proportional to
    exp(x . c / temperature): the `count` greatest of x . c / temperature + Gumbel noise are such a draw.

    Parameters
    ----------
    vectors
        float32 [N, D], of unit length.
    count
        Documents wanted, at least 1; all if there are no more.
    clusters
        Number of clusters, at least 1; as many as there are documents, if those are fewer.
    temperature
        Above 0; the smaller, the nearer to the centres.
    seed
        The same seed gives the same documents.

    Returns
    -------
    list of int
        Places in `vectors`, ascending.

    Raises
    ------
    InvalidInputError
        If a number is out of range, or there are no documents.
    """
    if not len(vectors) or count < 1 or clusters < 1 or temperature <= 0:
        raise InvalidInputError(
            f"cannot draw {count} of {len(vectors)} documents from {clusters} clusters at temperature {temperature}; "
            "all must be above 0"
        )
    similarity, cluster = _cluster(vectors, min(clusters, len(vectors)), seed)
    noise = np.random.default_rng(seed).gumbel(size=len(vectors))
    keys = similarity / temperature + noise
    chosen: list[int] = []
    for number, quota in enumerate(apportion(np.bincount(cluster, minlength=clusters), min(count, len(vectors)))):
        members = np.flatnonzero(cluster == number)
        chosen += members[np.argsort(-keys[members], kind="stable")[:quota]].tolist()
    return sorted(chosen)


def apportion(sizes: npt.NDArray[np.int64], count: int) -> list[int]:
    """Share places among clusters in proportion to their sizes, by largest remainder (Hamilton's method).

    Parameters
    ----------
    sizes
        Members of each cluster, K of them, at least one in all.
    count
        Places, at most as many as there are members.

    Returns
    -------
    list of int
        Places of each cluster; none gets more than it has members, and all are given out.

    Examples
    --------
    >>> apportion(np.array([6, 3, 1]), 5)
    [3, 2, 0]
    """
    exact = sizes * count / sizes.sum()
    places = np.floor(exact).astype(np.int64)
    for cluster in np.argsort(places - exact, kind="stable")[: count - places.sum()]:
        places[cluster] += 1
    found: list[int] = places.tolist()
    return found


def _cluster(
    vectors: npt.NDArray[np.float32], clusters: int, seed: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Similarity of each vector to the centre of its cluster [N], and which cluster that is [N]."""
    means = faiss.Kmeans(vectors.shape[1], clusters, niter=ITERATIONS, seed=seed, min_points_per_centroid=1)
    means.train(np.ascontiguousarray(vectors))
    _, nearest = means.assign(np.ascontiguousarray(vectors))
    centres: npt.NDArray[np.float32] = np.asarray(means.centroids)
    centres = centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    return (vectors * centres[nearest]).sum(axis=1, dtype=np.float64), nearest
