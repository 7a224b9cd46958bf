"""Losses from clicks: what may change nothing, what must change nothing, and where gradients must not flow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.ultr.losses import (
    inverse_weights,
    likelihood_loss,
    log_softmax,
    pairwise_loss,
    softmax_loss,
)

LISTS, PLACES = 6, 5
seeds = st.integers(0, 2**20)


def batch(seed: int, *, lists: int = LISTS, places: int = PLACES) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, clicks and places that exist, every list with at least one; float64."""
    rng = np.random.default_rng(seed)
    where = np.arange(places) < rng.integers(1, places + 1, size=lists)[:, None]
    clicks = rng.integers(0, 4, size=(lists, places)) * where
    clicks[0, 0] += 1
    scores = rng.normal(size=(lists, places))
    return torch.tensor(scores), torch.tensor(clicks, dtype=torch.float64), torch.tensor(where)


def gradient(loss: Callable[[Tensor], Tensor], scores: Tensor) -> Tensor:
    leaf = scores.clone().requires_grad_()
    loss(leaf).backward()
    assert leaf.grad is not None
    return leaf.grad


@given(seeds, st.floats(0.01, 1e4))
def test_scaling_clicks_leaves_loss_and_gradient_unchanged(seed: int, factor: float) -> None:
    scores, clicks, where = batch(seed)
    weights = inverse_weights(scores.flip(0), where=where, clip=10.0)
    once = gradient(lambda f: softmax_loss(f, clicks, where=where, weights=weights), scores)
    more = gradient(lambda f: softmax_loss(f, factor * clicks, where=where, weights=weights), scores)
    torch.testing.assert_close(once, more)


@given(seeds)
def test_sessions_in_any_order_and_collapsed_are_one_loss(seed: int) -> None:
    scores, clicks, where = batch(seed)
    weights = inverse_weights(-scores, where=where, clip=10.0)
    sessions = [
        (number, place) for number, place in np.argwhere(clicks.numpy()) for _ in range(int(clicks[number, place]))
    ]
    order = np.random.default_rng(seed).permutation(len(sessions))
    lists = torch.tensor([sessions[at][0] for at in order])
    single = torch.zeros(len(sessions), PLACES, dtype=torch.float64)
    single[torch.arange(len(sessions)), torch.tensor([sessions[at][1] for at in order])] = 1.0

    def of_sessions(f: Tensor) -> Tensor:
        return softmax_loss(f[lists], single, where=where[lists], weights=weights[lists])

    def collapsed(f: Tensor) -> Tensor:
        return softmax_loss(f, clicks, where=where, weights=weights)

    assert abs(float(of_sessions(scores) - collapsed(scores))) < 1e-6
    torch.testing.assert_close(gradient(of_sessions, scores), gradient(collapsed, scores), atol=1e-6, rtol=0)


@given(seeds, st.floats(-50, 50))
def test_a_shift_of_all_scores_of_a_list_changes_nothing(seed: int, shift: float) -> None:
    scores, clicks, where = batch(seed)
    weights = inverse_weights(scores, where=where, clip=10.0)
    torch.testing.assert_close(inverse_weights(scores + shift, where=where, clip=10.0), weights)
    moved = softmax_loss(scores + shift, clicks, where=where, weights=weights)
    torch.testing.assert_close(moved, softmax_loss(scores, clicks, where=where, weights=weights))


@given(seeds, st.integers(1, 4))
def test_padding_changes_nothing_whatever_it_holds(seed: int, more: int) -> None:
    scores, clicks, where = batch(seed)
    junk = torch.full((LISTS, more), 1e30, dtype=torch.float64)
    wide = [torch.cat(parts, dim=1) for parts in ((scores, junk), (clicks, junk), (where, junk < 0))]
    narrow = softmax_loss(scores, clicks, where=where)
    torch.testing.assert_close(softmax_loss(wide[0], wide[1], where=wide[2]), narrow)
    grads = gradient(lambda f: softmax_loss(f, wide[1], where=wide[2]), wide[0])
    torch.testing.assert_close(grads[:, :PLACES], gradient(lambda f: softmax_loss(f, clicks, where=where), scores))
    assert not grads[:, PLACES:].any()
    weights = inverse_weights(wide[0], where=wide[2], clip=10.0)
    torch.testing.assert_close(weights[:, :PLACES], inverse_weights(scores, where=where, clip=10.0))
    assert not weights[:, PLACES:].any()


def test_a_list_of_one_place_has_no_gradient_and_weight_one() -> None:
    where = torch.tensor([[True, False]])
    scores = torch.tensor([[3.0, 7.0]])
    assert not gradient(lambda f: softmax_loss(f, torch.tensor([[5.0, 0.0]]), where=where), scores).any()
    assert inverse_weights(scores, where=where, clip=10.0).tolist() == [[1.0, 0.0]]


def test_a_list_without_places_is_no_nan() -> None:
    where = torch.zeros(1, 3, dtype=torch.bool)
    scores = torch.randn(1, 3)
    grads = gradient(lambda f: softmax_loss(f, torch.ones(1, 3), where=where), scores)
    assert not grads.any()
    assert not inverse_weights(scores, where=where, clip=10.0).any()


def test_batches_without_clicks_have_loss_and_gradient_zero() -> None:
    scores, clicks, where = batch(0)
    silent = torch.zeros_like(clicks)
    pairs = torch.zeros(LISTS, PLACES, PLACES, dtype=torch.float64)
    losses: list[Callable[[Tensor], Tensor]] = [
        lambda f: softmax_loss(f, silent, where=where),
        lambda f: pairwise_loss(f, pairs, where=where),
        lambda f: likelihood_loss(f.sigmoid(), silent, silent, where=where),
    ]
    for loss in losses:
        assert loss(scores).item() == 0.0
        assert not gradient(loss, scores).any()


def test_weights_carry_no_gradient() -> None:
    scores, clicks, where = batch(3)
    other = scores.flip(0).requires_grad_()
    assert not inverse_weights(other, where=where, clip=10.0).requires_grad
    weights = other.exp()
    loss = softmax_loss(scores.clone().requires_grad_(), clicks, where=where, weights=weights)
    loss.backward()
    assert other.grad is None
    pairs = clicks[:, :, None].expand(-1, -1, PLACES)
    pairwise_loss(scores.clone().requires_grad_(), pairs, where=where, weights=weights[:, :, None] * pairs).backward()
    assert other.grad is None


@pytest.mark.parametrize("scale", [1e4, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_scores_overflow_nowhere(scale: float, dtype: torch.dtype) -> None:
    scores, clicks, where = batch(4)
    scores, clicks = (scores * scale).to(dtype), clicks.to(dtype)
    losses: list[Callable[[Tensor], Tensor]] = [
        lambda f: softmax_loss(f, clicks, where=where),
        lambda f: pairwise_loss(f, clicks[:, :, None].expand(-1, -1, PLACES), where=where),
        lambda f: likelihood_loss(f.sigmoid(), clicks, clicks.sum() * torch.ones_like(clicks), where=where),
    ]
    for loss in losses:
        assert loss(scores).isfinite()
        assert gradient(loss, scores).isfinite().all()
    assert inverse_weights(scores, where=where, clip=10.0).isfinite().all()


@given(seeds, st.floats(0.5, 50))
def test_no_weight_is_above_the_clip_and_the_clip_is_reached(seed: int, clip: float) -> None:
    scores, _, where = batch(seed)
    weights = inverse_weights(100 * scores, where=where, clip=clip)
    assert weights.max() <= clip * (1 + 1e-6)
    steep = inverse_weights(torch.tensor([[0.0, 60.0]]), where=torch.tensor([[True, True]]), clip=clip)
    assert steep[0, 0].item() == pytest.approx(clip, rel=1e-5)


@given(seeds)
def test_weights_undo_the_softmax(seed: int) -> None:
    scores, _, where = batch(seed)
    chances = log_softmax(scores, where=where).exp() * where
    weights = inverse_weights(scores, where=where, clip=1e9)
    expected = (1.0 / where.double().sum(dim=1, keepdim=True)).expand_as(scores)[where]
    torch.testing.assert_close((weights * chances)[where], expected)
