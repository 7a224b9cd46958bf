"""Agreement of orders against scipy, and rankers that do and do not look at the order shown."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from rankers.consistency import BothOrders, kendall_tau
from rankers.errors import InvalidInputError
from rankers.protocols import Ranker
from rankers.types import Document, Evidence, Ranking, Reading, ScoreKind, WindowEvidence
from tests.rankers.build import ordered, scored

IDS = "abcdefgh"
two_orders = st.integers(2, len(IDS)).flatmap(lambda n: st.tuples(st.permutations(IDS[:n]), st.permutations(IDS[:n])))


class KeepsOrder:
    """Believes the order shown; counts its calls."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        self.calls.append(len(rankings))
        return [
            Ranking.from_order(
                ranking.query,
                self.order(ranking),
                previous=ranking,
                evidence=Evidence(
                    tokens=10,
                    generated_tokens=len(ranking),
                    readings={document_id: Reading(1, 2) for document_id in ranking.ids},
                    windows=(WindowEvidence(ranking.ids),),
                ),
            )
            for ranking in rankings
        ]

    def order(self, ranking: Ranking) -> list[Document]:
        return list(ranking.documents)

    def cost_tokens(self, ranking: Ranking) -> int:
        return 5 * len(ranking)


class Alphabetical(KeepsOrder):
    """Does not look at the order shown."""

    def order(self, ranking: Ranking) -> list[Document]:
        return sorted(ranking.documents, key=lambda document: document.id)


class LostFirst(KeepsOrder):
    """Knows the right order, but puts what it is shown first last."""

    def order(self, ranking: Ranking) -> list[Document]:
        first, *others = ranking.documents
        return [*sorted(others, key=lambda document: document.id), first]


class Remembering(KeepsOrder):
    """Orders by the scores of the first stage, wherever a document is shown."""

    def order(self, ranking: Ranking) -> list[Document]:
        scores = {item.document.id: item.score for item in ranking.origin.items}
        return sorted(ranking.documents, key=lambda document: -scores[document.id])


def consistency(ranker: Ranker, *rankings: Ranking) -> list[float | None]:
    return [result.evidence.order_consistency for result in BothOrders(ranker).rank(rankings)]


@given(two_orders)
def test_tau_is_that_of_scipy(orders: tuple[list[str], list[str]]) -> None:
    one, other = orders
    places = [other.index(document_id) for document_id in one]
    assert kendall_tau(one, other) == pytest.approx(kendalltau(range(len(one)), places).statistic)
    assert kendall_tau(one, other) == kendall_tau(other, one)
    assert kendall_tau(one, one) == 1
    assert kendall_tau(one, one[::-1]) == -1


@pytest.mark.parametrize("one", ["", "a"])
def test_fewer_than_two_ids_cannot_disagree(one: str) -> None:
    assert kendall_tau(one, one) == 1


@pytest.mark.parametrize(
    ("one", "other"), [("ab", "abc"), ("ab", "ac"), ("aab", "aab"), ("aab", "abc"), ("abc", "aab")]
)
def test_orders_of_different_ids_have_no_tau(one: str, other: str) -> None:
    with pytest.raises(InvalidInputError, match="two orders of the same ids"):
        kendall_tau(one, other)


def test_consistency_tells_rankers_that_believe_the_order_from_those_that_do_not() -> None:
    rankings = [ordered(*"cabd"), ordered("b", "a"), ordered("x"), ordered()]
    assert consistency(KeepsOrder(), *rankings) == [-1, -1, None, None]
    assert consistency(Alphabetical(), *rankings) == [1, 1, None, None]
    # Shown a first it gives bcda, shown d first it gives abcd: 3 of 6 pairs.
    assert consistency(LostFirst(), ordered(*"abcd")) == [pytest.approx(0.0)]
    assert consistency(KeepsOrder()) == []


def test_scores_of_the_first_stage_are_found_in_both_orders() -> None:
    ranking = scored({"a": 1.0, "b": 3.0, "c": 2.0})
    assert consistency(Remembering(), ranking) == [1]
    assert BothOrders(Remembering()).rank([ranking])[0].ids == ("b", "c", "a")


def test_both_orders_take_the_mean_of_two_ranks() -> None:
    ranker = LostFirst()
    first, second = BothOrders(ranker).rank([ordered(*"abcd"), ordered(*"dcba")])
    # bcda and abcd: a 4 + 1, b 1 + 2, c 2 + 3, d 3 + 4; a and c tie.
    assert first.ids == tuple("bacd")
    assert second.ids == tuple("bcad")
    assert first.score_kind is ScoreKind.RANK
    assert ranker.calls == [4]


@given(st.permutations(IDS))
def test_a_bias_for_the_order_shown_cancels_out(ids: list[str]) -> None:
    ranking = ordered(*ids)
    assert BothOrders(KeepsOrder()).rank([ranking])[0].ids == ranking.ids
    assert BothOrders(Alphabetical()).rank([ranking])[0].ids == tuple(sorted(ids))
    (evened,), (alone,) = consistency(BothOrders(LostFirst()), ranking), consistency(LostFirst(), ranking)
    assert evened is not None
    assert alone is not None
    assert evened >= alone


def test_both_passes_are_accounted_for() -> None:
    ranking = ordered(*"abc")
    both: Ranker = BothOrders(KeepsOrder())
    (result,) = both.rank([ranking])
    assert result.previous is ranking
    assert result.evidence == Evidence(
        tokens=20,
        generated_tokens=6,
        readings={document_id: Reading(1, 2) for document_id in "abc"},
        windows=(WindowEvidence(("a", "b", "c")), WindowEvidence(("c", "b", "a"))),
        order_consistency=-1.0,
    )
    assert both.cost_tokens(ranking) == 2 * KeepsOrder().cost_tokens(ranking)
    assert both.rank([]) == []
    assert both.rank([ordered()])[0].ids == ()
