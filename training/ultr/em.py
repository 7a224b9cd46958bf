"""Regression-EM: examination and relevance as hidden causes of a click, found in turns.

Wang, Golbandi, Bendersky, Metzler, Najork, "Position bias estimation for unbiased learning to rank in personal search",
WSDM 2018. With clicks of trust: Agarwal, Wang, Li, Bendersky, Najork, "Addressing trust bias for unbiased
learning-to-rank", WWW 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.ultr.batch import ListwiseBatch
from training.ultr.examination import NEGLIGIBLE, relative, slot_groups
from training.ultr.fitting import NetworkSettings, fit_network
from training.ultr.learner import FittedRanker, settings_of
from training.ultr.lists import ClickLists
from training.ultr.losses import likelihood_loss

NEVER, ALWAYS = 1e-6, 1 - 1e-6


@dataclass(frozen=True, slots=True)
class RegressionEm:
    """Regression-EM on a network; a `training.ultr.learner.Learner`.

    Parameters
    ----------
    network
        The scorer and how it is trained; its score is the log-odds of relevance.
    memory
        Share of the estimate of each slot that a step keeps, 0 to below 1.
    trust
        Whether examined documents may be clicked though irrelevant, and not though relevant, with a chance for each
        slot.
    """

    network: NetworkSettings = field(default_factory=NetworkSettings)
    memory: float = 0.9
    trust: bool = False

    def fit(self, lists: ClickLists, *, warm_start: FittedRanker | None = None, seed: int = 0) -> FittedRanker:
        """See `training.ultr.learner.Learner`."""
        correction = HiddenCauses(slot_groups(lists), memory=self.memory, trust=self.trust)
        return fit_network(lists, correction, self.network, warm_start=warm_start, seed=seed, config=settings_of(self))


@dataclass(frozen=True, slots=True)
class _Causes:
    """What clicks say about their causes at each place, float64 [B, L], as expected numbers of sessions."""

    clicked_relevant: Tensor
    clicked_irrelevant: Tensor
    passed_relevant: Tensor
    """Examined, relevant, not clicked."""
    passed_irrelevant: Tensor
    """Examined, irrelevant, not clicked."""
    unseen_relevant: Tensor
    """Relevant, not examined."""


class HiddenCauses:
    """Chances of examination and of clicks of trust, by slot; a `training.ultr.correction.ClickCorrection`.

    P(click) = theta (gamma e + (1 - gamma) d) with theta the examination and e and d the chance of a click on an
    examined relevant and irrelevant document; without trust e is 1 and d is 0.

    Parameters
    ----------
    groups
        int64 [K], from `training.ultr.examination.slot_groups`.
    memory
        Share of the estimate that a step keeps, 0 to below 1.
    trust
        Whether e and d are learnt.
    """

    needs_pairs = False

    def __init__(self, groups: npt.NDArray[np.int64], *, memory: float = 0.9, trust: bool = False) -> None:
        self._groups = torch.from_numpy(groups)
        self._memory, self._trust = memory, trust
        full = torch.ones(len(groups), dtype=torch.float64)
        self._theta = 0.5 * full
        self._true = (0.95 if trust else 1.0) * full
        self._false = (0.05 if trust else 0.0) * full

    def loss(self, scores: Tensor, batch: ListwiseBatch) -> Tensor:
        """Negative log-likelihood of the clicks.

        Its gradient is that of the paper's regression, the cross-entropy with the expected relevance of the expectation
        step as target (Fisher's identity); unlike it, it compares networks by more than how sure they are.
        """
        gamma = scores.sigmoid()
        theta, true, false = (v[batch.slots].to(scores.dtype) for v in (self._theta, self._true, self._false))
        shown = batch.shown[:, None].expand_as(scores)
        return likelihood_loss(theta * (gamma * true + (1 - gamma) * false), batch.clicks, shown, where=batch.mask)

    def _causes(self, scores: Tensor, batch: ListwiseBatch) -> _Causes:
        """Expectation step (Wang et al., equation 1; Agarwal et al., section 4.2)."""
        gamma = scores.double().sigmoid()
        theta, true, false = self._theta[batch.slots], self._true[batch.slots], self._false[batch.slots]
        clicks = batch.clicks.double()
        passes = batch.shown.double()[:, None] - clicks
        by_relevance = gamma * true + (1 - gamma) * false
        per_click = clicks / by_relevance.clamp_min(NEGLIGIBLE)
        per_pass = passes / (1 - theta * by_relevance).clamp_min(NEGLIGIBLE)
        return _Causes(
            clicked_relevant=per_click * gamma * true,
            clicked_irrelevant=per_click * (1 - gamma) * false,
            passed_relevant=per_pass * theta * gamma * (1 - true),
            passed_irrelevant=per_pass * theta * (1 - gamma) * (1 - false),
            unseen_relevant=per_pass * (1 - theta) * gamma,
        )

    def learn(self, scores: Tensor, batch: ListwiseBatch) -> None:
        """Maximisation step for slots, averaged over steps."""
        causes = self._causes(scores, batch)
        clicked = causes.clicked_relevant + causes.clicked_irrelevant
        examined = clicked + causes.passed_relevant + causes.passed_irrelevant
        shown = batch.shown.double()[:, None].expand_as(examined)
        self._theta = self._moved(self._theta, examined, shown, batch)
        if self._trust:
            relevant = causes.clicked_relevant + causes.passed_relevant
            irrelevant = causes.clicked_irrelevant + causes.passed_irrelevant
            self._true = self._moved(self._true, causes.clicked_relevant, relevant, batch)
            self._false = self._moved(self._false, causes.clicked_irrelevant, irrelevant, batch)

    def _moved(self, current: Tensor, part: Tensor, whole: Tensor, batch: ListwiseBatch) -> Tensor:
        zeros, slots = torch.zeros_like(current), batch.slots.reshape(-1)
        parts = zeros.scatter_add(0, slots, part.masked_fill(~batch.mask, 0.0).reshape(-1))
        wholes = zeros.scatter_add(0, slots, whole.masked_fill(~batch.mask, 0.0).reshape(-1))
        step = (parts / wholes.clamp_min(NEGLIGIBLE)).clamp(NEVER, ALWAYS)
        return torch.where(wholes > 0, self._memory * current + (1 - self._memory) * step, current)

    def settle(self, scores: Tensor, batch: ListwiseBatch) -> None:
        """Keep what the steps led to."""

    def propensities(self) -> npt.NDArray[np.float64]:
        """See `ClickCorrection`; with trust the slope of clicks against relevance, theta (e - d)."""
        slope = self._theta * (self._true - self._false).clamp_min(0.0)
        found: npt.NDArray[np.float64] = relative(
            torch.where(self._groups >= 0, slope, torch.nan), self._groups
        ).numpy()
        return found

    def state(self) -> dict[str, Tensor]:
        """See `ClickCorrection`."""
        return {"theta": self._theta.clone(), "true": self._true.clone(), "false": self._false.clone()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See `ClickCorrection`; slots that are new start as in a new log."""
        for current, name in ((self._theta, "theta"), (self._true, "true"), (self._false, "false")):
            known = min(len(state[name]), len(current))
            current[:known] = state[name][:known]
