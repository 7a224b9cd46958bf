"""A reranker whose scores are fused with those that came in."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

from rankers.errors import InvalidInputError
from rankers.fusion import weighted_fusion
from rankers.protocols import Ranker, joins_of
from rankers.types import Ranking


class FusedRanker:
    """Orders by a convex combination of a ranker's scores and the incoming ones; a `rankers.protocols.Ranker`.

    Both are stretched to [0, 1] within the list (`rankers.fusion.weighted_fusion`). The incoming order is evidence that
    a reranker trained on little does not have, and the more candidates are reranked, the more it is worth (Jacob,
    Lindgren, Zaharia, Carbin, Khattab, Drozdov, "Drowning in Documents", arXiv 2411.11767).

    Parameters
    ----------
    ranker
        Whose scores are fused.
    incoming_weight
        Weight of the incoming scores, in [0, 1]; the ranker has the rest.

    Raises
    ------
    InvalidInputError
        If the weight is not in [0, 1].
    """

    def __init__(self, ranker: Ranker, *, incoming_weight: float) -> None:
        if not 0 <= incoming_weight <= 1:
            raise InvalidInputError(
                f"incoming_weight is {incoming_weight}, must be from 0 to 1", field="incoming_weight"
            )
        self._ranker = ranker
        self._weights = [incoming_weight, 1 - incoming_weight]

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        """Rank and fuse; readings, tokens and windows of the ranker stay with the result."""
        return [
            self._fuse(incoming, ranked) for incoming, ranked in zip(rankings, self._ranker.rank(rankings), strict=True)
        ]

    def cost_tokens(self, ranking: Ranking) -> int:
        """Estimate tokens: those of the ranker."""
        return self._ranker.cost_tokens(ranking)

    @property
    def joins(self) -> Hashable | None:
        """What the ranker's work is merged with."""
        return joins_of(self._ranker)

    def _fuse(self, incoming: Ranking, ranked: Ranking) -> Ranking:
        if not len(ranked):
            return ranked
        fused = weighted_fusion([incoming, ranked], weights=self._weights)
        return replace(fused, previous=incoming, evidence=ranked.evidence)
