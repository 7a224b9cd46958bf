"""Terms, BM25 and proximity, against the definitions worked out slowly."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankers.errors import ConfigError
from rankers.ltr.terms import CollectionStatistics, Splitter, bm25, smallest_window

texts = st.lists(st.sampled_from("abcdef"), max_size=12)


@given(st.sets(st.sampled_from("abcz")), texts)
def test_the_smallest_window_is_the_shortest_of_all_stretches(wanted: set[str], terms: list[str]) -> None:
    present = wanted & set(terms)
    stretches = [
        end - start
        for start in range(len(terms))
        for end in range(start + 1, len(terms) + 1)
        if present <= set(terms[start:end])
    ]
    assert smallest_window(wanted, terms) == (len(present), min(stretches) if present else 0)


@given(texts, st.lists(texts, min_size=1, max_size=6))
def test_bm25_is_the_sum_of_its_formula(query: list[str], documents: list[list[str]]) -> None:
    statistics = CollectionStatistics.of(documents)
    mean = sum(map(len, documents)) / len(documents)
    for document in documents:
        expected = 0.0
        for term in query:
            tf, df = document.count(term), sum(term in other for other in documents)
            idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
            expected += idf * tf / (tf + 1.2 * (1 - 0.75 + 0.75 * len(document) / mean)) if tf else 0.0
        assert bm25(query, document, statistics) == pytest.approx(expected)


def test_without_a_stemmer_words_stay_as_they_are() -> None:
    assert Splitter(None).terms("Naïve Foxes, it's") == ["naïve", "foxes", "it", "s"]
    assert Splitter("german").terms("Häuser") == Splitter("german").terms("Haus")


def test_an_unknown_stemmer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no stemmer 'klingon'.*english"):
        Splitter("klingon")
