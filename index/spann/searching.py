"""A search through postings: the nearest heads, then the codes of their postings, then the best candidates exactly.

Chen et al., "SPANN", NeurIPS 2021, section 3.3. The codes only choose candidates; scores come from the raw vectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.spann.codecs import CODEC_FILE, codec_bytes, open_codec, open_rotation, rotated
from index.spann.heads import HeadIndex
from index.spann.kernels import faiss
from index.spann.memory import PAGE_BYTES
from index.spann.parameters import Effort, SpannParameters
from index.spann.postings import Postings
from index.spann.vectors import RawVectors

COPIES = 2
"""Codes asked for per candidate, because a vector is in several postings."""
EXACT_BLOCK_ROWS = 65_536
PRUNED_SHARE = 0.5
"""With a smaller share of rows allowed no posting is pruned: the nearest heads say little about allowed rows."""
Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""Rows [B, n], -1 for none, and scores [B, n]."""


class PostingSearch:
    """Searches the postings of a segment.

    Parameters
    ----------
    folder
        The segment's.
    raw
        Its vectors.
    parameters
        It was built with.
    prefetch
        Whether to ask the system for pages before they are used.
    """

    def __init__(self, folder: Path, raw: RawVectors, parameters: SpannParameters, *, prefetch: bool) -> None:
        self._raw = raw
        self._replicas = parameters.replicas
        self._prefetch = prefetch
        self._heads = HeadIndex.open(folder, raw.array.shape[1], parameters.metric)
        self._codec = open_codec(folder / CODEC_FILE, self._heads)
        self._rotation = open_rotation(folder)
        self._postings = Postings(folder, self._codec)
        # Making one of these takes as long as ranking the candidates.
        self._unfiltered: dict[int, Any] = {}

    @property
    def head_count(self) -> int:
        """Heads, H, and postings."""
        return len(self._heads)

    @property
    def memory_bytes(self) -> int:
        """What it holds in memory, pages of mapped files left out."""
        return self._heads.memory_bytes + self._postings.memory_bytes + codec_bytes(self._codec, self._rotation)

    def close(self) -> None:
        """Let go of the files."""
        self._postings.close()

    def search(
        self, queries: npt.NDArray[np.float32], k: int, allowed: npt.NDArray[np.uint8] | None, effort: Effort
    ) -> Found:
        """Find the best rows; see `Segment.search`. There may be fewer than `k` columns."""
        lists_wanted, pruning, selector = effort.lists, effort.pruning, None
        if allowed is not None:
            # Where one row in ten is allowed, ten times as many must be looked at for as many candidates.
            share = count_bits(allowed) / len(self._raw)
            lists_wanted = int(lists_wanted / share)
            pruning = pruning if share > PRUNED_SHARE else np.inf
            selector = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(allowed))
        turned = rotated(self._rotation, queries)  # as heads and codes are; the raw vectors are not
        lists, head_scores = self._choose(turned, lists_wanted, pruning, effort.anchor)
        if self._prefetch:
            self._postings.fetch(lists)
        wanted = max(k, effort.rerank)
        candidates = distinct(self._scan(turned, lists, head_scores, wanted, selector), wanted)
        rows, scores = best(candidates, self._raw.scores(queries, candidates, fetch=self._prefetch), k)
        if rows.shape[1] == k and rows[:, -1].min() >= 0:
            return rows, scores
        return self._complete(queries, (rows, scores), k, lists, allowed)

    def read_bytes(self, queries: npt.NDArray[np.float32], effort: Effort) -> float:
        """See `Segment.read_bytes`."""
        lists, _ = self._choose(rotated(self._rotation, queries), effort.lists, effort.pruning, effort.anchor)
        vector_bytes = PAGE_BYTES + 4 * queries.shape[1]
        postings_bytes = self._postings.page_bytes(lists) / len(queries)
        return float(postings_bytes + min(effort.rerank, len(self._raw)) * vector_bytes)

    def _choose(self, queries: npt.NDArray[np.float32], count: int, pruning: float, anchor: int) -> Found:
        """Give at most `count` postings per query, nearest heads first, -1 for pruned ones, and their heads' scores."""
        count = min(count, len(self._heads))
        lists, scores = self._heads.search(queries, count)
        if pruning < np.inf and anchor < count:
            distances = self._heads.distances(queries, scores)
            lists[distances > distances[:, anchor - 1 : anchor] * np.float32(pruning)] = -1
        return np.ascontiguousarray(lists), np.ascontiguousarray(scores)

    def _scan(
        self,
        queries: npt.NDArray[np.float32],
        lists: npt.NDArray[np.int64],
        head_scores: npt.NDArray[np.float32],
        wanted: int,
        selector: Any,
    ) -> npt.NDArray[np.int64]:
        """Give the rows with the best codes, best first; a row may be there once per posting, and -1 pads."""
        probes = lists.shape[1]
        parameters: Any
        if selector is not None:
            parameters = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
        elif (parameters := self._unfiltered.get(probes)) is None:
            parameters = self._unfiltered.setdefault(probes, faiss.SearchParametersIVF(nprobe=probes))
        copies = min(self._replicas, COPIES) if wanted < len(self._raw) else self._replicas
        count = min(wanted, len(self._raw)) * copies
        rows = np.empty((len(queries), count), np.int64)
        estimates = np.empty(rows.shape, np.float32)
        self._codec.search_preassigned_c(
            len(queries),
            faiss.swig_ptr(queries),
            count,
            faiss.swig_ptr(lists),
            faiss.swig_ptr(head_scores),
            faiss.swig_ptr(estimates),
            faiss.swig_ptr(rows),
            False,
            parameters,
        )
        return rows

    def _complete(
        self,
        queries: npt.NDArray[np.float32],
        found: Found,
        k: int,
        lists: npt.NDArray[np.int64],
        allowed: npt.NDArray[np.uint8] | None,
    ) -> Found:
        """Compare all members of their postings exactly for queries with fewer than k hits.

        A scan of ``pq`` leaves out the worst code, and so all codes if they are equal.
        """
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        width = found[0].shape[1]
        rows[:, :width], scores[:, :width] = found
        for i in np.flatnonzero(rows[:, -1] < 0):
            members = self._postings.rows(lists[i])
            if allowed is not None:
                members = members[(allowed[members >> 3] >> (members & 7).astype(np.uint8)) & 1 == 1]
            some, some_scores = search_exactly(self._raw, queries[i : i + 1], k, members, fetch=self._prefetch)
            rows[i, : some.shape[1]], scores[i, : some.shape[1]] = some, some_scores
        return rows, scores


def search_exactly(
    raw: RawVectors, queries: npt.NDArray[np.float32], k: int, rows: npt.NDArray[np.int64], *, fetch: bool
) -> Found:
    """Compare queries, float32 [B, D], with rows, int64 [n], and keep the `k` best, or all if there are fewer."""
    found = np.empty((len(queries), 0), np.int64)
    scores = np.empty((len(queries), 0), np.float32)
    step = max(1, EXACT_BLOCK_ROWS // len(queries))
    for start in range(0, len(rows), step):
        block = np.repeat(rows[None, start : start + step], len(queries), axis=0)
        block_scores = raw.scores(queries, block, fetch=fetch)
        found, scores = best(np.concatenate((found, block), axis=1), np.concatenate((scores, block_scores), axis=1), k)
    return found, scores


def count_bits(bits: npt.NDArray[np.uint8]) -> int:
    """Count the ones in packed bits."""
    return int(np.bitwise_count(bits).sum())


def distinct(candidates: npt.NDArray[np.int64], wanted: int) -> npt.NDArray[np.int64]:
    """Keep the first `wanted` of each row that are there for the first time; -1 pads."""
    if len(candidates) == 1:
        # For one query this is three times faster than what follows.
        return np.asarray([list(dict.fromkeys(candidates[0].tolist()))[:wanted]])
    order = np.argsort(candidates, axis=1, kind="stable")
    ordered = np.take_along_axis(candidates, order, axis=1)
    mask = np.zeros(candidates.shape, np.bool_)
    mask[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    repeated = np.empty(candidates.shape, np.bool_)
    np.put_along_axis(repeated, order, mask, axis=1)
    fresh = np.argsort(repeated, axis=1, kind="stable")[:, :wanted]
    kept = np.take_along_axis(candidates, fresh, axis=1)
    kept[np.take_along_axis(repeated, fresh, axis=1)] = -1
    return kept


def best(rows: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], k: int) -> Found:
    """Keep the k best per query, best first; of equal ones the lowest rows. -1 stays -1."""
    scores[rows < 0] = -np.inf
    if len(rows) == 1:
        first = np.lexsort((rows[0], -scores[0]))[:k]
        return rows[:, first], scores[:, first]
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
