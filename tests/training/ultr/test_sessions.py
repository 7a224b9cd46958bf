"""Counting sessions: any order and any parts give the counts of the whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankers.errors import InvalidInputError
from tests.training.ultr.small_lists import empty_lists
from training.ultr.lists import ClickLists
from training.ultr.sessions import SessionCounter, pair_counts

LISTS = empty_lists([4, 1, 3, 4], places=4)


def sessions(seed: int, count: int = 200) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, len(LISTS.rows), size=count)
    return numbers, (rng.random((count, 4)) < 0.4) & LISTS.mask[numbers]


def counted(*parts: tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]], patterns: bool = True) -> ClickLists:
    counter = SessionCounter(LISTS, patterns=patterns)
    for numbers, clicked in parts:
        counter.add(numbers, clicked)
    return counter.counted()


def assert_same(one: ClickLists, other: ClickLists) -> None:
    np.testing.assert_array_equal(one.shown, other.shown)
    np.testing.assert_array_equal(one.clicks, other.clicks)
    assert one.patterns is not None
    assert other.patterns is not None
    for name in ("lists", "clicked", "sessions"):
        np.testing.assert_array_equal(getattr(one.patterns, name), getattr(other.patterns, name))


@settings(max_examples=30)
@given(st.integers(0, 2**20), st.integers(0, 200))
def test_order_and_parts_do_not_matter(seed: int, cut: int) -> None:
    numbers, clicked = sessions(seed)
    order = np.random.default_rng(seed + 1).permutation(len(numbers))
    whole = counted((numbers, clicked))
    mixed = counted((numbers[order][:cut], clicked[order][:cut]), (numbers[order][cut:], clicked[order][cut:]))
    assert_same(whole, mixed)
    np.testing.assert_array_equal(whole.clicks[2], clicked[numbers == 2].sum(axis=0))
    assert whole.sessions == len(numbers)


def test_a_longer_log_goes_on_from_counts() -> None:
    first, second = sessions(1), sessions(2)
    counter = SessionCounter(counted(first))
    counter.add(*second)
    assert_same(counter.counted(), counted(first, second))


def test_patterns_add_up_to_counts() -> None:
    found = counted(sessions(3))
    assert found.patterns is not None
    shown = np.bincount(found.patterns.lists, found.patterns.sessions, minlength=4)
    np.testing.assert_array_equal(shown, found.shown)
    clicks = np.zeros_like(found.clicks)
    np.add.at(clicks, found.patterns.lists, found.patterns.clicked * found.patterns.sessions[:, None])
    np.testing.assert_array_equal(clicks, found.clicks)


def test_pairs_are_counted_exactly_with_patterns() -> None:
    numbers, clicked = sessions(4)
    found = pair_counts(counted((numbers, clicked)))
    expected = np.zeros((4, 4, 4))
    for number, places in zip(numbers, clicked, strict=True):
        passed = ~places & LISTS.mask[number]
        expected[number] += places[:, None] & passed[None, :]
    np.testing.assert_array_equal(found, expected)


def test_pairs_without_patterns_are_about_right_for_independent_clicks() -> None:
    part = sessions(5, 40_000)
    exact, about = pair_counts(counted(part)), pair_counts(counted(part, patterns=False))
    some = exact > 100
    np.testing.assert_allclose(about[some], exact[some], rtol=0.1)


def test_what_cannot_be_is_refused() -> None:
    numbers, clicked = sessions(6)
    counter = SessionCounter(LISTS)
    with pytest.raises(InvalidInputError, match="shape"):
        counter.add(numbers, clicked[:, :3])
    with pytest.raises(InvalidInputError, match="shows list"):
        counter.add(numbers + 4, clicked)
    after_the_end = np.zeros((1, 4), dtype=np.bool_)
    after_the_end[0, 3] = True
    with pytest.raises(InvalidInputError, match="after the end"):
        counter.add(np.array([1]), after_the_end)
    with pytest.raises(InvalidInputError, match="without patterns"):
        SessionCounter(counted((numbers, clicked), patterns=False))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"queries": np.zeros(3, dtype=np.int64)}, "queries"),
        ({"clicks": np.zeros((4, 3), dtype=np.int64)}, "clicks has shape"),
        ({"feature_names": ("a",)}, "names"),
        ({"rows": np.full((4, 4), 99)}, "rows goes up"),
        ({"clicks": np.full((4, 4), 1)}, "more clicks"),
        ({"clicks": np.full((4, 4), 1), "shown": np.full(4, 9)}, "after the end"),
    ],
)
def test_lists_that_contradict_themselves_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        replace(LISTS, **change)  # type: ignore[arg-type]
