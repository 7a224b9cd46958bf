"""How much a ranker's answer depends on the order it is shown, and a ranker that evens it out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from rankers.errors import InvalidInputError
from rankers.protocols import Ranker, joins_of
from rankers.types import Evidence, Ranking, ScoreKind


def kendall_tau(one: Sequence[str], other: Sequence[str]) -> float:
    """Measure how far two orders of the same ids agree: tau = 1 - 4 D / (n (n - 1)), D pairs in opposite order.

    Kendall, "A New Measure of Rank Correlation", Biometrika 1938.

    Parameters
    ----------
    one
        Ids, best first, n of them.
    other
        The same ids.

    Returns
    -------
    float
        In [-1, 1]: 1 for the same order, -1 for the reversed one; 1 for fewer than two ids.

    Raises
    ------
    InvalidInputError
        If an id is missing in one of them or occurs twice.

    Examples
    --------
    >>> round(kendall_tau("abcd", "bacd"), 4)  # one pair of six: 1 - 4 * 1 / 12
    0.6667
    """
    place = {document_id: i for i, document_id in enumerate(other)}
    if len(one) != len(other) or len(place) != len(other) or set(one) != place.keys():
        raise InvalidInputError(
            f"tau compares two orders of the same ids, each once; got {len(one)} and {len(other)} ids, "
            f"{len(set(one) & place.keys())} of them in both"
        )
    if len(one) < 2:
        return 1.0
    places = np.array([place[document_id] for document_id in one])
    opposite = np.count_nonzero(np.triu(places[:, None] > places[None, :]))
    return float(1.0 - 4.0 * opposite / (len(one) * (len(one) - 1)))


class BothOrders:
    """Ranks every list as given and reversed, and orders by the mean of the two ranks; a `rankers.protocols.Ranker`.

    Equal means keep the incoming order. It costs twice the tokens.

    Parameters
    ----------
    ranker
        Any.
    """

    def __init__(self, ranker: Ranker) -> None:
        self._ranker = ranker

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        """Rank both orders of all rankings in one call.

        Parameters
        ----------
        rankings
            Any number, each for a query of its own.

        Returns
        -------
        list of Ranking
            `ScoreKind.RANK`; `evidence` is that of both passes, the order as given first. Its `order_consistency` is
            Kendall's tau of the two results, 1 where the order shown does not matter; None for fewer than two
            documents.
        """
        results = self._ranker.rank([*rankings, *map(_reversed, rankings)])
        passes = zip(rankings, results[: len(rankings)], results[len(rankings) :], strict=True)
        return [_mean(*both) for both in passes]

    def cost_tokens(self, ranking: Ranking) -> int:
        """Estimate tokens: twice those of the ranker."""
        return 2 * self._ranker.cost_tokens(ranking)

    @property
    def joins(self) -> Hashable | None:
        """What the ranker's work is merged with."""
        return joins_of(self._ranker)


def _reversed(ranking: Ranking) -> Ranking:
    # The scores cannot come along, they would rise; a ranker that reads them finds them in `previous`.
    return Ranking.from_order(ranking.query, ranking.documents[::-1], previous=ranking)


def _mean(ranking: Ranking, one: Ranking, other: Ranking) -> Ranking:
    ranks = [{item.document.id: item.rank for item in result.items} for result in (one, other)]
    sums = [sum(rank[document_id] for rank in ranks) for document_id in ranking.ids]
    order = Ranking.from_scores(ranking.query, ranking.documents, [-s for s in sums], score_kind=ScoreKind.RANK)
    return Ranking.from_order(
        ranking.query,
        order.documents,
        previous=ranking,
        evidence=Evidence(
            tokens=one.evidence.tokens + other.evidence.tokens,
            generated_tokens=one.evidence.generated_tokens + other.evidence.generated_tokens,
            readings={**other.evidence.readings, **one.evidence.readings},
            windows=one.evidence.windows + other.evidence.windows,
            order_consistency=kendall_tau(one.ids, other.ids) if len(ranking) > 1 else None,
        ),
    )
