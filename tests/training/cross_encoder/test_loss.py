"""Losses against their formulas, computed here in float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from training.cross_encoder.loss import (
    LIST_LOSSES,
    binary_loss,
    list_weight,
    listnet_loss,
    margin_mse_loss,
    rank_distance,
)

values = st.floats(-30, 30, allow_subnormal=False)


@st.composite
def scored_lists(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    size = draw(st.integers(2, 9))
    scores = draw(hnp.arrays(np.float64, size, elements=values))
    targets = draw(hnp.arrays(np.float64, size, elements=st.integers(0, 3)).filter(lambda t: np.ptp(t) > 0))
    return torch.from_numpy(scores), torch.from_numpy(targets)


@given(scored_lists())
def test_listnet_is_the_cross_entropy_of_two_softmaxes(data: tuple[torch.Tensor, torch.Tensor]) -> None:
    scores, targets = (part.numpy() for part in data)
    wanted = np.exp(5 * (targets - targets.min()) / np.ptp(targets))
    found = np.exp(scores - scores.max())
    expected = -(wanted / wanted.sum() * np.log(np.maximum(found / found.sum(), 1e-300))).sum()
    assert listnet_loss(*data, 5.0).item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(scored_lists())
def test_binary_is_the_cross_entropy_of_each_candidate(data: tuple[torch.Tensor, torch.Tensor]) -> None:
    scores, targets = data
    wanted = (targets - targets.min()) / (targets.max() - targets.min())
    expected = np.mean(
        [
            max(s, 0) - s * t + math.log1p(math.exp(-abs(s)))
            for s, t in zip(scores.tolist(), wanted.tolist(), strict=True)
        ]
    )
    assert binary_loss(scores, targets, 5.0).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(scored_lists())
def test_margin_mse_is_the_mean_over_all_pairs(data: tuple[torch.Tensor, torch.Tensor]) -> None:
    scores, targets = (part.tolist() for part in data)
    pairs = itertools.combinations(range(len(scores)), 2)
    expected = np.mean([((scores[i] - scores[j]) - (targets[i] - targets[j])) ** 2 for i, j in pairs])
    assert margin_mse_loss(*data, 5.0).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", LIST_LOSSES)
@settings(max_examples=20)
@given(data=scored_lists())
def test_gradients_are_those_of_finite_differences(name: str, data: tuple[torch.Tensor, torch.Tensor]) -> None:
    scores, targets = data
    assert torch.autograd.gradcheck(lambda s: LIST_LOSSES[name](s, targets, 5.0), scores.requires_grad_())


@pytest.mark.parametrize("name", LIST_LOSSES)
def test_extreme_scores_give_no_nan(name: str) -> None:
    scores = torch.tensor([1e6, -1e6, 0.0], requires_grad=True)
    LIST_LOSSES[name](scores, torch.tensor([0.0, 1.0, 0.0]), 5.0).backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


@given(scored_lists(), values)
def test_rank_distance_ignores_a_shift_and_is_0_where_logits_fall_as_log_rank(
    data: tuple[torch.Tensor, torch.Tensor], shift: float
) -> None:
    scores, _ = data
    ranks = list(range(1, len(scores) + 1))
    before, after = rank_distance(scores, ranks), rank_distance(scores + shift, ranks)
    assert before.item() == pytest.approx(after.item(), rel=1e-6, abs=1e-6)
    assert rank_distance(-torch.log(torch.tensor(ranks)), ranks).item() == pytest.approx(0, abs=1e-9)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_weights_of_a_curriculum_rise_to_1(easiness: float, one: float, other: float, curriculum: float) -> None:
    early, late = sorted((one, other))
    assert easiness - 1e-9 <= list_weight(easiness, early, curriculum)
    assert list_weight(easiness, early, curriculum) <= list_weight(easiness, late, curriculum) + 1e-9
    assert list_weight(easiness, 1.0, curriculum) == pytest.approx(1.0)


@pytest.mark.parametrize("loss", ["listnet", "binary"])
def test_targets_that_differ_by_less_than_float32_can_say_teach_no_order(loss: str) -> None:
    scores = torch.tensor([0.5, -0.5, 0.0], requires_grad=True)
    targets = torch.tensor([1.0, 0.9999999999, 1.0], dtype=torch.float32)
    value = LIST_LOSSES[loss](scores, targets, 5.0)
    (gradient,) = torch.autograd.grad(value, scores)
    assert value.isfinite()
    assert gradient.isfinite().all()
