"""Simulated users click as often as their formulas say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from rankers.errors import InvalidInputError
from training.ultr.simulate import (
    Cascade,
    ClickModel,
    PositionBased,
    Trust,
    UserBrowsing,
    attraction,
    examination_curve,
    fit_production,
    shown_lists,
    simulate_clicks,
    simulate_clicks_by_place,
)
from training.ultr.svmlight import JudgedLists

CURVE = examination_curve(4)
ATTRACTIVE = np.array([0.9, 0.2, 0.6, 0.0])
SESSIONS = 200_000


def rates(model: ClickModel, slots: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.float64]:
    places = np.arange(4) if slots is None else slots
    shape = (SESSIONS, 4)
    clicked = model.clicks(np.broadcast_to(ATTRACTIVE, shape), np.broadcast_to(places, shape), np.random.default_rng(0))
    assert not clicked[:, 3].any(), "a place that does not exist is never clicked"
    return np.asarray(clicked.mean(axis=0), dtype=np.float64)


def judged(queries: int = 40, documents: int = 12) -> JudgedLists:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(queries * documents, 3)).astype(np.float32)
    labels = np.digitize(features[:, 0] + rng.normal(scale=0.3, size=len(features)), [0.5, 1.5]).astype(np.int64)
    return JudgedLists(
        features, tuple("abc"), labels, np.repeat(np.arange(queries), documents), tuple(map(str, range(queries)))
    )


def test_position_based_goes_by_slots() -> None:
    np.testing.assert_allclose(rates(PositionBased(CURVE)), CURVE * ATTRACTIVE, atol=0.005)
    reverse = np.arange(4)[::-1]
    np.testing.assert_allclose(rates(PositionBased(CURVE), reverse), CURVE[::-1] * ATTRACTIVE, atol=0.005)


def test_the_cascade_stops_at_the_first_click() -> None:
    passed = np.cumprod(np.concatenate([[1.0], 1 - ATTRACTIVE[:3]]))
    np.testing.assert_allclose(rates(Cascade()), passed * ATTRACTIVE, atol=0.005)
    onward = np.cumprod(np.concatenate([[1.0], 1 - ATTRACTIVE[:3] * 0.5]))
    np.testing.assert_allclose(rates(Cascade(onward=0.5)), onward * ATTRACTIVE, atol=0.005)


def test_user_browsing_goes_by_the_distance_from_the_last_click() -> None:
    found = rates(UserBrowsing(CURVE))
    first = CURVE[0] * ATTRACTIVE[0]
    second = ATTRACTIVE[1] * (first * np.sqrt(CURVE[1] * CURVE[0]) + (1 - first) * CURVE[1])
    np.testing.assert_allclose(found[:2], [first, second], atol=0.005)


def test_trust_is_affine_in_relevance() -> None:
    slope, offset = Trust(CURVE).affine()
    expected = (slope * ATTRACTIVE + offset) * (ATTRACTIVE > 0)
    np.testing.assert_allclose(rates(Trust(CURVE)), expected, atol=0.005)
    assert (slope >= 0).all()
    assert (offset <= CURVE).all()


def test_attraction_and_examination_follow_their_formulas() -> None:
    np.testing.assert_allclose(attraction(np.array([0, 1, 2, 4]), noise=0.1), 0.1 + 0.9 * np.array([0, 1, 3, 15]) / 15)
    np.testing.assert_array_equal(examination_curve(10, eta=0), np.ones(10))
    longer = examination_curve(20)
    assert (np.diff(longer) < 0).all()
    np.testing.assert_allclose(longer[19], 0.06 / 2)


def test_lists_show_the_best_and_end_where_documents_end() -> None:
    lists = judged(2, 3)
    shown = shown_lists(lists, np.array([0.1, 0.9, 0.5, 3.0, 2.0, 1.0]), places=4)
    assert shown.rows.tolist() == [[1, 2, 0, -1], [3, 4, 5, -1]]
    with pytest.raises(InvalidInputError, match="score each"):
        shown_lists(lists, np.zeros(3))


def test_clicks_depend_on_the_seed_only() -> None:
    lists = shown_lists(judged(), judged().features[:, 1].astype(np.float64))
    one, two, three = (
        simulate_clicks(lists, attraction(judged().labels), PositionBased(examination_curve()), sessions=5000, seed=s)
        for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.clicks, two.clicks)
    assert (one.clicks != three.clicks).any()
    assert one.sessions == 5000


def test_production_is_better_than_chance() -> None:
    lists = judged()
    scores = fit_production(lists, seed=0).score(lists.features)
    assert np.corrcoef(scores, lists.labels)[0, 1] > 0.3


def test_examination_may_differ_between_lists() -> None:
    lists = shown_lists(judged(queries=2), np.arange(24.0), places=4)
    examination = np.stack([CURVE, CURVE[::-1]])
    attractive = np.full(24, 0.8)
    clicked = simulate_clicks_by_place(lists, attractive, examination, sessions=SESSIONS, seed=0)
    np.testing.assert_allclose(clicked.clicks / clicked.shown[:, None], 0.8 * examination, atol=0.01)
    np.testing.assert_array_equal(clicked.slots, lists.slots)
