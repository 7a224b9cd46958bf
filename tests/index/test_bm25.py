from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.analysis import Analyzer
from index.bm25 import BM25Index
from rankers.errors import InvalidInputError, NotReadyError
from rankers.filters import parse_filter
from rankers.types import Document
from tests.index.documents import ANIMALS

WORDS = ["fox", "dog", "cat", "bird", "sun", "the"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)


def by_formula(texts: Sequence[str], query: str, *, k1: float, b: float) -> list[float]:
    """BM25 as Lucene has it, of each text, in float64."""
    analyzer = Analyzer("english")
    documents = [analyzer.terms(text) for text in texts]
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        frequencies = Counter(document)
        score = 0.0
        for term in analyzer.terms(query):
            having = sum(term in other for other in documents)
            idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
            if frequencies[term]:
                saturation = frequencies[term] + k1 * (1 - b + b * len(document) / mean)
                score += idf * frequencies[term] / saturation
        scores.append(score)
    return scores


def documents(texts: Sequence[str]) -> list[Document]:
    return [Document(str(i), text) for i, text in enumerate(texts)]


@settings(max_examples=50)
@given(st.lists(TEXTS, min_size=1, max_size=8), TEXTS, st.integers(1, 10), st.sampled_from([(1.2, 0.75), (0.9, 0.4)]))
def test_equals_the_formula(texts: list[str], query: str, k: int, parameters: tuple[float, float]) -> None:
    k1, b = parameters
    index = BM25Index.build(documents(texts), k1=k1, b=b)
    expected = by_formula(texts, query, k1=k1, b=b)
    (hits,) = index.search([query], k)
    assert len(hits) == min(k, sum(score > 0 for score in expected))
    assert [score for _, score in hits] == pytest.approx(sorted(expected, reverse=True)[: len(hits)], rel=1e-5)
    for document_id, score in hits:
        assert score == pytest.approx(expected[int(document_id)], rel=1e-5)


def test_finds_by_title_and_by_other_forms_of_a_word() -> None:
    index = BM25Index.build(ANIMALS)
    hits = index.search(["FOXES' jumping", "guarding houses", "singing bird"], 10)
    assert [[document_id for document_id, _ in row] for row in hits] == [["fox"], ["dog"], ["bird"]]


def test_without_a_stemmer_words_are_what_they_are() -> None:
    index = BM25Index.build(ANIMALS, stemmer=None)
    assert [hits[0][0] if hits else None for hits in index.search(["sleep", "sleeps", "the"], 1)] == [
        None,
        "cat",
        "fox",
    ]


def test_other_languages_have_their_own_stop_words() -> None:
    index = BM25Index.build([Document("1", "Die Häuser und der Garten"), Document("2", "Wald")], stemmer="german")
    assert [hits[0][0] for hits in index.search(["Haus Häusern"], 3)] == ["1"]
    assert index.search(["und der die"], 3) == [[]]


@pytest.mark.parametrize("query", ["", "   ", "the of and", "unknownword", "?!"])
def test_a_query_without_known_terms_finds_nothing(query: str) -> None:
    assert BM25Index.build(ANIMALS).search([query, "fox"], 3)[0] == []


@pytest.mark.parametrize("texts", [[], [""], ["the", "of the"]])
def test_a_corpus_without_terms_can_be_built_saved_and_searched(tmp_path: Path, texts: list[str]) -> None:
    BM25Index.build(documents(texts)).save(tmp_path / "bm25")
    index = BM25Index.load(tmp_path / "bm25")
    assert index.search(["fox", ""], 5) == [[], []]
    assert len(index) == len(texts)


def test_ties_keep_input_order_also_where_k_divides_them() -> None:
    index = BM25Index.build(documents(["dog", *["fox"] * 30, "fox fox"]))
    for k in (1, 2, 7, 31, 40):
        (hits,) = index.search(["fox"], k)
        assert [document_id for document_id, _ in hits] == ["31", *map(str, range(1, 31))][:k]


def test_load_gives_what_was_saved(tmp_path: Path) -> None:
    built = BM25Index.build(ANIMALS, k1=0.9, b=0.4)
    built.save(tmp_path)
    loaded = BM25Index.load(tmp_path)
    assert loaded.ids == built.ids == ("fox", "dog", "cat", "bird")
    queries = ["foxes", "dog house", "day"]
    assert loaded.search(queries, 3) == built.search(queries, 3)


def test_threads_share_an_index() -> None:
    index = BM25Index.build(documents([f"running{'s' * (i % 7)} number{i}" for i in range(200)]))
    queries = [f"numbers number{i}" for i in range(200)]
    expected = index.search(queries, 1)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda query: index.search([query], 1)[0], queries)) == expected


def test_refuses_what_it_cannot_index() -> None:
    with pytest.raises(InvalidInputError, match="'a' occurs twice"):
        BM25Index.build([Document("a", "x"), Document("a", "y")])
    with pytest.raises(InvalidInputError, match=r"no stemmer 'klingon'; there are .*english"):
        BM25Index.build(ANIMALS, stemmer="klingon")
    for k1, b in ((-1.0, 0.75), (1.2, 1.5)):
        with pytest.raises(InvalidInputError, match="k1 must be at least 0"):
            BM25Index.build(ANIMALS, k1=k1, b=b)


@settings(max_examples=60)
@given(
    st.lists(TEXTS, max_size=6),
    st.lists(
        st.tuples(st.dictionaries(st.integers(0, 8), TEXTS, max_size=4), st.sets(st.integers(0, 8), max_size=3)),
        max_size=3,
    ),
    TEXTS,
)
def test_a_changed_index_equals_one_that_is_built(
    texts: list[str], changes: list[tuple[dict[int, str], set[int]]], query: str
) -> None:
    held = {str(i): text for i, text in enumerate(texts)}
    index = BM25Index.build(documents(texts), k1=0.9, b=0.4)
    for added, removed in changes:
        put = {str(name): text for name, text in added.items()}
        index = index.changed([Document(name, text) for name, text in put.items()], [str(name) for name in removed])
        held = {name: text for name, text in held.items() if int(name) not in removed or name in put} | put
    fresh = BM25Index.build([Document(name, text) for name, text in held.items()], k1=0.9, b=0.4)
    assert index.ids == fresh.ids == tuple(held)
    assert index.search([query, *WORDS], 9) == fresh.search([query, *WORDS], 9)


def test_an_index_that_was_loaded_can_be_changed(tmp_path: Path) -> None:
    BM25Index.build(ANIMALS, k1=0.9, b=0.4).save(tmp_path / "first")
    loaded = BM25Index.load(tmp_path / "first")
    metadata = {"cat": ANIMALS[2].metadata}
    owl = Document("owl", "Owls see at night.", metadata={"tags": ["wild"]})
    changed = loaded.changed(
        [owl, Document("dog", "Wolves howl.")], ["bird"], metadata=lambda name: metadata.get(name, {})
    )
    changed.save(tmp_path / "second")
    again = BM25Index.load(tmp_path / "second")
    fresh = BM25Index.build([ANIMALS[0], Document("dog", "Wolves howl."), ANIMALS[2], owl], k1=0.9, b=0.4)
    queries = ["wolf", "loyal", "lazy dog", "birds owls sing"]
    assert changed.search(queries, 4) == again.search(queries, 4) == fresh.search(queries, 4)
    pets = parse_filter({"field": "tags", "eq": "pet"})
    assert [name for name, _ in again.search(["cat owl night"], 9, condition=pets)[0]] == ["cat"]
    assert loaded.search(["loyal"], 1)[0][0][0] == "dog"
    with pytest.raises(InvalidInputError, match="'owl' occurs twice"):
        again.changed([owl, owl])
    (tmp_path / "second" / "counts.bin").unlink()  # as an older version left it
    with pytest.raises(NotReadyError, match="run: shortlist index build"):
        BM25Index.load(tmp_path / "second").changed([owl])
