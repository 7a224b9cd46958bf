"""The measure on held-out lists."""

from __future__ import annotations

import math

import pytest
import torch

from training.listwise.dev import ndcg


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_measure_zero(value: float) -> None:
    targets = torch.tensor([2.0, 1.0, 0.0])  # the order that came in is right
    assert ndcg(torch.tensor([3.0, 2.0, 1.0]), targets) == 1
    assert ndcg(torch.full((3,), value), targets) == 0
    assert ndcg(torch.tensor([3.0, value, 1.0]), targets) == 0
