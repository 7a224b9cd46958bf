"""Boosted trees by LightGBM: with propensities given, with those that DLA finds, or with its own position bias.

The first two descend the same softmax loss of weighted clicks as the networks, so they need one row per place shown,
however many sessions there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError, MissingExtraError
from rankers.ltr.models import LightGbmRanker
from training.ultr.batch import split_queries
from training.ultr.dla import Dla
from training.ultr.examination import CLIP
from training.ultr.ipw import checked_propensities
from training.ultr.learner import FittedRanker, Progress, settings_of
from training.ultr.lists import ClickLists
from training.ultr.tree_rows import TreeRows, count_rows, session_rows

if TYPE_CHECKING:
    import lightgbm

LEAST_CURVATURE = 1e-9


@dataclass(frozen=True, slots=True)
class TreeSettings:
    """How trees are grown.

    Parameters
    ----------
    rounds
        Most trees.
    learning_rate
        Of each.
    leaves
        Most leaves of a tree.
    least_rows
        Fewest rows of a leaf.
    feature_share
        Share of the features drawn for a tree.
    patience
        Trees without a better held-out loss after which no more are grown, where queries are held out.
    held_out
        Share of the queries held out, 0 to below 1.
    threads
        Of the library; 0 takes all cores. The number does not change the trees.
    """

    rounds: int = 300
    learning_rate: float = 0.05
    leaves: int = 7
    least_rows: int = 20
    feature_share: float = 0.3
    patience: int = 50
    held_out: float = 0.2
    threads: int = 0


LIBRARY_TREES = TreeSettings(rounds=100, leaves=15, feature_share=1.0)
"""For libraries' own debiasing, which is not stopped by held-out clicks."""


@dataclass(frozen=True, slots=True)
class LightGbmIpw:
    """Trees on clicks weighted by inverse propensities that are given; a `training.ultr.learner.Learner`.

    Parameters
    ----------
    propensities
        float [K] above 0, on any scale; None weights all clicks alike.
    trees
        How they are grown.
    clip
        Largest weight of a click, with the largest propensity as 1.
    """

    propensities: npt.ArrayLike | None
    trees: TreeSettings = field(default_factory=TreeSettings)
    clip: float = CLIP

    def fit(self, lists: ClickLists, *, warm_start: FittedRanker | None = None, seed: int = 0) -> FittedRanker:
        """See `training.ultr.learner.Learner`; a warm start keeps its trees and grows more."""
        theta = None if self.propensities is None else checked_propensities(self.propensities, lists)
        return _fit_softmax(
            lists, theta, self.trees, clip=self.clip, warm_start=warm_start, seed=seed, config=settings_of(self)
        )


@dataclass(frozen=True, slots=True)
class LightGbmDla:
    """Trees on clicks weighted by the propensities of a network trained by DLA; a `training.ultr.learner.Learner`.

    Parameters
    ----------
    dla
        Finds the propensities.
    trees
        How they are grown.
    """

    dla: Dla = field(default_factory=Dla)
    trees: TreeSettings = field(default_factory=TreeSettings)

    def fit(self, lists: ClickLists, *, warm_start: FittedRanker | None = None, seed: int = 0) -> FittedRanker:
        """See `training.ultr.learner.Learner`; a warm start keeps its trees and grows more."""
        found = self.dla.fit(lists, seed=seed).propensities
        return _fit_softmax(
            lists, found, self.trees, clip=self.dla.clip, warm_start=warm_start, seed=seed, config=settings_of(self)
        )


@dataclass(frozen=True, slots=True)
class LightGbmPosition:
    """LambdaMART with LightGBM's own correction of position bias; a `training.ultr.learner.Learner`.

    Takes one row per place and click pattern. Its measure on held-out queries would be that of biased clicks, so all
    `rounds` are grown. The biases it finds stay inside the library.

    Parameters
    ----------
    trees
        How they are grown; `patience` and `held_out` are not used.
    regularisation
        Of the position biases, at least 0.
    """

    trees: TreeSettings = LIBRARY_TREES
    regularisation: float = 0.0

    def fit(self, lists: ClickLists, *, warm_start: FittedRanker | None = None, seed: int = 0) -> FittedRanker:
        """See `training.ultr.learner.Learner`; a warm start keeps its trees and grows more."""
        lightgbm = _lightgbm()
        rows = session_rows(lists)
        data = lightgbm.Dataset(
            rows.features,
            rows.labels,
            group=rows.sizes,
            weight=np.repeat(rows.weights, rows.sizes),
            position=rows.slots,
            free_raw_data=False,
        )
        parameters = _parameters(self.trees, seed) | {
            "objective": "lambdarank",
            "lambdarank_truncation_level": lists.rows.shape[1],
            "lambdarank_position_bias_regularization": self.regularisation,
        }
        booster = lightgbm.train(parameters, data, self.trees.rounds, init_model=_earlier(warm_start, lists))
        return FittedRanker(LightGbmRanker(booster, lists.feature_names), settings=settings_of(self))


def _fit_softmax(
    lists: ClickLists,
    propensities: npt.NDArray[np.float64] | None,
    trees: TreeSettings,
    *,
    clip: float,
    warm_start: FittedRanker | None,
    seed: int,
    config: Mapping[str, object],
) -> FittedRanker:
    lightgbm = _lightgbm()
    earlier = _earlier(warm_start, lists)
    learn_from, held_out = split_queries(lists, held_out=trees.held_out, seed=seed)
    weights = np.ones(int(lists.slots.max(initial=0)) + 1)
    if propensities is not None:
        weights = np.minimum(np.nanmax(propensities) / propensities, clip)
    parts = [_Part(count_rows(lists, chosen), weights) for chosen in (learn_from, held_out) if len(chosen)]
    if not parts:
        raise InvalidInputError(f"none of {lists.sessions} sessions has a click; there is nothing to learn from")
    learn, *judges = parts
    data = [lightgbm.Dataset(part.features, part.clicks, free_raw_data=False) for part in parts]
    held_out_losses: dict[str, dict[str, list[float]]] = {}
    callbacks = [lightgbm.record_evaluation(held_out_losses)]
    if judges:
        callbacks.append(lightgbm.early_stopping(trees.patience, verbose=False))
    booster = lightgbm.train(
        _parameters(trees, seed) | {"objective": learn.derivatives, "metric": "none", "min_sum_hessian_in_leaf": 0.0},
        data[0],
        trees.rounds,
        valid_sets=data[1:],
        valid_names=["held_out"] if judges else None,
        feval=judges[0].loss if judges else None,
        init_model=earlier,
        callbacks=callbacks,
    )
    history = [
        Progress(step, float("nan"), loss)
        for step, loss in enumerate(held_out_losses.get("held_out", {}).get("softmax", []), start=1)
    ]
    best = booster.best_iteration
    if best > 0:
        booster = lightgbm.Booster(model_str=booster.model_to_string(num_iteration=best))
    return FittedRanker(LightGbmRanker(booster, lists.feature_names), propensities, tuple(history), settings=config)


class _Part:
    """Weighted clicks of some lists, and the softmax loss of scores of them."""

    def __init__(self, rows: TreeRows, weights: npt.NDArray[np.float64]) -> None:
        self.features = rows.features
        self.clicks = rows.labels * weights[rows.slots]
        self._starts = np.cumsum(rows.sizes) - rows.sizes
        self._sizes = rows.sizes
        self._total = self.clicks.sum()
        self._of_list = np.repeat(np.add.reduceat(self.clicks, self._starts), rows.sizes)

    def _softmax(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        shifted = np.exp(scores - np.repeat(np.maximum.reduceat(scores, self._starts), self._sizes))
        return np.asarray(shifted / np.repeat(np.add.reduceat(shifted, self._starts), self._sizes), dtype=np.float64)

    def derivatives(
        self, scores: npt.NDArray[np.float64], _: lightgbm.Dataset
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Give gradient and diagonal of the curvature, with a mean weighted click per list as unit."""
        chances = self._softmax(scores)
        unit = self._total / len(self._sizes)
        curvature = self._of_list * chances * (1 - chances)
        return (self._of_list * chances - self.clicks) / unit, np.maximum(curvature / unit, LEAST_CURVATURE)

    def loss(self, scores: npt.NDArray[np.float64], _: lightgbm.Dataset) -> tuple[str, float, bool]:
        """Give name, value, and that lower is better."""
        logs = np.log(np.maximum(self._softmax(scores), np.finfo(np.float64).tiny))
        return "softmax", float(-(self.clicks * logs).sum() / self._total), False


def _parameters(trees: TreeSettings, seed: int) -> dict[str, object]:
    return {
        "learning_rate": trees.learning_rate,
        "num_leaves": trees.leaves,
        "min_data_in_leaf": trees.least_rows,
        "feature_fraction": trees.feature_share,
        "num_threads": trees.threads,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }


def _earlier(warm_start: FittedRanker | None, lists: ClickLists) -> lightgbm.Booster | None:
    if warm_start is None:
        return None
    model = warm_start.model
    if not isinstance(model, LightGbmRanker) or model.feature_names != lists.feature_names:
        raise InvalidInputError(
            f"the warm start is a {model.kind} ranker of {len(model.feature_names)} features; LightGBM trees of "
            f"the same "
            f"{len(lists.feature_names)} features are needed"
        )
    return model.booster


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError as error:
        raise MissingExtraError("lightgbm", extra="trees") from error
    return lightgbm
