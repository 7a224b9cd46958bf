from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankers.errors import InvalidInputError
from tests.training.clicks.simulated import EXAMINED, PLACES, disagreeing_lists, shown_to_users
from training.clicks.models.position import PositionBased
from training.propensity.curves import Estimator
from training.propensity.harvesting import all_pairs_propensities, pivot_propensities
from training.propensity.randomisation import shuffled_propensities
from training.ultr.lists import PADDING, ClickLists

ESTIMATORS = pytest.mark.parametrize("estimate", [all_pairs_propensities, pivot_propensities, shuffled_propensities])


def users(queries: int, *, seed: int) -> PositionBased:
    attraction = np.random.default_rng(seed).uniform(0.05, 0.6, queries * PLACES)
    return PositionBased(attraction, EXAMINED, 0.5, 0.5)


def production_lists(queries: int, *, versions: int, seed: int) -> tuple[ClickLists, PositionBased]:
    """Versions that know relevance more or less, so that position and relevance go together, as in a real log."""
    model, generator = users(queries, seed=seed), np.random.default_rng(seed)
    lists = disagreeing_lists(queries, versions, seed=seed)
    scores = model.attraction + generator.normal(scale=0.15, size=(versions, len(model.attraction)))
    ordered = [
        rows[np.argsort(-version[rows])]
        for version, part in zip(scores, np.split(lists.rows, versions), strict=True)
        for rows in part
    ]
    return replace(lists, rows=np.array(ordered)), model


@ESTIMATORS
def test_shuffled_lists_give_the_truth_to_all(estimate: Estimator) -> None:
    lists = shown_to_users(disagreeing_lists(100, 30, seed=0), users(100, seed=0), sessions=300_000, seed=0)
    np.testing.assert_allclose(estimate(lists), EXAMINED, atol=0.02)


@pytest.mark.parametrize("versions", [2, 3])
def test_versions_that_disagree_give_the_truth_to_harvesting(versions: int) -> None:
    lists, model = production_lists(200, versions=versions, seed=1)
    log = shown_to_users(lists, model, sessions=300_000, seed=1)
    np.testing.assert_allclose(all_pairs_propensities(log), EXAMINED, atol=0.02)
    clicks_by_place = shuffled_propensities(log)
    assert np.abs(clicks_by_place - EXAMINED).max() > 0.1  # what a plain click-through rate would say


def test_all_pairs_are_exact_where_clicks_have_no_chance() -> None:
    lists = disagreeing_lists(30, 3, seed=2)
    shown = np.random.default_rng(2).integers(1, 50, len(lists.rows)) * 10_000_000
    chances = users(30, seed=2).click_chances(lists.rows, lists.slots)
    exact = replace(lists, shown=shown, clicks=np.rint(shown[:, None] * chances).astype(np.int64))
    for estimate in (all_pairs_propensities, pivot_propensities):
        np.testing.assert_allclose(estimate(exact), EXAMINED, atol=1e-5)


@settings(max_examples=20)
@given(st.integers(0, 100), st.integers(2, 50), st.permutations(range(20)))
@ESTIMATORS
def test_more_of_the_same_and_another_order_change_nothing(
    estimate: Estimator, seed: int, times: int, order: list[int]
) -> None:
    log = shown_to_users(disagreeing_lists(10, 2, seed=seed), users(10, seed=seed), sessions=2_000, seed=seed)
    expected = estimate(log)
    repeated = replace(log, shown=log.shown * times, clicks=log.clicks * times, patterns=None)
    np.testing.assert_allclose(estimate(repeated), expected, rtol=1e-5)
    np.testing.assert_allclose(estimate(log.take(np.array(order))), expected, rtol=1e-5)


def moves(rows: list[list[int]], clicks: list[list[int]]) -> ClickLists:
    table: npt.NDArray[np.int64] = np.array(rows)
    return ClickLists(
        features=np.zeros((int(table.max()) + 1, 0), dtype=np.float32),
        feature_names=(),
        rows=table,
        queries=np.zeros(len(table), dtype=np.int64),
        slots=np.where(table == PADDING, 0, np.arange(table.shape[1])),
        shown=np.full(len(table), 100),
        clicks=np.array(clicks),
    )


def test_a_chain_of_moves_reaches_slots_that_were_never_swapped_with_the_first() -> None:
    log = moves([[0, 1, 2], [1, 0, 2], [0, 2, 1]], [[80, 20, 5], [40, 40, 5], [80, 10, 10]])
    assert all_pairs_propensities(log) == pytest.approx([1.0, 0.5, 0.25], abs=1e-6)


def test_slots_that_nothing_connects_are_not_guessed() -> None:
    log = moves([[0, 1, 2, 3], [1, 0, 3, 2]], [[80, 20, 5, 5], [40, 40, 5, 5]])
    np.testing.assert_allclose(all_pairs_propensities(log), [1.0, 0.5, np.nan, np.nan], atol=1e-6)
    np.testing.assert_allclose(pivot_propensities(log), [1.0, 0.5, np.nan, np.nan], atol=1e-6)


def test_one_order_of_each_query_says_nothing() -> None:
    log = moves([[0, 1], [2, PADDING]], [[50, 30], [20, 0]])
    with pytest.raises(InvalidInputError, match="cannot tell position from relevance"):
        all_pairs_propensities(log)
    with pytest.raises(InvalidInputError, match="cannot tell position from relevance"):
        pivot_propensities(log)
    with pytest.raises(InvalidInputError, match="never clicked"):
        shuffled_propensities(replace(log, clicks=np.zeros_like(log.clicks)))
