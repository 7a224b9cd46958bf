"""Aggregates against their definitions, brute force, and the properties all of them share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize

from rankers.errors import ConfigError
from rankers.listwise.aggregate import (
    AGGREGATES,
    bradley_terry,
    elo,
    pagerank,
    pair_wins,
    verdict,
    win_rate,
    window_scores,
)
from rankers.listwise.windows import Window, WindowOutcome
from rankers.types import ScoreKind

Floats = npt.NDArray[np.float64]
Aggregate = Callable[[Floats], Floats]

every_aggregate = pytest.mark.parametrize("aggregate", [function for function, _ in AGGREGATES.values()])


@st.composite
def wins_matrices(draw: st.DrawFn) -> Floats:
    count = draw(st.integers(2, 8))
    values = st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.0, 0.3, 7.5])
    wins = draw(hnp.arrays(np.float64, (count, count), elements=values))
    np.fill_diagonal(wins, 0.0)
    return wins


@st.composite
def windows_with_logits(draw: st.DrawFn) -> tuple[list[Window], list[list[float]], int]:
    count = draw(st.integers(2, 9))
    windows = draw(
        st.lists(st.permutations(range(count)).flatmap(lambda p: st.integers(2, count).map(lambda n: tuple(p[:n])))),
    )
    logits = [draw(st.lists(st.floats(-9, 9), min_size=len(w), max_size=len(w))) for w in windows]
    return windows, logits, count


def transitive(count: int) -> Floats:
    return np.triu(np.ones((count, count)), 1)


# Pair wins


@given(windows_with_logits())
def test_pair_wins_are_those_of_every_pair_of_every_window(case: tuple[list[Window], list[list[float]], int]) -> None:
    windows, logits, count = case
    outcomes = [WindowOutcome(tuple(sorted(window)), tuple(row)) for window, row in zip(windows, logits, strict=True)]
    hard, soft = np.zeros((count, count)), np.zeros((count, count))
    for window, row in zip(windows, logits, strict=True):
        for i, j in itertools.combinations(sorted(window), 2):
            hard[i, j] += 1
        for (i, a), (j, b) in itertools.permutations(zip(window, row, strict=True), 2):
            soft[i, j] += 1 / (1 + math.exp(b - a))
    assert np.array_equal(pair_wins(windows, outcomes, count), hard)
    assert np.allclose(pair_wins(windows, outcomes, count, soft=True), soft)


def test_windows_that_failed_say_nothing() -> None:
    failed = WindowOutcome((0, 1), failure="no answer")
    assert not pair_wins([(0, 1)], [failed], 2).any()
    assert not pair_wins([(0, 1)], [failed], 2, soft=True).any()
    assert not pair_wins([(0, 1)], [WindowOutcome((1, 0))], 2, soft=True).any()


def test_soft_wins_of_extreme_logits_are_hard_ones() -> None:
    extreme = WindowOutcome((0, 1), logits=(1e30, -1e30))
    assert np.allclose(pair_wins([(0, 1)], [extreme], 2, soft=True), [[0, 1], [0, 0]], atol=1e-300)


# What every aggregate does


@every_aggregate
@given(wins=wins_matrices(), data=st.data())
def test_renumbering_candidates_renumbers_scores(aggregate: Aggregate, wins: Floats, data: st.DataObject) -> None:
    p = np.array(data.draw(st.permutations(range(len(wins)))))
    assert np.allclose(aggregate(wins[np.ix_(p, p)]), aggregate(wins)[p], atol=1e-8)


@every_aggregate
@pytest.mark.parametrize("count", [2, 3, 20, 100])
def test_a_clean_tournament_is_recovered(aggregate: Aggregate, count: int) -> None:
    scores = aggregate(transitive(count))
    assert (np.diff(scores) < -1e-9).all()


@every_aggregate
def test_candidates_never_compared_have_finite_scores(aggregate: Aggregate) -> None:
    assert np.allclose(aggregate(np.zeros((4, 4))), aggregate(np.zeros((4, 4)))[0])
    # 0 beats 1, 2 beats 3, and 4 is alone: an average one.
    wins = np.zeros((5, 5))
    wins[0, 1] = wins[2, 3] = 3.0
    scores = aggregate(wins)
    assert np.isfinite(scores).all()
    assert scores[0] == pytest.approx(scores[2])
    assert scores[0] > scores[4] >= scores[1] - 1e-12


@pytest.mark.parametrize("aggregate", [win_rate, pagerank, elo])
@given(wins=wins_matrices(), factor=st.floats(0.01, 100))
def test_only_the_shares_of_wins_matter(aggregate: Aggregate, wins: Floats, factor: float) -> None:
    assert np.allclose(aggregate(factor * wins), aggregate(wins), atol=1e-9)


@given(wins_matrices())
def test_scores_mean_what_their_kind_says(wins: Floats) -> None:
    for function, kind in AGGREGATES.values():
        scores = function(wins)
        if kind == ScoreKind.PREFERENCE:
            assert abs(scores.mean()) < 1e-9
        else:
            assert kind == ScoreKind.SHARE
            assert ((scores >= 0) & (scores <= 1)).all()
    assert pagerank(wins).sum() == pytest.approx(1)


# Each on its own


@settings(max_examples=50)
@given(wins_matrices(), st.sampled_from([0.1, 0.5, 2.0]))
def test_bradley_terry_is_the_maximum_of_its_likelihood(wins: Floats, prior_wins: float) -> None:
    def loss(s: Floats) -> float:
        ahead = np.logaddexp(0, s[None, :] - s[:, None])
        virtual = np.logaddexp(0, s) + np.logaddexp(0, -s)
        return float((wins * ahead).sum() + prior_wins * virtual.sum())

    found = minimize(loss, np.zeros(len(wins)), method="BFGS", options={"gtol": 1e-7}).x
    assert np.allclose(bradley_terry(wins, prior_wins=prior_wins), found - found.mean(), atol=1e-4)


@given(wins_matrices(), st.floats(0.1, 10))
def test_bradley_terry_scales_with_its_prior(wins: Floats, factor: float) -> None:
    scaled = bradley_terry(factor * wins, prior_wins=0.5 * factor)
    assert np.allclose(scaled, bradley_terry(wins), atol=1e-7)


@given(st.lists(st.floats(-2, 2), min_size=3, max_size=8))
def test_bradley_terry_finds_the_strengths_that_made_the_wins(strengths: list[float]) -> None:
    s = np.array(strengths)
    wins = 1e6 / (1 + np.exp(s[None, :] - s[:, None]))
    np.fill_diagonal(wins, 0.0)
    assert np.allclose(bradley_terry(wins), s - s.mean(), atol=1e-4)


def test_bradley_terry_reaches_far_strengths() -> None:
    # A chain where each beats the next a million times: strengths are far apart, and still where the slope is zero.
    wins = np.diag(np.full(19, 1e6), 1)
    s = bradley_terry(wins, prior_wins=1e-3)
    assert (np.diff(s) < -15).all()
    assert np.allclose(s, -s[::-1])


@settings(max_examples=50)
@given(wins_matrices())
def test_pagerank_is_where_the_walk_ends(wins: Floats) -> None:
    count = len(wins)
    lost = wins.sum(axis=0)
    x = np.full(count, 1 / count)
    for _ in range(300):
        following = sum(x[j] * (wins[:, j] / lost[j] if lost[j] else np.full(count, 1 / count)) for j in range(count))
        x = 0.85 * following + 0.15 / count
    assert np.allclose(pagerank(wins), x, atol=1e-9)


def test_elo_of_many_rounds_is_bradley_terry() -> None:
    wins = np.array([[0.0, 3.0, 4.0], [2.0, 0.0, 3.0], [1.0, 2.0, 0.0]])
    assert np.allclose(elo(wins, rounds=5000), bradley_terry(wins, prior_wins=1e-9), atol=1e-6)
    assert np.abs(elo(wins, k_points=10.0, rounds=3)).max() <= 30 * math.log(10) / 400


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda wins: pagerank(wins, damping=1.0), "damping is 1.0"),
        (lambda wins: bradley_terry(wins, prior_wins=0.0), "prior_wins is 0.0"),
        (lambda wins: elo(wins, k_points=0.0), "k_points is 0.0"),
        (lambda wins: elo(wins, rounds=0), "rounds is 0"),
        (lambda wins: window_scores([], [], 2, method="median"), "method is 'median'"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_is_refused(call: Aggregate, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call(np.zeros((2, 2)))


# Scores of windows


@settings(max_examples=50)
@given(windows_with_logits())
def test_averages_are_the_least_squares_of_logits(case: tuple[list[Window], list[list[float]], int]) -> None:
    windows, logits, count = case
    rows, values = [], []
    for number, (window, row) in enumerate(zip(windows, logits, strict=True)):
        for candidate, logit in zip(window, row, strict=True):
            unknowns = np.zeros(count + len(windows))
            unknowns[[candidate, count + number]] = 1
            rows.append(unknowns)
            values.append(logit)
    scores = window_scores(windows, logits, count, method="average")
    assert scores.mean() == pytest.approx(0, abs=1e-9)
    if windows:
        design, target = np.array(rows), np.array(values)
        best = design @ np.linalg.lstsq(design, target, rcond=None)[0]
        # The best fit is unique, the unknowns are not: with ours, and the constants that suit them, it is the same.
        for number, (window, row) in enumerate(zip(windows, logits, strict=True)):
            s = scores[list(window)]
            fitted = s - s.mean() + np.mean(row)
            start = sum(map(len, windows[:number]))
            assert np.allclose(fitted, best[start : start + len(window)], atol=1e-7)


@pytest.mark.parametrize("method", ["bradley-terry", "average"])
def test_scores_of_windows_are_comparable_across_them(method: str) -> None:
    true = np.array([2.0, 1.0, 0.5, 0.0, -1.0, -2.5])
    windows: list[Window] = [(5, 3, 4), (3, 1, 2), (0, 1)]
    logits = [list(true[list(window)] + shift) for window, shift in zip(windows, (10.0, -4.0, 33.0), strict=True)]
    scores = window_scores(windows, logits, 6, method=method)  # type: ignore[arg-type]
    shifted = window_scores(windows, [[x - 5 for x in row] for row in logits], 6, method=method)  # type: ignore[arg-type]
    assert np.allclose(scores, shifted)
    if method == "average":
        assert np.allclose(scores, true - true.mean())
    for window in windows:
        assert np.array_equal(np.argsort(scores[list(window)]), np.argsort(true[list(window)]))


@pytest.mark.parametrize("method", ["bradley-terry", "average"])
def test_windows_apart_and_windows_without_logits_leave_scores_finite(method: str) -> None:
    scores = window_scores([(0, 1), (2, 3), (3, 4)], [(1.0, 0.0), (5.0, 4.0), ()], 5, method=method)  # type: ignore[arg-type]
    assert scores[0] == pytest.approx(-scores[1])
    assert scores[[0, 1]] == pytest.approx(scores[[2, 3]])
    assert scores[4] == pytest.approx(0, abs=1e-9)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.data())
def test_a_verdict_breaks_ties_as_told_and_ignores_the_last_bits(values: list[int], data: st.DataObject) -> None:
    ties = data.draw(st.permutations(range(len(values))))
    noise = np.array([data.draw(st.floats(-1e-12, 1e-12)) for _ in values])
    concluded = verdict(np.array(values) + noise, score_kind=ScoreKind.SHARE, ties=ties)
    assert list(concluded.order) == sorted(range(len(values)), key=lambda i: (-values[i], ties.index(i)))
    assert list(concluded.scores) == sorted(values, reverse=True)
