"""Rankings keep their invariants whatever they are built from."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankers.errors import InvalidInputError
from rankers.types import Document, Ranking, Reading, ScoreKind
from tests.rankers.build import QUERY, documents, finite_scores, ordered, scored

some_scores = st.lists(finite_scores, max_size=30)


def rank(scores: list[float]) -> Ranking:
    return Ranking.from_scores(QUERY, documents(len(scores)), scores, score_kind=ScoreKind.LOGIT)


@given(some_scores)
def test_scores_never_increase_and_ranks_count_from_one(scores: list[float]) -> None:
    ranking = rank(scores)
    assert list(ranking.scores) == sorted(scores, reverse=True)
    assert [item.rank for item in ranking.items] == list(range(1, len(scores) + 1))
    assert len(ranking) == len(scores)


@given(some_scores)
def test_every_document_keeps_its_own_score(scores: list[float]) -> None:
    found = {item.document.id: item.score for item in rank(scores).items}
    assert found == {f"d{i}": score for i, score in enumerate(scores)}


@given(st.lists(st.sampled_from([0.0, 1.0]), max_size=20))
def test_equal_scores_keep_their_input_order(scores: list[float]) -> None:
    ranking = rank(scores)
    for value in (0.0, 1.0):
        assert [i for i, s in zip(ranking.ids, ranking.scores, strict=True) if s == value] == [
            f"d{i}" for i, score in enumerate(scores) if score == value
        ]


@given(st.lists(finite_scores, unique=True, max_size=20), st.data())
def test_the_order_of_the_input_does_not_matter_without_ties(scores: list[float], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(list(zip(documents(len(scores)), scores, strict=True))))
    again = Ranking.from_scores(QUERY, [d for d, _ in shuffled], [s for _, s in shuffled], score_kind=ScoreKind.LOGIT)
    assert again.ids == rank(scores).ids


@given(st.lists(st.integers(-1000, 1000), max_size=20))
def test_a_monotone_change_of_scores_keeps_the_order(scores: list[int]) -> None:
    assert rank([float(s) for s in scores]).ids == rank([math.atan(s / 100) for s in scores]).ids


def test_infinities_are_scores() -> None:
    assert rank([-math.inf, 0.0, math.inf]).ids == ("d2", "d1", "d0")


def test_nan_is_refused_and_names_the_document() -> None:
    with pytest.raises(InvalidInputError, match="'d1' is NaN"):
        rank([0.0, math.nan])


@pytest.mark.parametrize("scores", [[1.0], [1.0, 2.0, 3.0], [[1.0, 2.0]]])
def test_wrong_number_of_scores_is_refused(scores: list[float]) -> None:
    with pytest.raises(InvalidInputError, match="2 documents need as many scores"):
        Ranking.from_scores(QUERY, documents(2), scores, score_kind=ScoreKind.LOGIT)


def test_a_document_twice_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'a' occurs twice"):
        ordered("a", "b", "a")
    with pytest.raises(InvalidInputError, match="'a' occurs twice"):
        Ranking.from_scores(QUERY, [Document("a", "x"), Document("a", "y")], [1, 2], score_kind=ScoreKind.LOGIT)


@given(st.integers(0, 12))
def test_from_order_scores_with_the_reciprocal_rank(count: int) -> None:
    ranking = Ranking.from_order(QUERY, documents(count))
    assert ranking.score_kind is ScoreKind.RANK
    assert ranking.scores == tuple(1 / rank for rank in range(1, count + 1))


@given(st.integers(0, 8), st.integers(0, 10))
def test_top_keeps_a_prefix(count: int, k: int) -> None:
    ranking = Ranking.from_order(QUERY, documents(count))
    assert ranking.top(k).items == ranking.items[:k]
    assert ranking.top(k).query is ranking.query


def test_previous_is_kept_with_its_scores() -> None:
    before = scored({"a": 3.0, "b": 1.0})
    after = Ranking.from_scores(QUERY, before.documents, [0.1, 0.2], score_kind=ScoreKind.LOGIT, previous=before)
    assert after.ids == ("b", "a")
    assert after.previous is before
    assert before.scores == (3.0, 1.0)


def test_content_is_title_and_text() -> None:
    assert Document("a", "text", title="Title").content == "Title text"
    assert Document("a", "text").content == "text"


def test_a_reading_is_truncated_where_tokens_are_missing() -> None:
    assert Reading(3, 4).truncated
    assert not Reading(4, 4).truncated
