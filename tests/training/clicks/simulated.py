"""Click lists from users whose habits are known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.clicks.models.model import ClickModel
from training.clicks.models.sampling import draw_clicks
from training.ultr.lists import ClickLists
from training.ultr.sessions import SessionCounter

PLACES = 5
EXAMINED = np.array([1.0, 0.7, 0.5, 0.3, 0.2])


def disagreeing_lists(queries: int, rankers: int, *, seed: int, places: int = PLACES) -> ClickLists:
    """`rankers` random orders of each query's own `places` documents, not yet shown to anyone."""
    generator = np.random.default_rng(seed)
    orders = [generator.permuted(np.tile(np.arange(places), (queries, 1)), axis=1) for _ in range(rankers)]
    rows = np.concatenate([order + places * np.arange(queries)[:, None] for order in orders])
    lists = len(rows)
    return ClickLists(
        features=np.zeros((queries * places, 1), dtype=np.float32),
        feature_names=("nothing",),
        rows=rows,
        queries=np.tile(np.arange(queries), rankers),
        slots=np.tile(np.arange(places), (lists, 1)),
        shown=np.zeros(lists, dtype=np.int64),
        clicks=np.zeros(rows.shape, dtype=np.int64),
    )


def shown_to_users(lists: ClickLists, model: ClickModel, *, sessions: int, seed: int) -> ClickLists:
    """Show random lists to users who click as the model says."""
    generator = np.random.default_rng(seed)
    counter = SessionCounter(lists)
    shown: npt.NDArray[np.int64] = generator.integers(len(lists.rows), size=sessions)
    counter.add(shown, draw_clicks(model, lists.rows[shown], lists.slots[shown], generator))
    return counter.counted()
