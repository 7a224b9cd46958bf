"""What a wanted recall takes: efforts measured on held-out queries, kept beside the segment.

`fit_curve` measures a grid of efforts and keeps those that no other beats in both recall and latency. A search with
``recall=0.95`` takes the fastest that reached it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from index.spann.curve import Curve, Point, write_curve
from index.spann.kernels import faiss
from index.spann.parameters import Effort
from index.spann.segment import Segment
from rankers.errors import InvalidInputError

LISTS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
PRUNING = (1.1, 1.2, 1.35, math.inf)
RERANK = (20, 40, 80, 160, 320)
ENOUGH = 0.999
"""More lists are not tried once the recall is this high."""
TIE = 1e-5
"""Relative difference below which two scores are equal."""
BLOCK_ROWS = 65_536
NEIGHBOURS = 50
Progress = Callable[[str, int, int], None]


def fit_curve(
    segment: Segment, queries: npt.NDArray[np.float32], *, k: int = 10, on_progress: Progress | None = None
) -> Curve:
    """Measure what recall costs on a segment, and keep it beside the segment, where the next `Segment.open` finds it.

    Parameters
    ----------
    segment
        To be searched.
    queries
        float32 [Q, D]: like those that will come, and not in the segment; a few hundred.
    k
        Hits that recall counts.
    on_progress
        Called with ``"tuning"``, efforts measured and efforts at most.

    Returns
    -------
    Curve
        As written.

    Raises
    ------
    InvalidInputError
        If there are no queries, or fewer than `k` vectors.
    """
    if not len(queries) or len(segment) < k:
        raise InvalidInputError(
            f"tuning needs at least one query and {k} vectors, got {len(queries)} and {len(segment)}; add some first"
        )
    queries = segment.prepare(queries)
    least = true_scores(segment, queries, k)[:, -1]
    segment.search(queries, k)
    points = []
    total = len(LISTS) * len(PRUNING) * len(RERANK)
    for done, effort in enumerate(_grid(segment.head_count)):
        points.append(_measure(segment, queries, k, least, effort))
        if on_progress is not None:
            on_progress("tuning", min(done + 1, total - 1), total)
        if points[-1].recall >= ENOUGH and effort.pruning == math.inf and effort.rerank == RERANK[-1]:
            break
    if on_progress is not None:
        on_progress("tuning", total, total)
    curve = Curve(k, len(queries), tuple(unbeaten(points)), len(segment))
    write_curve(segment.folder, curve)
    return curve


def queries_between(segment: Segment, count: int = 300, *, seed: int = 0) -> npt.NDArray[np.float32]:
    """Make queries where none are at hand: points half-way between a vector and one of its neighbours.

    A vector of the index as a query would find itself, which is easier than what people ask.

    Parameters
    ----------
    segment
        Whose vectors.
    count
        Queries; fewer where there are fewer vectors.
    seed
        Of the choice.

    Returns
    -------
    numpy.ndarray
        float32 [Q, D].
    """
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(len(segment), min(count, len(segment)), replace=False))
    vectors = segment.vectors(chosen)
    neighbours, _ = segment.search(vectors, NEIGHBOURS)
    column = random.integers(0, NEIGHBOURS, len(chosen))
    other = neighbours[np.arange(len(chosen)), column]
    between: npt.NDArray[np.float32] = vectors + segment.vectors(np.where(other >= 0, other, chosen))
    between *= np.float32(0.5)
    return between[np.any(between != 0, axis=1)]


def true_scores(segment: Segment, queries: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.float32]:
    """Give the scores of the true best `k` by comparing with everything, float32 [Q, k], best first."""
    metric = faiss.METRIC_L2 if segment.metric == "l2" else faiss.METRIC_INNER_PRODUCT
    best: npt.NDArray[np.float32] = np.full((len(queries), k), -np.inf, np.float32)
    for block in segment.stream().blocks(BLOCK_ROWS):
        scores, _ = faiss.knn(queries, block, min(k, len(block)), metric=metric)
        scores = -scores if segment.metric == "l2" else scores
        scores = np.concatenate((best, scores), axis=1)
        best = np.partition(scores, -k, axis=1)[:, -k:]
    return np.sort(best, axis=1)[:, ::-1]


def unbeaten(points: list[Point]) -> Iterator[Point]:
    """Give the points that no other beats in both latency and recall, from the least recall to the greatest."""
    best = -1.0
    for point in sorted(points, key=lambda point: (point.latency_us, -point.recall)):
        if point.recall > best:
            best = point.recall
            yield point


def _grid(heads: int) -> Iterator[Effort]:
    for lists in LISTS:
        for pruning in PRUNING:
            for rerank in RERANK:
                yield Effort(lists=min(lists, max(1, heads)), pruning=pruning, rerank=rerank)
        if lists >= heads:
            return


def _measure(
    segment: Segment,
    queries: npt.NDArray[np.float32],
    k: int,
    least: npt.NDArray[np.float32],
    effort: Effort,
) -> Point:
    """Search with one query after the other; a hit counts if it scores no less than the true k-th, so ties count."""
    seconds = np.empty(len(queries))
    hits = 0
    tolerance = TIE * np.maximum(1.0, np.abs(least))
    for i in range(len(queries)):
        query = queries[i : i + 1]
        started = time.perf_counter()
        _, scores = segment.search(query, k, effort=effort)
        seconds[i] = time.perf_counter() - started
        hits += int((scores[0] >= least[i] - tolerance[i]).sum())
    return Point(
        recall=hits / (k * len(queries)),
        effort=effort,
        latency_us=float(np.median(seconds) * 1e6),
        read_bytes=segment.read_bytes(queries, effort),
    )
