import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rankers.errors import InvalidInputError
from training.evaluation.significance import bootstrap_interval, compare

VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@given(VALUES)
def test_the_interval_holds_the_mean_and_repeats(values: list[float]) -> None:
    interval = bootstrap_interval(values, resamples=500)
    assert interval.mean == pytest.approx(np.mean(values))
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9
    assert interval == bootstrap_interval(values, resamples=500)


def test_the_interval_is_about_the_normal_one_for_many_queries() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.1, size=400)
    interval = bootstrap_interval(values.tolist())
    half = 1.96 * values.std() / np.sqrt(400)
    assert interval.low == pytest.approx(values.mean() - half, abs=1e-3)
    assert interval.high == pytest.approx(values.mean() + half, abs=1e-3)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(2)
    covered = 0
    for seed in range(200):
        interval = bootstrap_interval(generator.uniform(size=60).tolist(), resamples=500, seed=seed)
        covered += interval.low <= 0.5 <= interval.high
    assert covered >= 180


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=20))
def test_the_p_value_is_that_of_a_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    ours = {str(i): a for i, (a, _) in enumerate(pairs)}
    theirs = {str(i): b for i, (_, b) in enumerate(pairs)}
    comparison = compare(ours, theirs)
    differences = np.array([a - b for a, b in pairs])
    if differences.std() > 1e-9:
        expected = stats.ttest_rel(list(ours.values()), list(theirs.values())).pvalue
        assert comparison.p_value == pytest.approx(expected, abs=1e-9)
    assert comparison.wins + comparison.ties + comparison.losses == len(pairs)
    assert comparison.wins == sum(a > b for a, b in pairs)


def test_drawing_in_parts_covers_every_resample() -> None:
    interval = bootstrap_interval([1.0, 2.0, 3.0], resamples=1_234)
    assert 1.0 <= interval.low < 2.0 < interval.high <= 3.0


def test_nothing_to_test_is_no_evidence() -> None:
    assert compare({"q": 1.0}, {"q": 0.0}).p_value == 1.0
    assert compare({"q": 0.5, "r": 0.5}, {"q": 0.5, "r": 0.5}).p_value == 1.0


def test_other_queries_and_none_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="same queries"):
        compare({"q": 1.0}, {"r": 1.0})
    with pytest.raises(InvalidInputError, match="at least one query"):
        bootstrap_interval([])
