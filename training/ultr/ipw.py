"""Clicks weighted by inverse propensities that are given: what to learn with once bias was measured. Naive: no weights.

Joachims, Swaminathan, Schnabel, "Unbiased learning-to-rank with biased feedback", WSDM 2017. For clicks of trust the
correction is affine: Vardasbi, Oosterhuis, de Rijke, "When inverse propensity scoring does not work", CIKM 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rankers.errors import InvalidInputError
from training.ultr.batch import ListwiseBatch
from training.ultr.dla import examination_weights
from training.ultr.examination import CLIP
from training.ultr.fitting import NetworkSettings, fit_network
from training.ultr.learner import FittedRanker, settings_of
from training.ultr.lists import ClickLists
from training.ultr.losses import softmax_loss


@dataclass(frozen=True, slots=True)
class Ipw:
    """Inverse propensity weighting on a network; a `training.ultr.learner.Learner`.

    Parameters
    ----------
    propensities
        float [K] above 0, on any scale: P(click) = propensity * relevance + offset.
    offsets
        float [K], chance of a click on an irrelevant document, for users who trust; 0 if not given. With it clicks
        count as (c - n offset) / propensity, which may be below 0.
    network
        The scorer and how it is trained.
    clip
        Largest weight of a click, with the largest propensity as 1.
    """

    propensities: npt.ArrayLike
    offsets: npt.ArrayLike | None = None
    network: NetworkSettings = field(default_factory=NetworkSettings)
    clip: float = CLIP

    def fit(self, lists: ClickLists, *, warm_start: FittedRanker | None = None, seed: int = 0) -> FittedRanker:
        """See `training.ultr.learner.Learner`; a slot without a propensity is refused."""
        theta = checked_propensities(self.propensities, lists)
        if self.offsets is not None and np.shape(self.offsets) != theta.shape:
            raise InvalidInputError(f"offsets has shape {np.shape(self.offsets)}, propensities {theta.shape}")
        correction = GivenExamination(theta, self.offsets, clip=self.clip)
        return fit_network(lists, correction, self.network, warm_start=warm_start, seed=seed, config=settings_of(self))


@dataclass(frozen=True, slots=True)
class Naive:
    """Clicks as they are, as if all places were looked at; a `training.ultr.learner.Learner`.

    With labels as gains in place of clicks it learns from judgements.

    Parameters
    ----------
    network
        The scorer and how it is trained.
    """

    network: NetworkSettings = field(default_factory=NetworkSettings)

    def fit(self, lists: ClickLists, *, warm_start: FittedRanker | None = None, seed: int = 0) -> FittedRanker:
        """See `training.ultr.learner.Learner`."""
        correction = GivenExamination(None, None, clip=1.0)
        return fit_network(lists, correction, self.network, warm_start=warm_start, seed=seed, config=settings_of(self))


class GivenExamination:
    """Examination that is known, or ignored; a `training.ultr.correction.ClickCorrection` that learns nothing.

    Parameters
    ----------
    propensities
        float64 [K], 1 for the most examined slot; None ignores position.
    offsets
        float [K] or None, as for `Ipw`.
    clip
        Largest weight of a click.
    """

    needs_pairs = False

    def __init__(
        self, propensities: npt.NDArray[np.float64] | None, offsets: npt.ArrayLike | None, *, clip: float
    ) -> None:
        self._theta = None if propensities is None else torch.from_numpy(propensities)
        self._offsets = None if offsets is None else torch.as_tensor(np.asarray(offsets), dtype=torch.float32)
        self._clip = clip

    def loss(self, scores: Tensor, batch: ListwiseBatch) -> Tensor:
        """Softmax loss of weighted clicks."""
        if self._theta is None:
            return softmax_loss(scores, batch.clicks, where=batch.mask)
        clicks = batch.clicks
        if self._offsets is not None:
            clicks = clicks - batch.shown[:, None] * self._offsets[batch.slots]
        weights = examination_weights(self._theta, batch.slots, clip=self._clip)
        return softmax_loss(scores, clicks, where=batch.mask, weights=weights)

    def learn(self, scores: Tensor, batch: ListwiseBatch) -> None:
        """Nothing: examination is given."""

    def settle(self, scores: Tensor, batch: ListwiseBatch) -> None:
        """Nothing: examination is given."""

    def propensities(self) -> npt.NDArray[np.float64] | None:
        """See `ClickCorrection`."""
        return None if self._theta is None else self._theta.double().numpy().copy()

    def state(self) -> dict[str, Tensor]:
        """Nothing to go on from."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to go on from."""


def checked_propensities(propensities: npt.ArrayLike, lists: ClickLists) -> npt.NDArray[np.float64]:
    """Refuse propensities that do not cover the slots of lists; scale them so that the largest is 1: float64 [K]."""
    given = np.asarray(propensities, dtype=np.float64)
    slots = np.unique(lists.slots[lists.mask])
    known = np.zeros(max(int(slots.max(initial=-1)) + 1, len(given)), dtype=np.bool_)
    known[: len(given)] = np.isfinite(given) & (given > 0)
    if not known[slots].all():
        slot = int(slots[~known[slots]][0])
        said = given[slot] if slot < len(given) else "none"
        raise InvalidInputError(f"slot {slot} is shown and its propensity is {said}; give one above 0 for every slot")
    return np.asarray(given / np.nanmax(given), dtype=np.float64)
