"""Learners by name."""

from __future__ import annotations

from training.loop.settings import LearnerName
from training.ultr.learner import Learner


def learner_named(name: LearnerName) -> Learner:
    """Make a learner with its defaults; libraries are imported only for the one that needs them.

    Parameters
    ----------
    name
        As in a loop's file.

    Returns
    -------
    Learner
        Ready to fit.
    """
    match name:
        case "dla":
            from training.ultr.dla import Dla

            return Dla()
        case "regression-em":
            from training.ultr.em import RegressionEm

            return RegressionEm()
        case "regression-em-trust":
            from training.ultr.em import RegressionEm

            return RegressionEm(trust=True)
        case "pairwise":
            from training.ultr.pairwise import PairwiseDebiased

            return PairwiseDebiased()
        case "naive":
            from training.ultr.ipw import Naive

            return Naive()
        case "dla-trees":
            from training.ultr.lightgbm_learners import LightGbmDla

            return LightGbmDla()
        case "lightgbm":
            from training.ultr.lightgbm_learners import LightGbmPosition

            return LightGbmPosition()
        case "xgboost":
            from training.ultr.xgboost_learner import XgboostUnbiased

            return XgboostUnbiased()
