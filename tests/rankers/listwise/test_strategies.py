"""Strategies on their own, with an oracle for outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankers.errors import ConfigError
from rankers.listwise.strategies.single import Single
from rankers.listwise.strategies.sliding import Sliding
from rankers.listwise.windows import Strategy, Window, WindowOutcome, planned_windows


def run(strategy: Strategy, count: int, worth: Callable[[int], float]) -> tuple[list[int], list[Window]]:
    """Play a strategy to its end, ordering every window by what its candidates are worth."""
    seen: list[Window] = []
    plan = strategy.plan(count)
    try:
        windows: Sequence[Window] = next(plan)
        while True:
            seen.extend(windows)
            windows = plan.send([WindowOutcome(tuple(sorted(window, key=worth, reverse=True))) for window in windows])
    except StopIteration as stop:
        return list(stop.value), seen


def test_a_hundred_candidates_take_nine_windows_from_back_to_front() -> None:
    windows = planned_windows(Sliding(), 100)
    assert [(window[0], window[-1]) for window in windows] == [(80 - 10 * i, 99 - 10 * i) for i in range(9)]
    assert all(len(window) == 20 for window in windows)


@pytest.mark.parametrize(
    ("count", "spans"), [(2, [(0, 1)]), (20, [(0, 19)]), (21, [(1, 20), (0, 10)]), (30, [(10, 29), (0, 19)])]
)
def test_short_lists(count: int, spans: list[tuple[int, int]]) -> None:
    assert [(window[0], window[-1]) for window in planned_windows(Sliding(), count)] == spans


sizes = st.integers(2, 12).flatmap(lambda size: st.tuples(st.just(size), st.integers(1, size - 1)))


@given(sizes, st.integers(2, 60), st.data())
def test_sliding_brings_the_best_to_the_front_of_any_order(
    shape: tuple[int, int], count: int, data: st.DataObject
) -> None:
    size, stride = shape
    worth = data.draw(st.permutations(range(count)))
    order, windows = run(Sliding(size=size, stride=stride), count, worth.__getitem__)
    assert sorted(order) == list(range(count))
    assert all(2 <= len(window) <= size for window in windows)
    assert {i for window in windows for i in window} == set(range(count))
    # What one window hands to the next are its best size - stride, so those reach the front whatever came in.
    best = sorted(range(count), key=worth.__getitem__, reverse=True)
    assert order[: size - stride] == best[: size - stride]


@given(sizes, st.integers(2, 60))
def test_an_order_that_is_right_already_stays(shape: tuple[int, int], count: int) -> None:
    order, _ = run(Sliding(size=shape[0], stride=shape[1]), count, lambda i: -i)
    assert order == list(range(count))


@given(st.integers(2, 80), st.data())
def test_single_is_one_window(count: int, data: st.DataObject) -> None:
    worth = data.draw(st.permutations(range(count)))
    order, windows = run(Single(), count, worth.__getitem__)
    assert windows == [tuple(range(count))]
    assert order == sorted(range(count), key=worth.__getitem__, reverse=True)
    assert Single().window_size is None


def test_fewer_than_two_candidates_need_no_window() -> None:
    assert planned_windows(Sliding(), 1) == planned_windows(Single(), 0) == []


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (0, 1), (20, 0), (20, 20), (5, -1)])
def test_windows_that_cannot_slide_are_refused(size: int, stride: int) -> None:
    with pytest.raises(ConfigError, match=r"(window size|stride) is"):
        Sliding(size=size, stride=stride)
