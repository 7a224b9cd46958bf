"""What a log can tell apart: swaps, features that give the position away, and how good the shown order was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.ultr.small_lists import attractiveness, empty_lists
from training.ultr.identify import clicked_alike, identifiability, shown_order_share
from training.ultr.lists import ClickLists
from training.ultr.simulate import PositionBased, Trust, examination_curve, simulate_clicks

PLACES = 5
CURVE = examination_curve(PLACES)


def served(rows: np.ndarray[tuple[int, int], np.dtype[np.int64]], times: int = 1) -> ClickLists:
    """The same 40 lists of five documents in the orders given, all shown."""
    empty = empty_lists([PLACES] * 40, places=PLACES)
    count = len(rows)
    return replace(
        empty,
        rows=rows,
        queries=np.tile(np.arange(40), count // 40),
        slots=np.tile(np.arange(PLACES), (count, 1)),
        shown=np.full(count, times),
        clicks=np.zeros_like(rows),
    )


ROWS = empty_lists([PLACES] * 40, places=PLACES).rows


def test_one_ranker_links_nothing() -> None:
    found = identifiability(served(ROWS))
    assert (found.swapped, found.linked) == (0.0, False)
    assert found.told_by_features < 0.3


def test_two_rankers_link_what_they_swap() -> None:
    swapped = ROWS.copy()
    swapped[:, [0, 1]] = ROWS[:, [1, 0]]
    found = identifiability(served(np.concatenate([ROWS, swapped])))
    assert found.swapped == pytest.approx(2 / PLACES)
    assert not found.linked, "three places never change"
    rotated = np.concatenate([ROWS, np.roll(ROWS, 1, axis=1)])
    assert identifiability(served(rotated)).linked


def test_two_rankers_that_agree_or_were_not_shown_are_one() -> None:
    assert not identifiability(served(np.concatenate([ROWS, ROWS]))).linked
    never = served(np.concatenate([ROWS, np.roll(ROWS, 1, axis=1)]))
    never.shown[40:] = 0
    assert not identifiability(never).linked


@pytest.mark.parametrize("form", [lambda slot: slot, lambda slot: 1 / (60 + slot), lambda slot: -np.log1p(slot)])
def test_a_feature_that_is_the_position_tells_it(form: np.ufunc) -> None:
    lists = served(ROWS)
    features = lists.features.copy()
    features[lists.rows, 2] = form(lists.slots.astype(np.float64))
    assert identifiability(replace(lists, features=features)).told_by_features > 0.95


def test_slots_that_no_list_shows_together_need_no_link() -> None:
    slots = np.array([[0, 1, 0], [1, 0, 0], [7, 8, 0], [8, 7, 0]])
    lists = replace(empty_lists([2] * 4, places=3, slots=slots), shown=np.ones(4, dtype=np.int64))
    assert not identifiability(lists).linked
    again = lists.rows[[0, 0, 2, 2]]
    assert identifiability(replace(lists, rows=again)).linked
    assert not identifiability(replace(lists, rows=lists.rows[[0, 0, 2, 3]])).linked


def test_the_share_of_the_shown_order_is_that_of_its_value() -> None:
    lists = empty_lists([PLACES] * 200, places=PLACES)
    worth = attractiveness(lists)
    shares = []
    for noise in (0.0, 0.3, 100.0):
        noisy = worth + np.random.default_rng(0).normal(scale=noise, size=len(worth))
        order = np.argsort(-noisy.reshape(200, PLACES), axis=1)
        ordered = replace(lists, rows=np.take_along_axis(lists.rows, order, axis=1))
        clicked = simulate_clicks(ordered, worth, PositionBased(CURVE), sessions=300_000, seed=0)
        shares.append(shown_order_share(clicked, worth, CURVE / CURVE[0]))
    assert shares[0] == pytest.approx(1.0, abs=1e-6)
    assert shares[0] > shares[1] > shares[2]
    assert abs(shares[2]) < 0.15


def test_a_ranker_that_is_no_better_than_chance_leaves_all_to_the_shown_order() -> None:
    lists = served(ROWS, times=10)
    assert shown_order_share(lists, np.zeros(len(lists.features)), CURVE) == 1.0


def test_on_top_everything_is_clicked_alike_where_people_trust_and_only_there() -> None:
    """Also where there are too few sessions for the rates themselves to say so."""
    lists = served(ROWS)
    for sessions in (400, 40_000):
        spread = {}
        for users in (Trust(CURVE), PositionBased(CURVE)):
            shown = replace(lists, shown=np.zeros(len(ROWS), dtype=np.int64))
            clicked = simulate_clicks(shown, attractiveness(lists), users, sessions=sessions, seed=1)
            spread[type(users)] = clicked_alike(clicked)
        assert spread[PositionBased] > 0.2
        assert spread[Trust] < spread[PositionBased] / 2
    assert spread[Trust] < 0.05
    assert clicked_alike(replace(lists, shown=np.ones(len(ROWS), dtype=np.int64))) == float("inf")
