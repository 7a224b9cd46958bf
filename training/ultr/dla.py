"""The dual learning algorithm: relevance and examination learnt from the same clicks, each correcting the other.

Ai, Bi, Luo, Guo, Croft, "Unbiased Learning to Rank with Unbiased Propensity Estimation", SIGIR 2018, algorithm 1. Both
sides are softmax losses; the weights of one are the inverse of the other's softmax. What is different here is how
examination moves: with small gradient steps from a flat start, as published, the scores explain the clicks first and
examination never recovers; when it moves fast it starts as "all position" and gives back what scores explain better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.ultr.batch import ListwiseBatch
from training.ultr.examination import (
    CLIP,
    NEGLIGIBLE,
    examination_by_swaps,
    examination_step,
    relative,
    slot_groups,
)
from training.ultr.fitting import NetworkSettings, fit_network
from training.ultr.identify import swaps
from training.ultr.learner import FittedRanker, settings_of
from training.ultr.lists import ClickLists
from training.ultr.losses import inverse_weights, softmax_loss

LEAST_SWAPPED = 0.1
"""Share of the documents that must have been shown in several slots to compare slots by themselves."""


@dataclass(frozen=True, slots=True)
class Dla:
    """The dual learning algorithm on a network; a `training.ultr.learner.Learner`.

    Parameters
    ----------
    network
        The scorer and how it is trained.
    examination
        ``closed_form``: the best examination for a batch at once, averaged over steps. ``gradient``: Adam on one logit
        per slot.
    memory
        Share of the estimate that a closed-form step keeps, 0 to below 1.
    examination_rate
        Learning rate of the gradient form. The network's own rate is what public implementations take, and too slow.
    clip
        Largest weight of a click.
    """

    network: NetworkSettings = field(default_factory=NetworkSettings)
    examination: Literal["closed_form", "gradient"] = "closed_form"
    memory: float = 0.9
    examination_rate: float = 0.05
    clip: float = CLIP

    def fit(self, lists: ClickLists, *, warm_start: FittedRanker | None = None, seed: int = 0) -> FittedRanker:
        """See `training.ultr.learner.Learner`; propensities are those of swaps where documents have moved enough."""
        groups = slot_groups(lists)
        correction = (
            ClosedFormExamination(groups, memory=self.memory, clip=self.clip)
            if self.examination == "closed_form"
            else GradientExamination(groups, learning_rate=self.examination_rate, clip=self.clip)
        )
        fitted = fit_network(
            lists, correction, self.network, warm_start=warm_start, seed=seed, config=settings_of(self)
        )
        swapped, linked = swaps(lists)
        if self.examination == "gradient" or fitted.propensities is None or not linked or swapped < LEAST_SWAPPED:
            return fitted
        known = examination_by_swaps(lists, fitted.score(lists.features), fitted.propensities)
        return replace(fitted, propensities=known)


class ClosedFormExamination:
    """Examination that takes closed-form steps; a `training.ultr.correction.ClickCorrection`.

    Parameters
    ----------
    groups
        int64 [K], from `training.ultr.examination.slot_groups`.
    memory
        Share of the estimate that a step keeps, 0 to below 1.
    clip
        Largest weight of a click.
    """

    needs_pairs = False

    def __init__(self, groups: npt.NDArray[np.int64], *, memory: float = 0.9, clip: float = CLIP) -> None:
        self._groups = torch.from_numpy(groups)
        self._memory = memory
        self._clip = clip
        self._theta = torch.full((len(groups),), torch.nan, dtype=torch.float64)

    def loss(self, scores: Tensor, batch: ListwiseBatch) -> Tensor:
        """Softmax loss of clicks weighted by inverse examination."""
        weights = examination_weights(self._theta, batch.slots, clip=self._clip)
        return softmax_loss(scores, batch.clicks, where=batch.mask, weights=weights)

    def learn(self, scores: Tensor, batch: ListwiseBatch) -> None:
        """Move examination towards what explains clicks weighted by inverse relevance."""
        self._move(scores, batch, self._memory)

    def settle(self, scores: Tensor, batch: ListwiseBatch) -> None:
        """Set examination to what explains all clicks best, forgetting the steps that led there."""
        self._move(scores, batch, 0.0)

    def _move(self, scores: Tensor, batch: ListwiseBatch, memory: float) -> None:
        clicks = batch.clicks * inverse_weights(scores, where=batch.mask, clip=self._clip)
        current = self._theta.nan_to_num(1.0).clamp_min(NEGLIGIBLE)
        step, seen = examination_step(current, clicks, batch.slots, where=batch.mask)
        step = relative(torch.where(seen, step, torch.nan), self._groups)
        kept = torch.where(self._theta.isnan(), step, memory * self._theta + (1 - memory) * step)
        self._theta = relative(torch.where(seen, kept, self._theta), self._groups)

    def propensities(self) -> npt.NDArray[np.float64]:
        """See `ClickCorrection`."""
        found: npt.NDArray[np.float64] = self._theta.numpy()
        return found.copy()

    def state(self) -> dict[str, Tensor]:
        """See `ClickCorrection`."""
        return {"theta": self._theta.clone()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See `ClickCorrection`; slots that are new stay unknown."""
        known = min(len(state["theta"]), len(self._theta))
        self._theta[:known] = state["theta"][:known]


class GradientExamination:
    """Examination as one logit per slot that Adam moves, as published; a `ClickCorrection`.

    Parameters
    ----------
    groups
        int64 [K], from `training.ultr.examination.slot_groups`.
    learning_rate
        Of Adam.
    clip
        Largest weight of a click.
    """

    needs_pairs = False

    def __init__(self, groups: npt.NDArray[np.int64], *, learning_rate: float = 0.05, clip: float = CLIP) -> None:
        self._groups = torch.from_numpy(groups)
        self._logits = torch.zeros(len(groups), requires_grad=True)
        self._optimiser = torch.optim.Adam([self._logits], lr=learning_rate)
        self._clip = clip

    def loss(self, scores: Tensor, batch: ListwiseBatch) -> Tensor:
        """Softmax loss of clicks weighted by inverse examination."""
        weights = examination_weights(self._theta(), batch.slots, clip=self._clip)
        return softmax_loss(scores, batch.clicks, where=batch.mask, weights=weights)

    def learn(self, scores: Tensor, batch: ListwiseBatch) -> None:
        """Descend the softmax loss of clicks weighted by inverse relevance."""
        weights = inverse_weights(scores, where=batch.mask, clip=self._clip)
        self._optimiser.zero_grad()
        with torch.enable_grad():
            softmax_loss(self._logits[batch.slots], batch.clicks, where=batch.mask, weights=weights).backward()
        self._optimiser.step()

    def settle(self, scores: Tensor, batch: ListwiseBatch) -> None:
        """Keep what the steps led to."""

    def _theta(self) -> Tensor:
        return relative(self._logits.detach().double().exp(), self._groups)

    def propensities(self) -> npt.NDArray[np.float64]:
        """See `ClickCorrection`."""
        found: npt.NDArray[np.float64] = torch.where(self._groups >= 0, self._theta(), torch.nan).numpy()
        return found

    def state(self) -> dict[str, Tensor]:
        """See `ClickCorrection`; with the moments of Adam."""
        moments = self._optimiser.state.get(self._logits, {})
        return {"logits": self._logits.detach().clone(), **{name: value.clone() for name, value in moments.items()}}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See `ClickCorrection`; slots that are new start as the average one."""
        size = len(self._logits)

        def fitted(values: Tensor) -> Tensor:
            return torch.cat([values, torch.zeros(size)])[:size] if values.ndim else values.clone()

        with torch.no_grad():
            self._logits.copy_(fitted(state["logits"]))
        moments = {name: fitted(value) for name, value in state.items() if name != "logits"}
        if moments:
            self._optimiser.state[self._logits] = moments


def examination_weights(theta: Tensor, slots: Tensor, *, clip: float) -> Tensor:
    """Weight of a click by slot, float32 [...]: 1 / examination, at most `clip`; 1 where nothing is known yet.

    >>> examination_weights(torch.tensor([1.0, 0.25, 0.0]), torch.tensor([0, 1, 2]), clip=10.0).tolist()
    [1.0, 4.0, 10.0]
    """
    return (1.0 / theta[slots]).nan_to_num(1.0, posinf=clip).clamp_max(clip).float()
