"""When to leave a log alone, and when to believe clicks as they are: debiasing is known to lose in places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.loop.learners import learner_named
from training.loop.settings import LearnerName
from training.ultr.identify import identifiability, shown_order_share
from training.ultr.learner import FittedRanker, Learner
from training.ultr.lists import ClickLists

LEAST_SESSIONS_PER_LIST = 10
"""With fewer, clicks as they are beat debiased ones in simulations."""
LEAST_DOCUMENTS_PER_FEATURE = 5
"""With 3 (43 lists, 136 features) clicks as they are beat debiased ones, with 7 (201 lists, 300 features) not."""
MOST_TOLD = 0.9
"""Share of the slot that features may tell; a feature that is the position itself has 1, linear rankers of real
collections have up to .75 and debiasing works."""
MOST_KNOWN = 0.5
"""Share of the candidate's gain over a random order that the shown order may have; weak rankers have .04-.46 in
simulations, ones that beat debiasing .5-1.4."""
FLAT = 0.8
"""Propensity of the least examined slot from which on there is no bias worth the variance of weights."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A ranker, and why it believes clicks as they are; nothing if it was debiased as asked.

    `debiased` is what was asked for, kept or not: a ranker that believes clicks as they are took position
    for relevance, so examination has to be estimated with the scores of the other one. `shown_share` is what
    `training.ultr.identify.shown_order_share` says of it: from 1 on it found nothing that the order that was shown does
    not have. None where swaps identify examination, or nothing was debiased.
    """

    ranker: FittedRanker
    debiased: FittedRanker
    naive_because: tuple[str, ...] = ()
    shown_share: float | None = None


def reasons_to_abstain(lists: ClickLists) -> list[str]:
    """Say why nothing can be learned from a log; nothing if something can.

    Parameters
    ----------
    lists
        The collapsed log.

    Returns
    -------
    list of str
        For people to read.
    """
    several = lists.mask.sum(axis=1) > 1
    if not several.any():
        return ["every list shows one place, so documents cannot be told apart"]
    if np.count_nonzero(lists.clicks[several].sum(axis=0)) == 1:
        return ["all clicks are on one place, so documents cannot be told apart"]
    return []


def reasons_against_debiasing(lists: ClickLists) -> list[str]:
    """Say why what is clicked cannot be told from where it stood, before anything is learned.

    Parameters
    ----------
    lists
        The collapsed log.

    Returns
    -------
    list of str
        For people to read.
    """
    reasons = []
    per_list = float(np.mean(lists.shown)) if len(lists.shown) else 0.0
    if per_list < LEAST_SESSIONS_PER_LIST:
        reasons.append(f"{per_list:.1f} sessions for each list, fewer than {LEAST_SESSIONS_PER_LIST}")
    documents, features = len(np.unique(lists.rows[lists.mask])), lists.features.shape[1]
    if documents < LEAST_DOCUMENTS_PER_FEATURE * features:
        reasons.append(
            f"{documents:,} documents were shown, fewer than {LEAST_DOCUMENTS_PER_FEATURE} "
            f"for each of {features} features"
        )
    found = identifiability(lists)
    if not found.linked and found.told_by_features > MOST_TOLD:
        reasons.append(
            f"features tell the position ({found.told_by_features:.0%} of it) and only {found.swapped:.0%} of the "
            "documents were shown in more than one place; show two rankers, or shuffle a few lists"
        )
    return reasons


def _share_of(fitted: FittedRanker, lists: ClickLists) -> float | None:
    if fitted.propensities is None or identifiability(lists).linked:
        return None
    return shown_order_share(lists, fitted.score(lists.features), fitted.propensities)


def reasons_against(fitted: FittedRanker, shown_share: float | None) -> list[str]:
    """Say why a debiased ranker is not to be trusted, from what it learned; nothing if it can be.

    Parameters
    ----------
    fitted
        With propensities; without them there is nothing to say.
    shown_share
        As in `Learned`.

    Returns
    -------
    list of str
        For people to read.
    """
    theta = fitted.propensities
    if theta is None:
        return []
    least = float(np.nanmin(theta))
    if least >= FLAT:
        return [f"all places are looked at about alike (the least at {least:.2f} of the most), there is little to undo"]
    if shown_share is not None and shown_share > MOST_KNOWN:
        return [
            f"the order that was shown has {shown_share:.0%} of what the candidate gains over a random one: the "
            "ranker was strong, or users trust it, and position stands for relevance"
        ]
    return []


def learn(
    lists: ClickLists,
    name: LearnerName,
    *,
    warm_start: FittedRanker | None = None,
    seed: int = 0,
    make: Callable[[LearnerName], Learner] = learner_named,
) -> Learned:
    """Learn as asked where that can be trusted, and from clicks as they are where it cannot.

    Parameters
    ----------
    lists
        The collapsed log.
    name
        The learner asked for.
    warm_start
        A ranker to go on from, if it came from the learner that is used in the end.
    seed
        Of everything random.
    make
        Makes a learner by its name.

    Returns
    -------
    Learned
        With reasons where it fell back.
    """

    def fit(by: LearnerName) -> FittedRanker:
        learner = make(by)
        same = warm_start is not None and warm_start.settings.get("learner") == type(learner).__name__
        return learner.fit(lists, warm_start=warm_start if same else None, seed=seed)

    fitted = fit(name)
    if name == "naive":
        return Learned(fitted, fitted)
    share = _share_of(fitted, lists)
    reasons = (*reasons_against_debiasing(lists), *reasons_against(fitted, share))
    return Learned(fit("naive") if reasons else fitted, fitted, reasons, share)
