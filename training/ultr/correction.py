"""What a learner of networks believes about clicks, and may learn while it learns scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from training.ultr.batch import ListwiseBatch


class ClickCorrection(Protocol):
    """Turns scores and clicks into a loss that does not see position."""

    needs_pairs: bool
    """Whether batches must have pair counts."""

    def loss(self, scores: Tensor, batch: ListwiseBatch) -> Tensor:
        """Give the loss to descend; float [B, L] scores, a scalar. Changes nothing."""
        ...

    def learn(self, scores: Tensor, batch: ListwiseBatch) -> None:
        """Update what is believed, given float [B, L] scores that are not to be differentiated."""
        ...

    def settle(self, scores: Tensor, batch: ListwiseBatch) -> None:
        """Take a last look at all lists with the scores that were chosen in the end."""
        ...

    def propensities(self) -> npt.NDArray[np.float64] | None:
        """What is believed about slots, float64 [K], 1 for the most examined one, NaN for those never shown."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything learnt so far, to go on from."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`."""
        ...
