"""One window that shows every candidate, for models with a long context."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rankers.listwise.aggregate import verdict
from rankers.listwise.windows import Plan, Signal, Verdict
from rankers.types import ScoreKind


@dataclass(frozen=True, slots=True)
class Single:
    """All candidates at once. There can be no more of them than labels."""

    @property
    def needs(self) -> Signal:
        """The whole order."""
        return Signal.ORDER

    @property
    def window_size(self) -> None:
        """No bound of its own."""
        return

    def plan(self, count: int) -> Plan:
        """Order candidates with one window.

        Where its reader gives logits, the score is the log of their softmax, the probability of coming first:
        logit_i - log(sum_j exp(logit_j)); where it gives grades, the grade.

        Parameters
        ----------
        count
            Number of candidates.

        Returns
        -------
        Plan
            One window.
        """
        (outcome,) = yield [tuple(range(count))]
        if outcome.logits:
            logits = np.array(outcome.logits, dtype=np.float64)
            scores = logits - np.logaddexp.reduce(logits)
            return verdict(scores, score_kind=ScoreKind.LOG_PROBABILITY, ties=outcome.order)
        if outcome.grades:
            return verdict(outcome.grades, score_kind=ScoreKind.GRADE, ties=outcome.order)
        return Verdict(outcome.order)
