"""Logs that must not be learned from, and one that may."""

import numpy as np

from training.loop.abstain import reasons_to_abstain
from training.ultr.lists import ClickLists


def lists(shown: int, clicks: list[int]) -> ClickLists:
    places = len(clicks)
    rows = np.arange(places)[None]
    return ClickLists(
        features=np.zeros((places, 1), dtype=np.float32),
        feature_names=("f",),
        rows=rows,
        queries=np.zeros(1, dtype=np.int64),
        slots=rows,
        shown=np.array([shown]),
        clicks=np.array([clicks]),
    )


def test_a_log_with_enough_sessions_and_clicks_on_several_places_may_be_learned_from() -> None:
    assert reasons_to_abstain(lists(10, [5, 2, 1])) == []


def test_few_sessions_for_each_list_are_a_reason() -> None:
    assert reasons_to_abstain(lists(9, [5, 2, 1])) == ["9.0 sessions for each list, fewer than 10"]


def test_clicks_on_one_place_only_are_a_reason() -> None:
    (reason,) = reasons_to_abstain(lists(100, [0, 0, 60]))
    assert "all clicks are on one place" in reason
