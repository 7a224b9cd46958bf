"""Negatives of several retrievers in one pool."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankers.errors import InvalidInputError
from rankers.types import Document, Query
from tests.training.lists import topic_lists
from training.data.training_list import TrainingList
from training.retriever.negatives import mix_negatives
from training.retriever.rows import contrastive_rows, distillation_rows
from training.retriever.settings import RetrieverSettings


def found(ids: str, relevant: str, query: str = "query") -> TrainingList:
    documents = tuple(Document(i, f"text {i}") for i in ids)
    return TrainingList(Query("q", query), documents, tuple(float(i in relevant) for i in ids), "test")


def test_what_several_find_and_what_stands_high_is_drawn_more_often() -> None:
    (mixed,) = mix_negatives([[found("abcd", "b")], [found("caeb", "b")]])
    assert [document.id for document in mixed.positives] == ["b"]
    probabilities = dict(zip((document.id for document in mixed.negatives), mixed.probabilities, strict=True))
    first, second = 1 + 1 / 3 + 1 / 4, 1 + 1 / 2 + 1 / 3
    expected = {
        "a": (1 / first + (1 / 2) / second) / 2,
        "c": ((1 / 3) / first + 1 / second) / 2,
        "d": (1 / 4) / first / 2,
        "e": (1 / 3) / second / 2,
    }
    assert probabilities == pytest.approx(expected)


def test_what_one_retriever_knows_to_be_relevant_is_no_negative_of_another() -> None:
    (mixed,) = mix_negatives([[found("abc", "a")], [found("bcd", "b")]])
    assert {document.id for document in mixed.positives} == {"a", "b"}
    assert {document.id for document in mixed.negatives} == {"c", "d"}


@given(st.integers(1, 8), st.integers(0, 3))
def test_draws_differ_where_there_are_enough(count: int, seed: int) -> None:
    (mixed,) = mix_negatives([[found("abcdef", "a")]])
    drawn = [document.id for document in mixed.draw(count, np.random.default_rng(seed))]
    assert len(drawn) == count
    assert "a" not in drawn
    assert len(set(drawn)) == count or count > 5


def test_rows_pair_a_relevant_document_with_negatives_of_all_files() -> None:
    settings = RetrieverSettings(negatives=2, epochs=2)
    rows = contrastive_rows([topic_lists(), topic_lists(found_by="dense", shift=2)], settings)
    assert list(rows) == ["query", "positive", "negative_1", "negative_2"]
    assert len(rows["query"]) == 20
    for query, positive, negative in zip(rows["query"], rows["positive"], rows["negative_1"], strict=True):
        topic = query.split()[-1]
        assert topic in positive
        assert topic not in negative


def test_a_teachers_scores_come_along() -> None:
    rows = distillation_rows(topic_lists(), RetrieverSettings(negatives=2))
    assert len(rows["label"]) == 10
    assert all(label == [1.0, 0.0, 0.0] for label in rows["label"])


def test_lists_without_anything_to_tell_apart_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="no query of 1 training lists"):
        contrastive_rows([[found("ab", "")]], RetrieverSettings())
    with pytest.raises(InvalidInputError, match="none of 1 lists of a teacher has over 3 candidates"):
        distillation_rows([found("ab", "a")], RetrieverSettings(negatives=3))
