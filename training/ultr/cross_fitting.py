"""Scores for queries that the ranker has not learned from: what it does elsewhere, seen in the same log."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError
from training.ultr.batch import hashed_numbers
from training.ultr.learner import Learner
from training.ultr.lists import PADDING, ClickLists, ClickPatterns

FOLDS = 5


@dataclass(frozen=True, slots=True)
class CrossFitted:
    """Scores of each (query, document) by a ranker that learned from other queries, and what those know of slots.

    `scores` float64 [N], 0 for rows that no list shows; `propensities` float64 [K], the mean over rankers of those that
    know a slot, or None where the learner has none.
    """

    scores: npt.NDArray[np.float64]
    propensities: npt.NDArray[np.float64] | None


def cross_fit(
    learner: Learner, lists: ClickLists, *, scored: ClickLists | None = None, folds: int = FOLDS, seed: int = 0
) -> CrossFitted:
    """Divide the queries into folds, and learn for each from all the others (Stone, 1974: cross-validation).

    A ranker has seen the documents of its own queries, and knows them by heart where there are many features. Whether
    its order beats the one that was shown can only be said of queries it has not seen; with folds all clicks say it.

    Parameters
    ----------
    learner
        Fitted `folds` times.
    lists
        The collapsed log.
    scored
        Whose queries to score: a log whose rows and queries have the same numbers and may go on; `lists` if not given.
    folds
        At least 2; with fewer queries that have clicks as many as there are.
    seed
        Of the folds, and of every fit.

    Returns
    -------
    CrossFitted
        Over the rows of `scored`.

    Raises
    ------
    InvalidInputError
        If fewer than two queries have clicks.
    """
    scored = lists if scored is None else scored
    queries = np.union1d(lists.queries, scored.queries)
    clicked = np.isin(queries, lists.queries[lists.clicks.any(axis=1)])
    folds = min(folds, int(clicked.sum()))
    if folds < 2:
        raise InvalidInputError(
            f"{folds} queries of the log have clicks; two are needed to learn from one for the other"
        )
    fold = np.empty(len(queries), dtype=np.int64)
    # Those with clicks are spread evenly, so that no fold is without something to learn from.
    fold[np.lexsort((hashed_numbers(queries, seed), ~clicked))] = np.arange(len(queries)) % folds
    of_learned, of_scored = (fold[np.searchsorted(queries, each.queries)] for each in (lists, scored))
    slots = int(lists.slots[lists.mask].max(initial=-1)) + 1
    scores, curves = np.zeros(len(scored.features)), np.full((folds, slots), np.nan)
    for at in range(folds):
        fitted = learner.fit(_only(lists, of_learned != at), seed=seed)
        rows = np.unique(scored.rows[of_scored == at])
        rows = rows[rows != PADDING]
        scores[rows] = fitted.score(scored.features[rows])
        if fitted.propensities is not None:
            curves[at, : len(fitted.propensities)] = fitted.propensities
    known = np.isfinite(curves)
    if not known.any():
        return CrossFitted(scores, None)
    counts = known.sum(axis=0)
    means = np.where(known, curves, 0.0).sum(axis=0) / np.maximum(counts, 1)
    return CrossFitted(scores, np.where(counts > 0, means, np.nan))


def _only(lists: ClickLists, kept: npt.NDArray[np.bool_]) -> ClickLists:
    """Take all sessions from lists that are not kept, bool [S]; patterns of the others stay."""
    patterns = lists.patterns
    if patterns is not None:
        of_kept = kept[patterns.lists]
        patterns = ClickPatterns(patterns.lists[of_kept], patterns.clicked[of_kept], patterns.sessions[of_kept])
    return replace(lists, shown=lists.shown * kept, clicks=lists.clicks * kept[:, None], patterns=patterns)
