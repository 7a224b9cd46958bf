"""Several rankings of one query combined into one.

Reciprocal rank fusion: Cormack, Clarke, Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
Learning Methods", SIGIR 2009. Weighted fusion: a convex combination of min-max normalised scores (Bruch, Gai, Ingber,
"An Analysis of Fusion Functions for Hybrid Retrieval", TOIS 2023, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rankers.errors import InvalidInputError
from rankers.types import Document, Ranking, ScoreKind


def reciprocal_rank_fusion(
    rankings: Sequence[Ranking], *, k: int = 60, weights: Sequence[float] | None = None
) -> Ranking:
    """Fuse by rank: score(d) = sum over rankings of w / (k + rank of d), divided by its greatest possible value.

    Parameters
    ----------
    rankings
        At least one, all for the same query. A document absent from one gets nothing from it.
    k
        Smoothing constant, at least 0; 60 in the paper.
    weights
        One per ranking, at least 0; equal when not given.

    Returns
    -------
    Ranking
        Every document that occurs, `ScoreKind.FUSION`, in (0, 1]; ties in order of first occurrence.

    Raises
    ------
    InvalidInputError
        If there is no ranking, queries differ, or weights do not fit.

    Examples
    --------
    >>> from rankers.types import Query
    >>> a, b, query = Document("a", "x"), Document("b", "y"), Query("q", "?")
    >>> lexical, dense = Ranking.from_order(query, [a, b]), Ranking.from_order(query, [b])
    >>> fused = reciprocal_rank_fusion([lexical, dense], k=1)
    >>> fused.ids, [round(s, 4) for s in fused.scores]  # b: (1/3 + 1/2) / (1/2 + 1/2), a: (1/2) / 1
    (('b', 'a'), [0.8333, 0.5])
    """
    weights = _checked_weights(rankings, weights)
    greatest = sum(weights) / (k + 1)
    contributions = [
        {item.document.id: weight / (k + item.rank) / greatest for item in ranking.items}
        for ranking, weight in zip(rankings, weights, strict=True)
    ]
    return _sum(rankings, contributions)


def weighted_fusion(rankings: Sequence[Ranking], *, weights: Sequence[float] | None = None) -> Ranking:
    """Fuse by score: score(d) = sum over rankings of w * (s(d) - min) / (max - min), with weights scaled to sum 1.

    Parameters
    ----------
    rankings
        At least one, all for the same query. A document absent from one gets 0 from it.
    weights
        One per ranking, at least 0; equal when not given.

    Returns
    -------
    Ranking
        Every document that occurs, `ScoreKind.FUSION`, in [0, 1]; ties in order of first occurrence.

    Raises
    ------
    InvalidInputError
        If there is no ranking, queries differ, or weights do not fit.

    Examples
    --------
    >>> from rankers.types import Query
    >>> documents, query = [Document("a", "x"), Document("b", "y")], Query("q", "?")
    >>> one = Ranking.from_scores(query, documents, [3.0, 1.0], score_kind=ScoreKind.LEXICAL)
    >>> two = Ranking.from_scores(query, documents, [0.1, 0.2], score_kind=ScoreKind.SIMILARITY)
    >>> fused = weighted_fusion([one, two], weights=[3, 1])
    >>> fused.ids, fused.scores
    (('a', 'b'), (0.75, 0.25))
    """
    weights = _checked_weights(rankings, weights)
    total = sum(weights)
    contributions = []
    for ranking, weight in zip(rankings, weights, strict=True):
        low, high = (min(ranking.scores), max(ranking.scores)) if len(ranking) else (0.0, 1.0)
        span = high - low
        contributions.append(
            {
                item.document.id: weight / total * ((item.score - low) / span if span > 0 else 1.0)
                for item in ranking.items
            }
        )
    return _sum(rankings, contributions)


def _checked_weights(rankings: Sequence[Ranking], weights: Sequence[float] | None) -> Sequence[float]:
    if not rankings:
        raise InvalidInputError("fusion needs at least one ranking, got none")
    if any(ranking.query != rankings[0].query for ranking in rankings):
        raise InvalidInputError("fusion needs rankings of one query, got several")
    if weights is None:
        return [1.0] * len(rankings)
    if len(weights) != len(rankings) or min(weights) < 0 or sum(weights) <= 0:
        raise InvalidInputError(
            f"fusion of {len(rankings)} rankings needs as many weights, none negative and one positive; got {weights}",
            field="weights",
        )
    return weights


def _sum(rankings: Sequence[Ranking], contributions: Sequence[dict[str, float]]) -> Ranking:
    documents: dict[str, Document] = {}
    for ranking in rankings:
        for document in ranking.documents:
            documents.setdefault(document.id, document)
    scores = [sum(part.get(document_id, 0.0) for part in contributions) for document_id in documents]
    fused = Ranking.from_scores(rankings[0].query, list(documents.values()), scores, score_kind=ScoreKind.FUSION)
    return replace(fused, parts=tuple(rankings))
