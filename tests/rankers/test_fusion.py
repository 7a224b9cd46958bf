"""Fusion against its formulas."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankers.errors import InvalidInputError
from rankers.fusion import reciprocal_rank_fusion, weighted_fusion
from rankers.types import Query, Ranking, ScoreKind
from tests.rankers.build import finite_scores, ordered, scored

POOL = [f"d{i}" for i in range(8)]
orders = st.lists(st.lists(st.sampled_from(POOL), unique=True, max_size=8), min_size=1, max_size=4)
score_maps = st.lists(st.dictionaries(st.sampled_from(POOL), finite_scores, max_size=8), min_size=1, max_size=4)


def by_id(ranking: Ranking) -> dict[str, float]:
    return {item.document.id: item.score for item in ranking.items}


@given(orders, st.integers(0, 100))
def test_rrf_is_its_formula(lists: list[list[str]], k: int) -> None:
    fused = reciprocal_rank_fusion([ordered(*ids) for ids in lists], k=k)
    expected: dict[str, float] = {}
    for ids in lists:
        for rank, document_id in enumerate(ids, start=1):
            expected[document_id] = expected.get(document_id, 0.0) + 1 / (k + rank)
    greatest = len(lists) / (k + 1)
    assert by_id(fused) == pytest.approx({i: score / greatest for i, score in expected.items()})
    assert all(0 < score <= 1 + 1e-12 for score in fused.scores)
    assert fused.score_kind is ScoreKind.FUSION


@given(orders)
def test_rrf_gives_one_to_what_is_first_everywhere(lists: list[list[str]]) -> None:
    fused = reciprocal_rank_fusion([ordered("best", *ids) for ids in lists])
    assert fused.ids[0] == "best"
    assert fused.scores[0] == pytest.approx(1.0)


@given(orders)
def test_the_order_of_the_rankings_does_not_change_scores(lists: list[list[str]]) -> None:
    rankings = [ordered(*ids) for ids in lists]
    assert by_id(reciprocal_rank_fusion(rankings)) == pytest.approx(by_id(reciprocal_rank_fusion(rankings[::-1])))


@given(score_maps)
def test_weighted_fusion_stays_in_the_unit_interval_and_keeps_everything(maps: list[dict[str, float]]) -> None:
    fused = weighted_fusion([scored(scores) for scores in maps])
    assert set(fused.ids) == {document_id for scores in maps for document_id in scores}
    assert all(0 <= score <= 1 + 1e-12 for score in fused.scores)


@given(st.dictionaries(st.sampled_from(POOL), st.integers(-50, 50), min_size=1))
def test_fusing_one_ranking_keeps_its_order(scores: dict[str, int]) -> None:
    ranking = scored({i: float(s) for i, s in scores.items()})
    assert weighted_fusion([ranking]).ids == ranking.ids
    assert reciprocal_rank_fusion([ranking]).ids == ranking.ids


def test_weights_are_scaled_to_one() -> None:
    lexical, dense = scored({"a": 2.0, "b": 1.0}), scored({"b": 0.9, "a": 0.1})
    for fuse in (weighted_fusion, reciprocal_rank_fusion):
        assert by_id(fuse([lexical, dense], weights=[3, 1])) == pytest.approx(
            by_id(fuse([lexical, dense], weights=[0.75, 0.25]))
        )
        assert fuse([lexical, dense], weights=[3, 1]).ids == ("a", "b")
        assert fuse([lexical, dense], weights=[1, 3]).ids == ("b", "a")


def test_equal_scores_in_one_ranking_all_count_as_best() -> None:
    assert weighted_fusion([scored({"a": 5.0, "b": 5.0})]).scores == (1.0, 1.0)


def test_empty_rankings_fuse_to_nothing() -> None:
    assert len(reciprocal_rank_fusion([ordered(), ordered()])) == 0
    assert len(weighted_fusion([ordered()])) == 0


@pytest.mark.parametrize("fuse", [reciprocal_rank_fusion, weighted_fusion])
def test_no_ranking_or_several_queries_are_refused(fuse: type) -> None:
    with pytest.raises(InvalidInputError, match="at least one ranking"):
        fuse([])
    with pytest.raises(InvalidInputError, match="one query"):
        fuse([ordered("a"), ordered("a", query=Query("q2", "another"))])


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, 1.0, 1.0]])
def test_weights_that_do_not_fit_are_refused(weights: Sequence[float]) -> None:
    with pytest.raises(InvalidInputError, match="weights"):
        weighted_fusion([ordered("a"), ordered("b")], weights=weights)
