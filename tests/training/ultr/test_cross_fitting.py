"""Scores of queries by rankers that have not learned from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rankers.errors import InvalidInputError
from tests.training.ultr.small_lists import attractiveness, clicked_lists, empty_lists
from training.ultr.cross_fitting import cross_fit
from training.ultr.dla import Dla
from training.ultr.fitting import NetworkSettings
from training.ultr.ipw import Naive
from training.ultr.lists import ClickLists

NETWORK = NetworkSettings(hidden=(), most_steps=60, learning_rate=0.02)
LISTS = clicked_lists(empty_lists([6] * 60, places=6))


def of_first_query(lists: ClickLists) -> ClickLists:
    """The same log, but everybody clicked the last place of the first list."""
    clicks = lists.clicks.copy()
    clicks[0] = 0
    clicks[0, -1] = lists.shown[0]
    return replace(lists, clicks=clicks, patterns=None)


def test_clicks_on_a_query_do_not_change_its_own_scores_and_change_others() -> None:
    before, after = (cross_fit(Naive(network=NETWORK), lists).scores for lists in (LISTS, of_first_query(LISTS)))
    np.testing.assert_array_equal(before[LISTS.rows[0]], after[LISTS.rows[0]])
    assert (before[LISTS.rows[1:]] != after[LISTS.rows[1:]]).any()


def test_what_carries_over_to_other_queries_is_learned() -> None:
    found = cross_fit(Dla(network=NETWORK), LISTS)
    assert np.corrcoef(found.scores, attractiveness(LISTS))[0, 1] > 0.8
    assert found.propensities is not None
    assert found.propensities[0] == pytest.approx(1.0)
    assert (np.diff(found.propensities) < 0.05).all()
    assert cross_fit(Naive(network=NETWORK), LISTS).propensities is None


def test_a_log_that_goes_on_is_scored_whole() -> None:
    learned = LISTS.take(np.arange(40))
    found = cross_fit(Naive(network=NETWORK), learned, scored=LISTS).scores
    assert np.isfinite(found).all()
    assert np.corrcoef(found[LISTS.rows[40:]].ravel(), attractiveness(LISTS)[LISTS.rows[40:]].ravel())[0, 1] > 0.7
    assert not cross_fit(Naive(network=NETWORK), learned).scores[LISTS.rows[40:]].any()


def test_one_query_cannot_be_divided() -> None:
    with pytest.raises(InvalidInputError, match="two are needed"):
        cross_fit(Naive(network=NETWORK), LISTS.take(np.array([0])))
