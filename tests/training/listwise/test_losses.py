"""Each loss against its formula in float64, and what all of them must hold."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.listwise.losses import LOSSES, lambdarank, listnet, neural_ndcg, ranknet, teacher_ranks

Loss = Callable[..., Tensor]
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@st.composite
def lists(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Scores and grades of 2 to 8 candidates, ties among both."""
    size = draw(st.integers(2, 8))
    scores = draw(st.lists(st.integers(-40, 40), min_size=size, max_size=size))
    grades = draw(st.lists(st.integers(0, 4), min_size=size, max_size=size).filter(lambda g: len(set(g)) > 1))
    return torch.tensor(scores, dtype=torch.float64) / 8, torch.tensor(grades, dtype=torch.float64)


def everywhere(values: Tensor) -> Tensor:
    return torch.ones_like(values, dtype=torch.bool)


def mean_ranks(targets: list[float]) -> list[float]:
    """Rank of each, ties sharing the mean of the ranks they take up."""
    order = sorted(targets, reverse=True)
    return [np.mean([i + 1 for i, value in enumerate(order) if value == target]) for target in targets]  # type: ignore[misc]


@given(lists())
def test_ranknet_is_its_formula(example: tuple[Tensor, Tensor]) -> None:
    scores, targets = example
    s, t, ranks = scores.tolist(), targets.tolist(), mean_ranks(targets.tolist())
    pairs = [(i, j) for i in range(len(t)) for j in range(len(t)) if t[i] > t[j]]
    expected = np.mean([math.log1p(math.exp(s[j] - s[i])) / (ranks[i] + ranks[j]) for i, j in pairs])
    assert ranknet(scores, targets, where=everywhere(scores)).item() == pytest.approx(expected, abs=1e-12)
    assert teacher_ranks(targets, where=everywhere(scores)).tolist() == pytest.approx(ranks)


@given(lists())
def test_listnet_is_its_formula(example: tuple[Tensor, Tensor]) -> None:
    s, t = (np.array(values.tolist()) for values in example)
    wanted, found = (np.exp(values) / np.exp(values).sum() for values in (t, s))
    assert listnet(*example, where=everywhere(example[0])).item() == pytest.approx(-(wanted * np.log(found)).sum())


@given(lists())
def test_lambdarank_is_its_formula(example: tuple[Tensor, Tensor]) -> None:
    s, t = (values.tolist() for values in example)
    order = sorted(range(len(s)), key=lambda i: (-s[i], i))
    discounts = {i: 1 / math.log2(rank + 2) for rank, i in enumerate(order)}
    ideal = sum((2**grade - 1) / math.log2(rank + 2) for rank, grade in enumerate(sorted(t, reverse=True)))
    costs = [
        abs(2 ** t[i] - 2 ** t[j]) * abs(discounts[i] - discounts[j]) / ideal * math.log1p(math.exp(s[j] - s[i]))
        for i in range(len(t))
        for j in range(len(t))
        if t[i] > t[j]
    ]
    assert lambdarank(*example, where=everywhere(example[0])).item() == pytest.approx(np.mean(costs), abs=1e-12)


@given(st.permutations(range(6)))
def test_neural_ndcg_of_a_cold_sort_is_one_minus_ndcg(order: list[int]) -> None:
    scores = torch.tensor(order, dtype=torch.float64)
    grades = torch.tensor([3, 0, 2, 0, 1, 1], dtype=torch.float64)
    ranking = scores.argsort(descending=True)
    discounts = 1 / torch.log2(torch.arange(2, 8, dtype=torch.float64))
    gains = 2**grades - 1
    ndcg = (gains[ranking] * discounts).sum() / (gains.sort(descending=True).values * discounts).sum()
    loss = neural_ndcg(scores, grades, where=everywhere(scores), temperature=1e-3)
    assert loss.item() == pytest.approx(1 - ndcg.item(), abs=1e-6)


@given(lists())
def test_neural_ndcg_is_its_formula(example: tuple[Tensor, Tensor]) -> None:
    s, t = (np.array(values.tolist()) for values in example)
    n = len(s)
    rows = []
    for i in range(1, n + 1):  # NeuralSort: which candidate is the i-th
        logits = np.array([(n + 1 - 2 * i) * s[j] - sum(abs(s[j] - s[k]) for k in range(n)) for j in range(n)])
        rows.append(np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum())
    matrix = np.array(rows)
    for _ in range(50):  # Sinkhorn: columns, then rows
        matrix = matrix / matrix.sum(axis=0)
        matrix = matrix / matrix.sum(axis=1, keepdims=True)
    gains = 2**t - 1
    discounts = 1 / np.log2(np.arange(2, n + 2))
    expected = 1 - (matrix @ gains * discounts).sum() / (np.sort(gains)[::-1] * discounts).sum()
    found = neural_ndcg(*example, where=everywhere(example[0]), temperature=1.0)
    assert found.item() == pytest.approx(expected, abs=1e-9)


@each_loss
def test_gradient_agrees_with_differences(loss: Loss) -> None:
    scores = torch.tensor([[0.3, -1.2, 0.9, 2.1], [0.5, 0.1, -0.4, 7.0]], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[0.0, 2.0, 1.0, 0.0], [1.0, 0.0, 3.0, 0.0]], dtype=torch.float64)
    where = torch.tensor([[True] * 4, [True, True, True, False]])
    assert torch.autograd.gradcheck(lambda s: loss(s, targets, where=where), (scores,))


@each_loss
@given(example=lists(), filler=st.floats(-100, 100))
def test_padding_changes_nothing(loss: Loss, example: tuple[Tensor, Tensor], filler: float) -> None:
    scores, targets = example
    alone = loss(scores, targets, where=everywhere(scores))
    padding = torch.full((3,), filler, dtype=torch.float64)
    where = torch.cat([everywhere(scores), torch.zeros(3, dtype=torch.bool)])
    padded = loss(torch.cat([scores, padding]), torch.cat([targets, padding.abs()]), where=where)
    assert padded.item() == pytest.approx(alone.item(), abs=1e-9)


@each_loss
@given(example=lists(), random=st.randoms(use_true_random=False))
def test_order_of_candidates_does_not_matter(loss: Loss, example: tuple[Tensor, Tensor], random: object) -> None:
    scores, targets = example
    # LambdaRank's weights follow the current ranks, which ties leave open.
    scores = scores + torch.arange(len(scores), dtype=torch.float64) * 1e-4
    shuffled = torch.randperm(len(scores), generator=torch.Generator().manual_seed(hash(random) % 2**31))
    where = everywhere(scores)
    assert loss(scores[shuffled], targets[shuffled], where=where).item() == pytest.approx(
        loss(scores, targets, where=where).item(), abs=1e-9
    )


@each_loss
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4, 1e8])
def test_extremes_are_finite(loss: Loss, scale: float) -> None:
    scores = (torch.tensor([[1.0, -1.0, 0.0], [1.0, 1.0, 1.0], [5.0, 4.0, 3.0]]) * scale).requires_grad_()
    targets = torch.tensor([[0.0, 4.0, 1.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    where = torch.tensor([[True] * 3, [True] * 3, [False] * 3])
    value = loss(scores, targets, where=where)
    value.backward()
    assert torch.isfinite(value)
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert not scores.grad[1:].any()  # nothing to learn from ties, nothing from lists that do not exist


@each_loss
def test_nothing_to_learn_is_zero(loss: Loss) -> None:
    scores = torch.tensor([[1.0, 2.0]], requires_grad=True)
    value = loss(scores, torch.tensor([[1.0, 1.0]]), where=torch.tensor([[True, True]]))
    value.backward()
    assert value.item() == 0
    assert scores.grad is not None
    assert not scores.grad.any()


@each_loss
def test_lists_of_two_learn_their_order(loss: Loss) -> None:
    scores = torch.zeros(2, requires_grad=True)
    # From a tie NeuralSort's rows are equal, and no direction is better than another.
    start = scores + torch.tensor([0.0, 0.1])
    loss(start, torch.tensor([1.0, 0.0]), where=torch.tensor([True, True])).backward()
    assert scores.grad is not None
    assert scores.grad[0] < 0 < scores.grad[1]


@each_loss
def test_a_batch_is_the_mean_of_its_lists(loss: Loss) -> None:
    scores, targets = torch.randn(5, 6, dtype=torch.float64), torch.arange(30, dtype=torch.float64).reshape(5, 6) % 4
    where = torch.ones(5, 6, dtype=torch.bool)
    single = [loss(scores[i], targets[i], where=where[i]).item() for i in range(5)]
    assert loss(scores, targets, where=where).item() == pytest.approx(float(np.mean(single)))
