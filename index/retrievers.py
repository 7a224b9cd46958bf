"""First stages over an index: what it finds, looked up in the corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from index.corpus import Corpus
from rankers.errors import InvalidInputError
from rankers.filters import Filter, matches
from rankers.types import Document, Query, Ranking, ScoreKind

if TYPE_CHECKING:
    from index.bm25 import BM25Index
    from index.dense import VectorIndex
    from index.encoders import Encoder

Hits: TypeAlias = list[tuple[str, float]]


class BM25Retriever:
    """Retrieves by words. A query that shares none with any document gets an empty ranking.

    Parameters
    ----------
    index
        Terms of the documents.
    corpus
        The documents; those deleted since the index was built are passed over.
    """

    def __init__(self, index: BM25Index, corpus: Corpus) -> None:
        self._index = index
        self._corpus = corpus

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Ranking]:
        """Find at most `k` documents per query; raises `InvalidInputError` for an empty text or a `k` under 1."""
        check_retrieval(queries, k)

        def search(which: Sequence[int], depth: int) -> list[Hits]:
            return self._index.search([queries[i].text for i in which], depth, condition=queries[which[0]].filter)

        return _look_up(queries, k, search, self._corpus, score_kind=ScoreKind.LEXICAL)


class DenseRetriever:
    """Retrieves by nearest vectors.

    Parameters
    ----------
    index
        Vectors of the documents.
    encoder
        What embedded them.
    corpus
        The documents; those deleted since the index was built are passed over.
    recall
        Share of the true nearest documents to find, where the index has been tuned.
    """

    def __init__(self, index: VectorIndex, encoder: Encoder, corpus: Corpus, *, recall: float | None = None) -> None:
        self.index = index
        self._recall = recall
        self.encoder = encoder
        self._corpus = corpus

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Ranking]:
        """Find at most `k` documents per query; raises `InvalidInputError` for an empty text or a `k` under 1."""
        check_retrieval(queries, k)
        return self.retrieve_near(queries, self.encoder.encode_queries([query.text for query in queries]), k)

    def retrieve_near(self, queries: Sequence[Query], vectors: npt.NDArray[np.float32], k: int) -> list[Ranking]:
        """Find at most `k` documents near each vector, float32 [B, D]: one per query, whose filter it has."""

        def search(which: Sequence[int], depth: int) -> list[Hits]:
            some = vectors[np.asarray(which, dtype=np.intp)]
            return self.index.search(some, depth, condition=queries[which[0]].filter, recall=self._recall)

        return _look_up(queries, k, search, self._corpus, score_kind=ScoreKind.SIMILARITY)


def check_retrieval(queries: Sequence[Query], k: int) -> None:
    """Refuse what no retriever can answer.

    Parameters
    ----------
    queries
        Any number.
    k
        Places wanted.

    Raises
    ------
    InvalidInputError
        If a query has no text or `k` is under 1.
    """
    if k < 1:
        raise InvalidInputError(f"k is {k}, must be at least 1", field="k")
    for query in queries:
        if not query.text.strip():
            raise InvalidInputError(f"the text of query {query.id!r} is empty; give at least one word", field="query")


def _look_up(
    queries: Sequence[Query],
    k: int,
    search: Callable[[Sequence[int], int], list[Hits]],
    corpus: Corpus,
    *,
    score_kind: ScoreKind,
) -> list[Ranking]:
    """Search, and search deeper for the queries that lost hits to deletion, until each has `k` or there are no more.

    `search` is asked for queries of one filter at a time. A document may have got other metadata since the index was
    built: what it is now decides.
    """
    documents: dict[str, Document] = {}
    looked_up: set[str] = set()
    hits: list[Hits] = [[] for _ in queries]
    waiting = list(range(len(queries)))
    depth = k
    while waiting:
        found = _search_by_filter(queries, waiting, search, depth)
        new = {document_id for row in found for document_id, _ in row} - looked_up
        documents.update(corpus.find(list(new)))
        looked_up |= new
        exhausted = {i for i, row in zip(waiting, found, strict=True) if len(row) < depth}
        for i, row in zip(waiting, found, strict=True):
            hits[i] = [hit for hit in row if _may_be_shown(documents.get(hit[0]), queries[i].filter)][:k]
        waiting = [i for i in waiting if len(hits[i]) < k and i not in exhausted]
        depth *= 2
    return [
        Ranking.from_scores(query, [documents[i] for i, _ in row], [score for _, score in row], score_kind=score_kind)
        for query, row in zip(queries, hits, strict=True)
    ]


def _search_by_filter(
    queries: Sequence[Query], which: Sequence[int], search: Callable[[Sequence[int], int], list[Hits]], depth: int
) -> list[Hits]:
    groups: dict[str, list[int]] = {}
    for i in which:
        groups.setdefault(repr(queries[i].filter), []).append(i)  # true equals 1 in Python, but not written down
    found: dict[int, Hits] = {}
    for group in groups.values():
        found |= zip(group, search(group, depth), strict=True)
    return [found[i] for i in which]


def _may_be_shown(document: Document | None, condition: Filter | None) -> bool:
    return document is not None and (condition is None or matches(condition, document.metadata))
