"""When to leave a log alone, and when to believe clicks as they are: debiasing is known to lose in places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.loop.learners import learner_named
from training.loop.settings import LearnerName
from training.ultr.cross_fitting import CrossFitted, cross_fit
from training.ultr.identify import clicked_alike, identifiability, shown_order_share
from training.ultr.learner import FittedRanker, Learner, settings_of
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
MOST_KNOWN_UNSEEN = 2 / 3
"""The same share of the gain on queries that were not learned from: weak rankers have .11-.68 on lgb and .32-.64 on mq,
strong ones .85-1.13 and 1.02-1.24. On mslr, where little carries over to other queries, it tells nothing: weak ones
have .01-2.15, strong ones .41-6.1 (benchmarks/RESULTS.md)."""
ALIKE = 0.1
"""Spread of click rates on top under which people click what stands there; .01-.02 in simulations of trust, .4 and more
in all others."""
TRUSTING: LearnerName = "regression-em-trust"
FLAT = 0.8
"""Propensity of the least examined slot from which on there is no bias worth the variance of weights."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """Scores float64 [N] of queries that were not learned from: of the candidate, and of its debiased sibling."""

    candidate: npt.NDArray[np.float64]
    debiased: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Learned:
    """A ranker, and why it believes clicks as they are; nothing if it was debiased as asked.

    `debiased` is what was asked for, kept or not: a ranker that believes clicks as they are took position for
    relevance, so examination is estimated with the scores of the other one. `trusted_because` says why clicks of trust
    were taken off. `shown_share` is what `training.ultr.identify.shown_order_share` says of it: from 1 on it found
    nothing that the order that was shown does not have. None where swaps identify examination, people trust, or nothing
    was debiased. `unseen` is there if it was asked for.
    """

    ranker: FittedRanker
    debiased: FittedRanker
    naive_because: tuple[str, ...] = ()
    trusted_because: str = ""
    shown_share: float | None = None
    unseen: Unseen | None = None


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
            "documents were shown in more than one place; interleave two pipelines, or shuffle a few lists in the "
            "search app and report them as shown (docs/ultr.md)"
        )
    return reasons


def reasons_against(fitted: FittedRanker, shown_share: float | None, *, most_known: float = MOST_KNOWN) -> list[str]:
    """Say why a debiased ranker is not to be trusted, from what it learned; nothing if it can be.

    Parameters
    ----------
    fitted
        With propensities; without them there is nothing to say.
    shown_share
        As in `Learned`.
    most_known
        From which share on position stands for relevance.

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
    if shown_share is not None and shown_share > most_known:
        return [
            f"the order that was shown has {shown_share:.0%} of what the candidate gains over a random one: the "
            "ranker was strong, or users trust it, and position stands for relevance"
        ]
    return []


def reason_to_see_trust(lists: ClickLists) -> str:
    """Say why people seem to click what stands on top because it stands there; nothing if they do not.

    Parameters
    ----------
    lists
        The collapsed log.

    Returns
    -------
    str
        For people to read.
    """
    spread = clicked_alike(lists)
    if spread >= ALIKE:
        return ""
    return (
        f"what stands on top is clicked whatever it is (click rates there have a spread of {spread:.3f}, less than "
        f"{ALIKE}): people trust the order, so clicks of trust were taken off"
    )


def learn(
    lists: ClickLists,
    name: LearnerName,
    *,
    warm_start: FittedRanker | None = None,
    unseen: ClickLists | None = None,
    trust: str = "",
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
        A ranker to go on from, if it came from the learner that is used in the end, with the same settings.
    unseen
        A log over the same rows and queries, which may go on: its queries are scored by rankers that have not learned
        from them, which tells whether the order that was shown is beaten on other queries too. It takes
        `training.ultr.cross_fitting.FOLDS` more fits of each ranker. None, or a log of one query with clicks, is judged
        by what was learned from.
    trust
        Why people were found to trust the order before. Only with `unseen` it is looked for again: where a learned
        ranker is live, what stands on top may well be alike.
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
        same = warm_start is not None and warm_start.settings == settings_of(learner)
        return learner.fit(lists, warm_start=warm_start if same else None, seed=seed)

    def elsewhere(by: LearnerName) -> CrossFitted:
        return cross_fit(make(by), lists, scored=unseen, seed=seed)

    if name == "naive":
        fitted = fit(name)
        return Learned(fitted, fitted)
    linked = identifiability(lists).linked
    if len(np.unique(lists.queries[lists.clicks.any(axis=1)])) < 2:
        unseen = None
    if unseen is not None and not linked:
        trust = reason_to_see_trust(lists)
    by = TRUSTING if trust else name
    fitted = fit(by)
    seen = CrossFitted(fitted.score(lists.features), fitted.propensities)
    crossed = seen if unseen is None else elsewhere(by)
    share = None
    if crossed.propensities is not None and not trust and not linked:
        share = shown_order_share(lists, crossed.scores, crossed.propensities)
    most_known = MOST_KNOWN if unseen is None else MOST_KNOWN_UNSEEN
    of_learned = () if trust else reasons_against(fitted, share, most_known=most_known)
    reasons = (*reasons_against_debiasing(lists), *of_learned)
    candidate = fit("naive") if reasons else fitted
    scores = None
    if unseen is not None:
        scores = Unseen(elsewhere("naive").scores if reasons else crossed.scores, crossed.scores)
    return Learned(candidate, fitted, reasons, trust, share, scores)
