"""Learners by name."""

from __future__ import annotations

from training.loop.settings import LearnerName, ScorerName
from training.ultr.fitting import NetworkSettings
from training.ultr.learner import Learner


def learner_named(name: LearnerName, scorer: ScorerName = "mlp") -> Learner:
    """Make a learner with its defaults; libraries are imported only for the one that needs them.

    Parameters
    ----------
    name
        As in a loop's file.
    scorer
        Of networks; trees do not read it.

    Returns
    -------
    Learner
        Ready to fit.
    """
    network = NetworkSettings(hidden=()) if scorer == "linear" else NetworkSettings()
    match name:
        case "dla":
            from training.ultr.dla import Dla

            return Dla(network)
        case "regression-em":
            from training.ultr.em import RegressionEm

            return RegressionEm(network)
        case "regression-em-trust":
            from training.ultr.em import RegressionEm

            return RegressionEm(network, trust=True)
        case "pairwise":
            from training.ultr.pairwise import PairwiseDebiased

            return PairwiseDebiased(network)
        case "naive":
            from training.ultr.ipw import Naive

            return Naive(network)
        case "dla-trees":
            from training.ultr.lightgbm_learners import LightGbmDla

            return LightGbmDla()
        case "lightgbm":
            from training.ultr.lightgbm_learners import LightGbmPosition

            return LightGbmPosition()
        case "xgboost":
            from training.ultr.xgboost_learner import XgboostUnbiased

            return XgboostUnbiased()
