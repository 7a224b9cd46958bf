"""First stages over an index: what it finds, looked up in the corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from index.corpus import Corpus
from rankers.errors import InvalidInputError
from rankers.types import Document, Query, Ranking, ScoreKind

if TYPE_CHECKING:
    from index.bm25 import BM25Index
    from index.dense import DenseIndex
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
            return self._index.search([queries[i].text for i in which], depth)

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
    """

    def __init__(self, index: DenseIndex, encoder: Encoder, corpus: Corpus) -> None:
        self._index = index
        self._encoder = encoder
        self._corpus = corpus

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Ranking]:
        """Find at most `k` documents per query; raises `InvalidInputError` for an empty text or a `k` under 1."""
        check_retrieval(queries, k)
        vectors = self._encoder.encode_queries([query.text for query in queries])

        def search(which: Sequence[int], depth: int) -> list[Hits]:
            return self._index.search(vectors[np.asarray(which, dtype=np.intp)], depth)

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
    """Search, and search deeper for the queries that lost hits to deletion, until each has `k` or there are no more."""
    documents: dict[str, Document] = {}
    looked_up: set[str] = set()
    hits: list[Hits] = [[] for _ in queries]
    waiting = list(range(len(queries)))
    depth = k
    while waiting:
        found = search(waiting, depth)
        new = {document_id for row in found for document_id, _ in row} - looked_up
        documents.update(corpus.find(list(new)))
        looked_up |= new
        exhausted = {i for i, row in zip(waiting, found, strict=True) if len(row) < depth}
        for i, row in zip(waiting, found, strict=True):
            hits[i] = [hit for hit in row if hit[0] in documents][:k]
        waiting = [i for i in waiting if len(hits[i]) < k and i not in exhausted]
        depth *= 2
    return [
        Ranking.from_scores(query, [documents[i] for i, _ in row], [score for _, score in row], score_kind=score_kind)
        for query, row in zip(queries, hits, strict=True)
    ]
