"""Attending trees gives what attending path by path gives, values and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given

from rankers.llm import tree_attention
from rankers.llm.packing import pack, packed_attention
from rankers.llm.tree_attention import tree_masks
from tests.rankers.llm.test_packing import prompts_with_shared_beginnings

HEADS, GROUPS, WIDTH = 4, 2, 8


class Layer(torch.nn.Module):
    """What attention asks the layer it is called by."""

    num_key_value_groups = HEADS // GROUPS
    is_causal = True


@given(prompts_with_shared_beginnings)
def test_trees_and_paths_agree(prompts: list[list[int]]) -> None:
    packing = pack(prompts)
    masks = tree_masks(packing)
    if masks is None:  # a beginning of a few tokens with many ends, which may be equal
        assert len(prompts) > 2
        return
    assert sum(len(mask) for mask in masks) == len(packing.ids)
    torch.manual_seed(len(packing.ids))
    states = [
        torch.randn(1, heads, len(packing.ids), WIDTH, dtype=torch.float64, requires_grad=True)
        for heads in (HEADS, GROUPS, GROUPS)
    ]
    weights = torch.randn(1, len(packing.ids), HEADS, WIDTH, dtype=torch.float64)
    results = []
    for trees in (masks, None):
        query, key, value = states
        output, _ = packed_attention(Layer(), query, key, value, None, packing=packing, trees=trees, scaling=0.3)
        results.append([output, *torch.autograd.grad((output * weights).sum(), states)])
    for by_tree, by_path in zip(*results, strict=True):
        torch.testing.assert_close(by_tree, by_path, rtol=1e-9, atol=1e-9)


def test_what_would_not_pay_is_left_to_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tree_masks(pack([[1] * 40])) is not None
    assert tree_masks(pack([[1] * 16 + [end] * 30 for end in range(2, 20)])) is None  # ends that do not see each other
    monkeypatch.setattr(tree_attention, "LARGEST_TREE", 39)
    assert tree_masks(pack([[1] * 40])) is None
