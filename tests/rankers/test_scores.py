"""Unit scores are in [0, 1] and keep the order, for every kind of score."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankers.scores import unit_scores
from rankers.types import Ranking, ScoreKind
from tests.rankers.build import QUERY, documents

any_score = st.floats(allow_nan=False, allow_infinity=True)


@given(st.sampled_from(list(ScoreKind)), st.lists(any_score, max_size=10))
def test_unit_scores_are_in_the_interval_and_never_increase(kind: ScoreKind, scores: list[float]) -> None:
    mapped = unit_scores(Ranking.from_scores(QUERY, documents(len(scores)), scores, score_kind=kind))
    assert all(0.0 <= score <= 1.0 for score in mapped)
    assert list(mapped) == sorted(mapped, reverse=True)


@pytest.mark.parametrize(
    ("kind", "score", "expected"),
    [
        (ScoreKind.LOGIT, 2.0, 1 / (1 + math.exp(-2))),
        (ScoreKind.LOGIT, -800.0, 0.0),
        (ScoreKind.LOG_PROBABILITY, math.log(0.25), 0.25),
        (ScoreKind.SIMILARITY, -0.5, 0.25),
        (ScoreKind.LEXICAL, 3.0, 0.75),
        (ScoreKind.LEXICAL, math.inf, 1.0),
        (ScoreKind.FUSION, 0.3, 0.3),
        (ScoreKind.PROBABILITY, 0.3, 0.3),
        (ScoreKind.RANK, 0.5, 0.5),
    ],
)
def test_each_kind_has_its_formula(kind: ScoreKind, score: float, expected: float) -> None:
    (mapped,) = unit_scores(Ranking.from_scores(QUERY, documents(1), [score], score_kind=kind))
    assert mapped == pytest.approx(expected)
