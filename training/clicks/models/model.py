"""What a click model is, and what all of them need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError
from training.ultr.lists import PADDING, ClickLists, ClickPatterns


class ClickModel(Protocol):
    """Chances of clicks. Pairs the model was not fitted on have the chances of its prior; padding is never clicked."""

    def click_chances(self, rows: npt.NDArray[np.int64], slots: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Chance that each place is clicked, float64 [n, L], of lists `rows` [n, L] in `slots` [n, L]."""
        ...

    def next_chances(
        self, rows: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], clicked: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        """Chance that each place is clicked given the clicks above it in `clicked` bool [n, L]; float64 [n, L]."""
        ...


@dataclass(frozen=True, slots=True)
class Prior:
    """Trials seen before the first: `successes` of `trials` clicked. It keeps chances inside (0, 1)."""

    successes: float
    trials: float

    @property
    def mean(self) -> float:
        """The chance of what was never seen."""
        return self.successes / self.trials

    def shrunk(self, successes: npt.NDArray[np.float64], trials: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Estimate chances from counts of any shape."""
        return (successes + self.successes) / (trials + self.trials)


COUNTED = Prior(1.0, 2.0)
"""For chances that can be counted, as in PyClick."""
INFERRED = Prior(1.0, 5.0)
"""For chances that need expectation maximisation, as in PyClick."""


def look_up(values: npt.NDArray[np.float64], rows: npt.NDArray[np.int64], unknown: float) -> npt.NDArray[np.float64]:
    """Take `values` [N] at `rows` [...]: `unknown` for rows from N on, 0 for padding."""
    known = np.where((rows >= 0) & (rows < len(values)), rows, len(values))
    return np.where(rows == PADDING, 0.0, np.append(values, unknown)[known])


def patterns_of(lists: ClickLists) -> ClickPatterns:
    """The click patterns of lists; an error says that they were not kept."""
    if lists.patterns is None:
        raise InvalidInputError("these click lists have no patterns, which say what was clicked together; keep them")
    return lists.patterns


def summed(
    numbers: npt.NDArray[np.int64], weights: npt.NDArray[np.float64] | npt.NDArray[np.int64], size: int
) -> npt.NDArray[np.float64]:
    """Sum `weights` [...] by `numbers` [...], leaving negative ones out: float64 [size]."""
    counted = numbers >= 0
    return np.bincount(numbers[counted], weights=weights[counted], minlength=size).astype(np.float64)
