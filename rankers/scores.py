"""Scores of any kind on the unit interval, for replies that promise it."""

from __future__ import annotations

import math

from rankers.types import Ranking, ScoreKind


def unit_scores(ranking: Ranking) -> tuple[float, ...]:
    """Map the scores of a ranking to [0, 1], never changing the order.

    Only `ScoreKind.PROBABILITY` is calibrated; the other maps are monotone and nothing more.

    Parameters
    ----------
    ranking
        Scores of one kind, L of them.

    Returns
    -------
    tuple of float
        L values in [0, 1], non-increasing: logit and preference -> sigmoid, log-probability and likelihood -> exp,
        similarity -> (1 + s) / 2, lexical -> s / (1 + s); the other kinds are in [0, 1] already.

    Examples
    --------
    >>> from rankers.types import Document, Query
    >>> unit_scores(Ranking.from_scores(Query("q", "?"), [Document("a", "x")], [0.0], score_kind=ScoreKind.LOGIT))
    (0.5,)
    """
    return tuple(_to_unit(score, ranking.score_kind) for score in ranking.scores)


def _to_unit(score: float, kind: ScoreKind) -> float:
    if kind in {ScoreKind.LOGIT, ScoreKind.PREFERENCE}:
        value = 1.0 / (1.0 + math.exp(-score)) if score >= 0 else math.exp(score) / (1.0 + math.exp(score))
    elif kind in {ScoreKind.LOG_PROBABILITY, ScoreKind.LIKELIHOOD}:
        value = math.exp(min(score, 0.0))
    elif kind is ScoreKind.SIMILARITY:
        value = (1.0 + score) / 2.0
    elif kind is ScoreKind.LEXICAL:
        value = max(score, 0.0) / (1.0 + max(score, 0.0)) if math.isfinite(score) else float(score > 0)
    else:
        value = score
    return min(max(value, 0.0), 1.0)
