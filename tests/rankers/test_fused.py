"""Scores of a ranker fused with those that came in."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankers.errors import InvalidInputError
from rankers.fused import FusedRanker
from rankers.types import Document, Evidence, Query, Ranking, ScoreKind

QUERY = Query("q", "query")
DOCUMENTS = [Document(str(i), f"text {i}") for i in range(4)]


class Reversing:
    """Likes best what came last."""

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        return [
            Ranking.from_scores(
                ranking.query,
                ranking.documents,
                range(len(ranking)),
                score_kind=ScoreKind.LOGIT,
                previous=ranking,
                evidence=Evidence(tokens=7),
            )
            for ranking in rankings
        ]

    def cost_tokens(self, ranking: Ranking) -> int:
        return len(ranking)


def incoming(scores: list[float]) -> Ranking:
    return Ranking.from_scores(QUERY, DOCUMENTS[: len(scores)], scores, score_kind=ScoreKind.LEXICAL)


@pytest.mark.parametrize(("weight", "order"), [(1.0, ("0", "1", "2")), (0.0, ("2", "1", "0"))])
def test_the_ends_are_the_two_orders(weight: float, order: tuple[str, ...]) -> None:
    (fused,) = FusedRanker(Reversing(), incoming_weight=weight).rank([incoming([9, 5, 1])])
    assert fused.ids == order


@given(st.lists(st.floats(0, 100), min_size=2, max_size=4, unique=True), st.floats(0, 1))
def test_scores_are_the_convex_combination(scores: list[float], weight: float) -> None:
    came = incoming(scores)
    (fused,) = FusedRanker(Reversing(), incoming_weight=weight).rank([came])
    low, high = min(scores), max(scores)
    for place, item in enumerate(came.items):
        own = place / (len(scores) - 1)
        expected = weight * (item.score - low) / (high - low) + (1 - weight) * own
        (found,) = [other.score for other in fused.items if other.document == item.document]
        assert found == pytest.approx(expected, abs=1e-9)


def test_what_came_in_and_what_it_cost_stay_known() -> None:
    came = incoming([2, 1])
    ranker = FusedRanker(Reversing(), incoming_weight=0.5)
    (fused,) = ranker.rank([came])
    assert fused.previous == came
    assert fused.evidence.tokens == 7
    assert ranker.cost_tokens(came) == 2
    assert ranker.rank([incoming([])])[0].items == ()


def test_a_weight_outside_0_to_1_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"incoming_weight is 1\.5"):
        FusedRanker(Reversing(), incoming_weight=1.5)
