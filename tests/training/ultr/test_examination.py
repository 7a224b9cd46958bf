"""Examination: what lists can say about slots, and the step that finds it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.ultr.small_lists import attractiveness, clicked_lists, empty_lists
from training.ultr.dla import ClosedFormExamination, Dla, GradientExamination, examination_weights
from training.ultr.examination import (
    examination_by_swaps,
    examination_given_scores,
    examination_step,
    relative,
    slot_groups,
)
from training.ultr.fitting import NetworkSettings
from training.ultr.lists import ClickLists
from training.ultr.losses import softmax_loss
from training.ultr.simulate import PositionBased, examination_curve, simulate_clicks

CURVE = examination_curve(5)
SETTINGS = NetworkSettings(hidden=(), most_steps=60, learning_rate=0.05, dropout=0.0)


def test_slots_are_grouped_by_the_lists_that_show_them_together() -> None:
    slots = np.array([[0, 1, 2], [2, 3, 0], [5, 6, 0], [6, 7, 0]])
    lists = empty_lists([3, 2, 2, 2], places=3, slots=slots)
    assert slot_groups(lists).tolist() == [0, 0, 0, 0, -1, 5, 5, 5]


def test_where_all_lists_show_the_same_slots_one_step_is_the_minimum() -> None:
    rng = np.random.default_rng(0)
    clicks = torch.tensor(rng.gamma(1.0, size=(20, 4)))
    slots, where = torch.arange(4).expand(20, 4), torch.ones(20, 4, dtype=torch.bool)
    step, _ = examination_step(torch.ones(4, dtype=torch.float64), clicks, slots, where=where)
    logits = step.log().requires_grad_()
    softmax_loss(logits[slots], clicks, where=where).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros(4, dtype=torch.float64))


def test_steps_descend_where_lists_show_different_slots() -> None:
    rng = np.random.default_rng(1)
    clicks = torch.tensor(rng.gamma(1.0, size=(30, 3)))
    slots = torch.tensor(np.array([rng.permutation(6)[:3] for _ in range(30)]))
    where = torch.tensor(np.arange(3) < rng.integers(2, 4, size=30)[:, None])
    theta, losses = torch.ones(6, dtype=torch.float64), []
    for _ in range(25):
        losses.append(softmax_loss(theta.log()[slots], clicks, where=where).item())
        theta, _ = examination_step(theta, clicks, slots, where=where)
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(losses))
    assert losses[-2] - losses[-1] < 1e-3 * (losses[0] - losses[-1])


@pytest.mark.parametrize("reversed_slots", [False, True])
def test_the_curve_is_found_with_relevance_given_also_where_positions_are_reversed(reversed_slots: bool) -> None:
    slots = np.tile(np.arange(5)[::-1] if reversed_slots else np.arange(5), (200, 1))
    lists = empty_lists([5] * 200, places=5, slots=slots)
    lists = simulate_clicks(lists, attractiveness(lists), PositionBased(CURVE), sessions=400_000, seed=0)
    found = examination_given_scores(lists, np.log(attractiveness(lists)), clip=100.0)
    np.testing.assert_allclose(found, CURVE / CURVE[0], atol=0.02)


def two_orders(*, queries: int = 60) -> ClickLists:
    """Every list as it is, best documents above, and turned by two places; half of the sessions see either."""
    empty = empty_lists([5] * queries, places=5)
    best_first = np.argsort(-attractiveness(empty)[empty.rows], axis=1)
    rows = np.take_along_axis(empty.rows, best_first, axis=1)
    both = replace(
        empty,
        rows=np.concatenate([rows, np.roll(rows, 2, axis=1)]),
        queries=np.tile(empty.queries, 2),
        slots=np.tile(empty.slots, (2, 1)),
        shown=np.zeros(2 * queries, dtype=np.int64),
        clicks=np.zeros((2 * queries, 5), dtype=np.int64),
    )
    return simulate_clicks(both, attractiveness(empty), PositionBased(CURVE), sessions=200_000, seed=0)


def test_swaps_find_the_curve_where_scores_say_little() -> None:
    lists = two_orders()
    blind = np.zeros(len(lists.features))
    expected = CURVE / CURVE[0]
    by_scores = examination_given_scores(lists, blind)
    by_swaps = examination_by_swaps(lists, blind, by_scores)
    np.testing.assert_allclose(by_swaps, expected, atol=0.03)
    assert np.abs(by_scores - expected).max() > 0.1
    np.testing.assert_allclose(
        examination_by_swaps(lists, np.log(attractiveness(lists)), by_swaps), expected, atol=0.03
    )


def test_dla_reports_what_swaps_say_where_there_are_enough() -> None:
    lists = two_orders()
    hidden = replace(lists, features=np.ascontiguousarray(lists.features[:, 2:]), feature_names=tuple("cde"))
    found = Dla(network=SETTINGS).fit(hidden).propensities
    assert found is not None
    np.testing.assert_allclose(found, CURVE / CURVE[0], atol=0.05)
    one_order = hidden.take(np.arange(60))
    alone = Dla(network=SETTINGS).fit(one_order).propensities
    assert alone is not None
    assert np.abs(alone - CURVE / CURVE[0]).max() > 0.1


def test_dla_goes_by_slots_and_not_by_the_order_of_columns() -> None:
    plain = clicked_lists(empty_lists([5] * 100, places=5), slots=5)
    rows, slots, clicks = (np.ascontiguousarray(part[:, ::-1]) for part in (plain.rows, plain.slots, plain.clicks))
    turned = replace(plain, rows=rows, slots=slots, clicks=clicks, patterns=None)
    one, other = (Dla(network=SETTINGS).fit(lists, seed=2) for lists in (plain, turned))
    assert one.propensities is not None
    assert other.propensities is not None
    np.testing.assert_allclose(one.propensities, other.propensities, atol=1e-4)
    assert one.propensities[0] > 2 * one.propensities[4]


def test_a_slot_that_was_never_shown_is_unknown_and_weighs_one() -> None:
    slots = np.tile([0, 1, 4], (80, 1))
    lists = clicked_lists(empty_lists([3] * 80, places=3, slots=slots))
    for examination in ("closed_form", "gradient"):
        found = Dla(network=SETTINGS, examination=examination).fit(lists).propensities
        assert found is not None
        assert np.isnan(found).tolist() == [False, False, True, True, False]
    weights = examination_weights(torch.tensor([1.0, torch.nan]), torch.tensor([0, 1]), clip=10.0)
    assert weights.tolist() == [1.0, 1.0]


def test_the_clip_bounds_the_weight_of_a_slot_nobody_looks_at() -> None:
    lists = clicked_lists(empty_lists([5] * 50, places=5), sessions=4000)
    lists.clicks[:, 4] = 0
    lists = replace(lists, patterns=None)
    found = Dla(network=SETTINGS).fit(lists).propensities
    assert found is not None
    weights = examination_weights(torch.from_numpy(found), torch.arange(5), clip=10.0)
    assert weights.max() == 10.0
    assert weights[0] == 1.0


def test_each_group_has_its_own_scale() -> None:
    scaled = relative(torch.tensor([0.2, 0.4, torch.nan, 3.0, 1.5]), torch.tensor([0, 0, 0, 3, 3]))
    np.testing.assert_allclose(scaled, [0.5, 1.0, np.nan, 1.0, 0.5])


@pytest.mark.parametrize("kind", [ClosedFormExamination, GradientExamination])
def test_a_longer_log_goes_on_from_the_slots_it_knew(kind: type[ClosedFormExamination | GradientExamination]) -> None:
    lists = clicked_lists(empty_lists([3] * 60, places=3))
    dla = Dla(network=SETTINGS, examination="closed_form" if kind is ClosedFormExamination else "gradient")
    early = dla.fit(lists, seed=1)
    state = {name.removeprefix("correction."): value for name, value in early.state.items() if "correction." in name}
    later = kind(np.zeros(5, dtype=np.int64))
    later.load_state(state)
    assert early.propensities is not None
    np.testing.assert_allclose(later.propensities()[:3] / later.propensities()[0], early.propensities, rtol=1e-6)
