from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankers.errors import InvalidInputError
from rankers.interleaving import NEITHER, draft, team_draft
from rankers.types import Document, Query, Ranking, ScoreKind

NAMES = ("old", "new")
ORDERS = st.lists(st.sampled_from("abcdefgh"), unique=True)


@given(ORDERS, ORDERS, st.integers())
def test_a_draft_keeps_all_items_once_and_each_team_picks_its_best_left(
    first: list[str], second: list[str], seed: int
) -> None:
    order, arms = draft(first, second, names=NAMES, generator=Random(seed))
    assert sorted(order) == sorted(set(first) | set(second))
    assert len(arms) == len(order)
    for place, (item, arm) in enumerate(zip(order, arms, strict=True)):
        for name, ranking in zip(NAMES, (first, second), strict=True):
            if arm == name:
                assert item == next(candidate for candidate in ranking if candidate not in order[:place])
        picked = Counter(arms[: place + 1])
        if arm != NEITHER:
            assert abs(picked["old"] - picked["new"]) <= 1


@given(ORDERS, st.integers())
def test_identical_rankings_tie(order: list[str], seed: int) -> None:
    assert draft(order, order, names=NAMES, generator=Random(seed)) == (order, [NEITHER] * len(order))


@given(ORDERS, ORDERS, st.integers())
def test_what_both_begin_with_is_nobodys(first: list[str], second: list[str], seed: int) -> None:
    order, arms = draft(["y", "z", *first], ["y", "z", *second], names=NAMES, generator=Random(seed))
    assert (order[:2], arms[:2]) == (["y", "z"], [NEITHER, NEITHER])


def test_each_arm_is_as_likely_to_pick_first_and_in_every_round() -> None:
    firsts: Counter[tuple[str, ...]] = Counter()
    for seed in range(4_000):
        _, arms = draft("abcd", "dcba", names=NAMES, generator=Random(seed))
        firsts[tuple(arms)] += 1
    for place in (0, 2):
        old = sum(count for arms, count in firsts.items() if arms[place] == "old")
        assert abs(old - 2_000) < 4 * 1_000**0.5
    assert set(firsts) == {(a, b, c, d) for a, b in (NAMES, NAMES[::-1]) for c, d in (NAMES, NAMES[::-1])}


def ranking(*document_ids: str, text: str = "") -> Ranking:
    documents = [Document(document_id, text) for document_id in document_ids]
    scores = [float(-i) for i in range(len(documents))]
    return Ranking.from_scores(Query("q", "shoes"), documents, scores, score_kind=ScoreKind.LOGIT)


def test_rankings_are_drafted_cut_and_repeatable() -> None:
    first, second = ranking("a", "b", "c", text="x"), ranking("b", "d", "a", text="x")
    drafted = team_draft(first, second, names=NAMES, generator=Random("impression-7"), top_k=3)
    assert drafted == team_draft(first, second, names=NAMES, generator=Random("impression-7"), top_k=3)
    assert len(drafted.ranking) == len(drafted.arms) == 3
    assert drafted.ranking.query == first.query
    assert set(drafted.arms) == set(NAMES)
    assert len(team_draft(first, second, names=NAMES, generator=Random(0)).ranking) == 3
    assert team_draft(ranking(), ranking(), names=NAMES, generator=Random(0)).arms == ()


def test_arms_need_names_of_their_own() -> None:
    for names in (("a", "a"), ("", "a")):
        with pytest.raises(InvalidInputError, match="two different names"):
            team_draft(ranking("a"), ranking("a"), names=names, generator=Random(0))
