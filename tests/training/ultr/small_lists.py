"""Small click lists for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from training.ultr.lists import PADDING, ClickLists
from training.ultr.simulate import PositionBased, examination_curve, simulate_clicks

FEATURES = 5


def empty_lists(
    sizes: Sequence[int], *, places: int, slots: npt.NDArray[np.int64] | None = None, seed: int = 0
) -> ClickLists:
    """One list of random documents for each size, not shown yet; slots are positions unless given, [S, places]."""
    rng = np.random.default_rng(seed)
    count = sum(sizes)
    rows = np.full((len(sizes), places), PADDING, dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    for number, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        rows[number, :size] = np.arange(start, start + size)
    positions = np.broadcast_to(np.arange(places), rows.shape)
    return ClickLists(
        features=rng.normal(size=(count, FEATURES)).astype(np.float32),
        feature_names=tuple("abcde"),
        rows=rows,
        queries=np.arange(len(sizes), dtype=np.int64),
        slots=np.ascontiguousarray(positions if slots is None else slots, dtype=np.int64),
        shown=np.zeros(len(sizes), dtype=np.int64),
        clicks=np.zeros(rows.shape, dtype=np.int64),
    )


def attractiveness(lists: ClickLists) -> npt.NDArray[np.float64]:
    """Chance of a click on each row once examined, which follows from the first two features: float64 [N]."""
    worth = lists.features[:, 0] - 0.7 * lists.features[:, 1]
    return np.asarray(0.1 + 0.9 / (1 + np.exp(-2.0 * worth.astype(np.float64))), dtype=np.float64)


def clicked_lists(lists: ClickLists, *, sessions: int = 20_000, seed: int = 1, slots: int = 10) -> ClickLists:
    """Position-based users on lists."""
    users = PositionBased(examination_curve(slots))
    return simulate_clicks(lists, attractiveness(lists), users, sessions=sessions, seed=seed)
