"""LambdaMART by XGBoost with its own position debiasing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError, MissingExtraError
from rankers.ltr.models import XgboostRanker
from training.ultr.learner import FittedRanker, settings_of
from training.ultr.lightgbm_learners import LIBRARY_TREES, TreeSettings
from training.ultr.lists import ClickLists
from training.ultr.tree_rows import session_rows

if TYPE_CHECKING:
    import xgboost


@dataclass(frozen=True, slots=True)
class XgboostUnbiased:
    """LambdaMART with ``lambdarank_unbiased`` (Unbiased LambdaMART, Hu et al., WWW 2019); a `Learner`.

    XGBoost takes the slot of a document from its place in the group: slots must be 0, 1, 2, ... in every list. Takes
    one row per place and click pattern, and grows all `rounds`.

    Parameters
    ----------
    trees
        How they are grown; `patience`, `held_out` and `least_rows` are not used.
    """

    trees: TreeSettings = LIBRARY_TREES

    def fit(self, lists: ClickLists, *, warm_start: FittedRanker | None = None, seed: int = 0) -> FittedRanker:
        """See `training.ultr.learner.Learner`; a warm start keeps its trees and grows more.

        `propensities` of the result are the library's ratios of clicked places.
        """
        try:
            import xgboost
        except ImportError as error:
            raise MissingExtraError("xgboost", extra="trees") from error
        rows = session_rows(lists)
        expected = np.arange(len(rows.slots)) - np.repeat(np.cumsum(rows.sizes) - rows.sizes, rows.sizes)
        if (rows.slots != expected).any():
            raise InvalidInputError(
                "XGBoost debiases slots 0, 1, 2, ... of plain lists only; use DLA or LightGBM for grids and gaps"
            )
        data = xgboost.DMatrix(rows.features, rows.labels, group=rows.sizes, weight=rows.weights)
        parameters = {
            "objective": "rank:ndcg",
            "lambdarank_unbiased": True,
            "lambdarank_pair_method": "topk",
            "lambdarank_num_pair_per_sample": lists.rows.shape[1],
            "eta": self.trees.learning_rate,
            "max_leaves": self.trees.leaves,
            "max_depth": 0,
            "grow_policy": "lossguide",
            "colsample_bytree": self.trees.feature_share,
            "nthread": self.trees.threads,
            "seed": seed,
            "verbosity": 0,
        }
        booster = xgboost.train(parameters, data, self.trees.rounds, xgb_model=_earlier(warm_start, lists))
        model = XgboostRanker(booster, lists.feature_names)
        return FittedRanker(model, _ratios(booster), settings=settings_of(self))


def _ratios(booster: xgboost.Booster) -> npt.NDArray[np.float64]:
    ratios = np.array(json.loads(booster.save_config())["learner"]["objective"]["ti+"], dtype=np.float64)
    return np.asarray(ratios / ratios.max(), dtype=np.float64)


def _earlier(warm_start: FittedRanker | None, lists: ClickLists) -> xgboost.Booster | None:
    if warm_start is None:
        return None
    model = warm_start.model
    if not isinstance(model, XgboostRanker) or model.feature_names != lists.feature_names:
        raise InvalidInputError(
            f"the warm start is a {model.kind} ranker of {len(model.feature_names)} features; XGBoost trees "
            f"of the same {len(lists.feature_names)} features are needed"
        )
    return model.booster
