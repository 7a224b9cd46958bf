from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from index.bm25 import BM25Index
from index.corpus import Corpus
from index.dense import DenseIndex
from index.encoders import Encoder
from index.hybrid import HybridRetriever
from index.retrievers import BM25Retriever, DenseRetriever
from rankers.errors import ConfigError, InvalidInputError
from rankers.filters import parse_filter
from rankers.fusion import reciprocal_rank_fusion, weighted_fusion
from rankers.protocols import Retriever
from rankers.types import Document, Query, Ranking, ScoreKind
from tests.index.documents import ANIMALS

QUERIES = [Query("1", "lazy foxes"), Query("2", "animals that sleep all day"), Query("3", "birds")]


class CountingCorpus(Corpus):
    """Counts how many ids were looked up in each call."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.lookups: list[int] = []

    def find(self, ids: Sequence[str]) -> dict[str, Document]:
        self.lookups.append(len(ids))
        return super().find(ids)


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[CountingCorpus]:
    with CountingCorpus(tmp_path / "c.sqlite") as opened:
        opened.append(ANIMALS)
        yield opened


@pytest.fixture
def bm25(corpus: CountingCorpus) -> BM25Retriever:
    return BM25Retriever(BM25Index.build(corpus.stream()), corpus)


@pytest.fixture
def dense(corpus: CountingCorpus, encoder: Encoder) -> DenseRetriever:
    documents = list(corpus.stream())
    vectors = encoder.encode_documents([document.content for document in documents])
    ids, metadata = [document.id for document in documents], [document.metadata for document in documents]
    return DenseRetriever(DenseIndex.build(vectors, ids, metadata=metadata), encoder, corpus)


def test_bm25_ranks_documents_that_share_words(bm25: BM25Retriever) -> None:
    rankings = bm25.retrieve([*QUERIES, Query("4", "nothing known")], 10)
    assert [ranking.query.id for ranking in rankings] == ["1", "2", "3", "4"]
    assert [ranking.ids for ranking in rankings] == [("fox",), ("cat", "dog"), ("bird",), ()]
    assert {ranking.score_kind for ranking in rankings} == {ScoreKind.LEXICAL}
    assert rankings[1].documents[0] == ANIMALS[2]


def test_dense_ranks_by_cosine(dense: DenseRetriever, encoder: Encoder) -> None:
    rankings = dense.retrieve(QUERIES, 2)
    assert [ranking.ids[0] for ranking in rankings] == ["fox", "cat", "bird"]
    assert {ranking.score_kind for ranking in rankings} == {ScoreKind.SIMILARITY}
    assert [len(ranking) for ranking in rankings] == [2, 2, 2]
    cosine = encoder.encode_queries([QUERIES[0].text]) @ encoder.encode_documents([ANIMALS[0].content]).T
    assert rankings[0].scores[0] == pytest.approx(float(cosine[0, 0]), abs=1e-5)


def test_a_batch_equals_its_queries_one_by_one(bm25: BM25Retriever, dense: DenseRetriever) -> None:
    retrievers: list[Retriever] = [bm25, dense, HybridRetriever([bm25, dense], reciprocal_rank_fusion, 3)]
    for retriever in retrievers:
        together = retriever.retrieve(QUERIES, 3)
        alone = [retriever.retrieve([query], 3)[0] for query in QUERIES]
        assert [ranking.ids for ranking in together] == [ranking.ids for ranking in alone]
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
        assert retriever.retrieve([], 3) == []


def test_a_batch_is_looked_up_once(bm25: BM25Retriever, corpus: CountingCorpus) -> None:
    bm25.retrieve([*QUERIES, *QUERIES], 10)
    assert corpus.lookups == [4]


def test_documents_deleted_after_the_build_make_room_for_others(tmp_path: Path) -> None:
    documents = [Document(str(i), "fox " * (20 - i)) for i in range(20)]
    with CountingCorpus(tmp_path / "many.sqlite") as corpus:
        corpus.append(documents)
        vectors = np.stack([np.cos(np.arange(20) / 20), np.sin(np.arange(20) / 20)], axis=1).astype(np.float32)
        index = DenseIndex.build(vectors, [document.id for document in documents])
        bm25 = BM25Retriever(BM25Index.build(documents), corpus)
        corpus.delete(map(str, range(15)))
        corpus.append([Document("16", "replaced")])
        (ranking,) = bm25.retrieve([Query("q", "foxes")], 3)
        assert ranking.ids == ("15", "16", "17")
        assert ranking.documents[1].text == "replaced"
        assert bm25.retrieve([Query("q", "foxes")], 10)[0].ids == ("15", "16", "17", "18", "19")
        # 3, then 6, 12 and 24 hits; each id is looked up once.
        assert corpus.lookups[:4] == [3, 3, 6, 8]
        assert len(index.search(vectors[:1], 24)[0]) == 20


def test_dense_passes_over_deleted_documents(dense: DenseRetriever, corpus: CountingCorpus) -> None:
    corpus.delete(["fox", "cat"])
    for ranking in dense.retrieve(QUERIES, 2):
        assert sorted(ranking.ids) == ["bird", "dog"]


def test_hybrid_fuses_what_each_retriever_finds(bm25: BM25Retriever, dense: DenseRetriever) -> None:
    for fusion in (reciprocal_rank_fusion, partial(weighted_fusion, weights=[1.0, 2.0])):
        hybrid = HybridRetriever([bm25, dense], fusion, depth=4)
        rankings = hybrid.retrieve(QUERIES, 3)
        expected = [fusion(pair) for pair in zip(bm25.retrieve(QUERIES, 4), dense.retrieve(QUERIES, 4), strict=True)]
        assert [ranking.items for ranking in rankings] == [ranking.items[:3] for ranking in expected]


def test_a_filter_holds_in_every_retriever(bm25: BM25Retriever, dense: DenseRetriever, corpus: CountingCorpus) -> None:
    pets, others = ({"field": "tags", "eq": "pet"}, {"not": {"field": "tags", "eq": "pet"}})
    text = "the animals that sleep all day: fox, dog, cat, bird"
    queries = [Query("1", text, parse_filter(pets)), Query("2", text), Query("3", text, parse_filter(others))]
    retrievers: list[Retriever] = [bm25, dense, HybridRetriever([bm25, dense], reciprocal_rank_fusion, 3)]
    for retriever in retrievers:
        first, second, third = retriever.retrieve(queries, 10)
        assert first.ids == ("cat",)
        assert sorted(second.ids) == ["bird", "cat", "dog", "fox"]
        assert sorted(third.ids) == ["bird", "dog", "fox"]
    # The metadata a document has now decides, and not what it had when the index was built.
    corpus.append([replace(ANIMALS[2], metadata={}), replace(ANIMALS[1], metadata={"tags": "pet"})])
    for retriever in retrievers:
        first, _, third = retriever.retrieve(queries, 10)
        assert first.ids == ()
        assert sorted(third.ids) == ["bird", "fox"]


def test_hybrid_depth_grows_with_k(bm25: BM25Retriever, dense: DenseRetriever) -> None:
    hybrid = HybridRetriever([bm25, dense], reciprocal_rank_fusion, depth=1)
    assert len(hybrid.retrieve(QUERIES, 4)[0]) == 4


def test_hybrid_needs_parts() -> None:
    with pytest.raises(ConfigError, match="got 0 and 5"):
        HybridRetriever([], reciprocal_rank_fusion, depth=5)


def test_an_empty_query_or_k_is_refused(bm25: BM25Retriever, dense: DenseRetriever) -> None:
    retrievers: list[Retriever] = [bm25, dense, HybridRetriever([bm25, dense], reciprocal_rank_fusion, 3)]
    for retriever in retrievers:
        for text in ("", " \n"):
            with pytest.raises(InvalidInputError, match="query 'q' is empty") as caught:
                retriever.retrieve([Query("fine", "fox"), Query("q", text)], 3)
            assert caught.value.field == "query"
        with pytest.raises(InvalidInputError, match="k is 0") as caught:
            retriever.retrieve(QUERIES, 0)
        assert caught.value.field == "k"


def test_rankings_hold_unique_documents_in_order(bm25: BM25Retriever) -> None:
    ranking: Ranking = bm25.retrieve([Query("q", "dog cat bird fox")], 4)[0]
    assert list(ranking.scores) == sorted(ranking.scores, reverse=True)
    assert len(set(ranking.ids)) == 4
