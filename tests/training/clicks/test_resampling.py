import numpy as np
import pytest

from rankers.errors import InvalidInputError
from tests.training.clicks.simulated import EXAMINED, disagreeing_lists, shown_to_users
from training.clicks.models.position import PositionBased
from training.clicks.resampling import Unit, resample
from training.ultr.lists import ClickLists


def log() -> ClickLists:
    model = PositionBased(np.full(100, 0.5), EXAMINED, 0.5, 0.5)
    return shown_to_users(disagreeing_lists(20, 2, seed=0), model, sessions=2_000, seed=0)


@pytest.mark.parametrize("unit", list(Unit))
def test_drawn_logs_are_consistent_and_repeatable(unit: Unit) -> None:
    lists = log()
    drawn = list(resample(lists, unit=unit, replicates=5, seed=3))
    assert len({int(replicate.clicks.sum()) for replicate in drawn}) > 1
    for replicate, again in zip(drawn, resample(lists, unit=unit, replicates=5, seed=3), strict=True):
        patterns = replicate.patterns
        assert patterns is not None
        np.testing.assert_array_equal(replicate.clicks, again.clicks)
        shown = np.bincount(patterns.lists, weights=patterns.sessions, minlength=len(lists.rows))
        np.testing.assert_array_equal(replicate.shown, shown)
        clicks = np.zeros(lists.clicks.shape, dtype=np.int64)
        np.add.at(clicks, patterns.lists, patterns.clicked * patterns.sessions[:, None])
        np.testing.assert_array_equal(replicate.clicks, clicks)


def test_queries_are_drawn_whole() -> None:
    lists = log()
    for replicate in resample(lists, unit=Unit.QUERIES, replicates=3):
        times = replicate.shown / lists.shown
        by_query = {query: set(times[lists.queries == query].tolist()) for query in range(20)}
        assert all(len(found) == 1 for found in by_query.values())
        assert sum(found.pop() for found in by_query.values()) == 20


def test_the_spread_of_drawn_clicks_is_that_of_new_sessions() -> None:
    lists = log()
    drawn = np.array([replicate.clicks.sum() for replicate in resample(lists, unit=Unit.SESSIONS, replicates=400)])
    assert drawn.mean() == pytest.approx(lists.clicks.sum(), rel=0.02)
    model = PositionBased(np.full(100, 0.5), EXAMINED, 0.5, 0.5)
    anew = [shown_to_users(disagreeing_lists(20, 2, seed=0), model, sessions=2_000, seed=s) for s in range(60)]
    # The number of sessions varies too, as Poisson: its variance is added to that of clicks among a fixed number.
    expected = np.sqrt(np.var([one.clicks.sum() for one in anew]) + (lists.clicks.sum() / 2_000) ** 2 * 2_000)
    assert drawn.std() == pytest.approx(expected, rel=0.25)


def test_sessions_need_patterns() -> None:
    lists = log().take(np.arange(3))
    with pytest.raises(InvalidInputError, match="patterns"):
        next(resample(lists, unit=Unit.SESSIONS, replicates=1))
