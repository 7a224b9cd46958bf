"""Pairwise debiasing: how much a click, and a place passed over, count at each slot, learnt with the scores.

Hu, Wang, Peng, Li, "Unbiased LambdaMART: an unbiased pairwise learning-to-rank algorithm", WWW 2019.
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
from training.ultr.examination import NEGLIGIBLE, relative, slot_groups
from training.ultr.fitting import NetworkSettings, fit_network
from training.ultr.learner import FittedRanker, settings_of
from training.ultr.lists import ClickLists
from training.ultr.losses import pair_losses, pairwise_loss


@dataclass(frozen=True, slots=True)
class PairwiseDebiased:
    """Pairwise debiasing on a network; a `training.ultr.learner.Learner`.

    Lists without patterns are taken as position-based clicks, see `training.ultr.sessions.pair_counts`.

    Parameters
    ----------
    network
        The scorer and how it is trained.
    memory
        Share of the estimate that a step keeps, 0 to below 1.
    regularisation
        p of the paper, at least 0: ratios are taken to the power 1 / (p + 1).
    clip
        Largest weight of one side of a pair.
    """

    network: NetworkSettings = field(default_factory=NetworkSettings)
    memory: float = 0.9
    regularisation: float = 0.0
    clip: float = 10.0

    def fit(self, lists: ClickLists, *, warm_start: FittedRanker | None = None, seed: int = 0) -> FittedRanker:
        """See `training.ultr.learner.Learner`."""
        correction = PairRatios(
            slot_groups(lists), memory=self.memory, power=1 / (1 + self.regularisation), clip=self.clip
        )
        return fit_network(lists, correction, self.network, warm_start=warm_start, seed=seed, config=settings_of(self))


class PairRatios:
    """Ratios of bias of clicked and of passed places, by slot; a `training.ultr.correction.ClickCorrection`.

    Parameters
    ----------
    groups
        int64 [K], from `training.ultr.examination.slot_groups`.
    memory
        Share of the estimate that a step keeps, 0 to below 1.
    power
        Of the ratios, 1 / (p + 1).
    clip
        Largest weight of one side of a pair.
    """

    needs_pairs = True

    def __init__(self, groups: npt.NDArray[np.int64], *, memory: float, power: float, clip: float) -> None:
        self._groups = torch.from_numpy(groups)
        self._memory, self._power, self._clip = memory, power, clip
        self._clicked = torch.ones(len(groups), dtype=torch.float64)
        self._passed = torch.ones(len(groups), dtype=torch.float64)

    def loss(self, scores: Tensor, batch: ListwiseBatch) -> Tensor:
        """Logistic loss of pairs, each divided by both ratios."""
        clicked, passed = self._weights(batch)
        weights = (clicked[:, :, None] * passed[:, None, :]).to(scores.dtype)
        return pairwise_loss(scores, _pairs(batch), where=batch.mask, weights=weights)

    def _weights(self, batch: ListwiseBatch) -> tuple[Tensor, Tensor]:
        ratios = (self._clicked[batch.slots], self._passed[batch.slots])
        clicked, passed = ((1.0 / ratio.clamp_min(NEGLIGIBLE)).clamp_max(self._clip) for ratio in ratios)
        return clicked, passed

    def learn(self, scores: Tensor, batch: ListwiseBatch) -> None:
        """Set ratios to the losses of their pairs, each corrected by the other side (equations 30 and 31)."""
        clicked, passed = self._weights(batch)
        losses = _pairs(batch).double() * pair_losses(scores.double())
        self._clicked = self._moved(self._clicked, (losses * passed[:, None, :]).sum(dim=2), batch)
        self._passed = self._moved(self._passed, (losses * clicked[:, :, None]).sum(dim=1), batch)

    def _moved(self, current: Tensor, losses: Tensor, batch: ListwiseBatch) -> Tensor:
        zeros, slots = torch.zeros_like(current), batch.slots.reshape(-1)
        sums = zeros.scatter_add(0, slots, losses.masked_fill(~batch.mask, 0.0).reshape(-1))
        seen = zeros.scatter_add(0, slots, batch.mask.double().reshape(-1)) > 0
        step = _first_as_one(sums, self._groups) ** self._power
        return torch.where(seen, self._memory * current + (1 - self._memory) * step, current)

    def settle(self, scores: Tensor, batch: ListwiseBatch) -> None:
        """Keep what the steps led to."""

    def propensities(self) -> npt.NDArray[np.float64]:
        """See `ClickCorrection`: the ratios of clicked places."""
        found = relative(torch.where(self._groups >= 0, self._clicked, torch.nan), self._groups)
        ratios: npt.NDArray[np.float64] = found.double().numpy()
        return ratios.copy()

    def state(self) -> dict[str, Tensor]:
        """See `ClickCorrection`."""
        return {"clicked": self._clicked.clone(), "passed": self._passed.clone()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See `ClickCorrection`; slots that are new start at 1."""
        for current, name in ((self._clicked, "clicked"), (self._passed, "passed")):
            known = min(len(state[name]), len(current))
            current[:known] = state[name][:known]


def _first_as_one(values: Tensor, groups: Tensor) -> Tensor:
    """Scale float [K] so that the first slot of each group has 1."""
    return values / values[groups.clamp_min(0)].clamp_min(NEGLIGIBLE)


def _pairs(batch: ListwiseBatch) -> Tensor:
    if batch.pairs is None:
        raise InvalidInputError("a pairwise loss needs pair counts, and this batch has none")
    return batch.pairs
