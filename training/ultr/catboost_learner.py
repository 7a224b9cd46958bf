"""YetiRank by CatBoost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError, MissingExtraError
from rankers.ltr.models import CatBoostRanker
from training.ultr.examination import CLIP
from training.ultr.ipw import checked_propensities
from training.ultr.learner import FittedRanker, settings_of
from training.ultr.lightgbm_learners import TreeSettings
from training.ultr.lists import ClickLists
from training.ultr.tree_rows import count_rows

if TYPE_CHECKING:
    import catboost


@dataclass(frozen=True, slots=True)
class CatBoostYetiRank:
    """YetiRank (Gulin, Kuralenok, Pavlov, Yahoo! LTR challenge, 2011); a `training.ultr.learner.Learner`.

    Its label is a rate of clicks, weighted by inverse propensities where they are given; it has no debiasing of its
    own. All `rounds` are grown.

    Parameters
    ----------
    propensities
        float [K] above 0, on any scale; None takes clicks as they are.
    trees
        How they are grown; trees are symmetric, of at least `leaves` leaves. `patience`, `held_out`, `least_rows` and
        `feature_share` are not used.
    clip
        Largest weight of a click, with the largest propensity as 1.
    """

    propensities: npt.ArrayLike | None = None
    trees: TreeSettings = field(default_factory=lambda: TreeSettings(rounds=200))
    clip: float = CLIP

    def fit(self, lists: ClickLists, *, warm_start: FittedRanker | None = None, seed: int = 0) -> FittedRanker:
        """See `training.ultr.learner.Learner`; a warm start keeps its trees and grows more."""
        try:
            import catboost
        except ImportError as error:
            raise MissingExtraError("catboost", extra="trees") from error
        theta = None if self.propensities is None else checked_propensities(self.propensities, lists)
        rows = count_rows(lists, np.flatnonzero(lists.clicks.any(axis=1)).astype(np.int64))
        weights = 1.0 if theta is None else np.minimum(np.nanmax(theta) / theta, self.clip)[rows.slots]
        data = catboost.Pool(
            rows.features,
            label=rows.labels * weights / np.repeat(rows.weights, rows.sizes),
            group_id=np.repeat(np.arange(len(rows.sizes)), rows.sizes),
            group_weight=np.repeat(rows.weights / rows.weights.max(), rows.sizes),
            feature_names=list(lists.feature_names),
        )
        model = catboost.CatBoost(
            {
                "loss_function": "YetiRank",
                "iterations": self.trees.rounds,
                "learning_rate": self.trees.learning_rate,
                "depth": int(np.ceil(np.log2(self.trees.leaves))),
                "random_seed": seed,
                "thread_count": self.trees.threads or -1,
                "verbose": False,
                "allow_writing_files": False,
            }
        )
        model.fit(data, init_model=_earlier(warm_start, lists))
        return FittedRanker(CatBoostRanker(model, lists.feature_names), theta, settings=settings_of(self))


def _earlier(warm_start: FittedRanker | None, lists: ClickLists) -> catboost.CatBoost | None:
    if warm_start is None:
        return None
    model = warm_start.model
    if not isinstance(model, CatBoostRanker) or model.feature_names != lists.feature_names:
        raise InvalidInputError(
            f"the warm start is a {model.kind} ranker of {len(model.feature_names)} features; CatBoost trees of "
            f"the same "
            f"{len(lists.feature_names)} features are needed"
        )
    return model.model
