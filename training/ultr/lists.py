"""A click log, collapsed: which lists were shown how often, and what was clicked in them.

Letters in shapes: N (query, document) pairs, F features, S distinct lists, L places, P click patterns, K slots.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError

PADDING = -1
"""Marks places that a list shorter than the longest does not have."""


@dataclass(frozen=True, slots=True)
class ClickPatterns:
    """Sessions that showed the same list and clicked the same places, counted.

    `lists` int64 [P] numbers lists, `clicked` bool [P, L] says which places, `sessions` int64 [P] how often. The empty
    pattern counts too, so the sessions of a list add up to how often it was shown.
    """

    lists: npt.NDArray[np.int64]
    clicked: npt.NDArray[np.bool_]
    sessions: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClickLists:
    """Every distinct (query, list, layout) of a click log with its counts: all that a loss linear in clicks can see.

    Parameters
    ----------
    features
        float32 [N, F], a row for each (query, document); NaN where a feature is missing.
    feature_names
        [F]
    rows
        int64 [S, L], rows of `features` in the order shown; `PADDING` after the end of a short list.
    queries
        int64 [S], numbers of queries; lists of one query stay together in a split.
    slots
        int64 [S, L], the slot each place is examined as: position - 1 in a plain list. A grid has slots of its own.
    shown
        int64 [S], sessions that showed the list.
    clicks
        int64 [S, L], sessions that clicked the place.
    patterns
        Which places were clicked together, for methods that are not linear in clicks; None where that was not kept.
    """

    features: npt.NDArray[np.float32]
    feature_names: tuple[str, ...]
    rows: npt.NDArray[np.int64]
    queries: npt.NDArray[np.int64]
    slots: npt.NDArray[np.int64]
    shown: npt.NDArray[np.int64]
    clicks: npt.NDArray[np.int64]
    patterns: ClickPatterns | None = None

    def __post_init__(self) -> None:
        lists, places = self.rows.shape
        for name, shape in (("queries", (lists,)), ("slots", (lists, places)), ("shown", (lists,))):
            if getattr(self, name).shape != shape:
                raise InvalidInputError(f"{name} has shape {getattr(self, name).shape}, rows ask for {shape}")
        if self.clicks.shape != (lists, places):
            raise InvalidInputError(f"clicks has shape {self.clicks.shape}, rows ask for {(lists, places)}")
        if self.features.ndim != 2 or self.features.shape[1] != len(self.feature_names):
            raise InvalidInputError(f"features has shape {self.features.shape} for {len(self.feature_names)} names")
        if lists and (self.rows.max() >= len(self.features) or self.rows.min() < PADDING):
            raise InvalidInputError(f"rows goes up to {self.rows.max()}, there are {len(self.features)} features")
        if (self.clicks < 0).any() or (self.clicks > self.shown[:, None]).any():
            raise InvalidInputError("a place has more clicks than its list was shown, or fewer than none")
        if self.clicks[~self.mask].any():
            raise InvalidInputError("a place after the end of its list was clicked")

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Places that exist, bool [S, L]."""
        return np.not_equal(self.rows, PADDING)

    @property
    def sessions(self) -> int:
        """How many sessions were collapsed."""
        return int(self.shown.sum())

    def take(self, chosen: npt.NDArray[np.int64]) -> ClickLists:
        """The lists with these numbers, without their patterns; features are shared, not copied."""
        return replace(
            self,
            rows=self.rows[chosen],
            queries=self.queries[chosen],
            slots=self.slots[chosen],
            shown=self.shown[chosen],
            clicks=self.clicks[chosen],
            patterns=None,
        )
