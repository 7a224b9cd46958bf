"""Attention in blocks is attention."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from rankers.llm.block_attention import BLOCK, block_attention, blocks_pay


@settings(max_examples=30)
@given(
    rows=st.sampled_from([1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK]),
    before=st.sampled_from([0, 1, BLOCK, 200]),
    groups=st.integers(1, 3),
    shared=st.integers(1, 3),
    scaling=st.none() | st.just(0.3),
)
def test_it_equals_masked_attention(rows: int, before: int, groups: int, shared: int, scaling: float | None) -> None:
    torch.manual_seed(rows + before)
    path = before + rows
    query = torch.randn(1, groups * shared, rows, 16)
    key, value = torch.randn(1, groups, path, 16), torch.randn(1, groups, path, 16)
    seen = torch.ones(rows, path, dtype=torch.bool).tril(before)
    expected = scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scaling, enable_gqa=True)
    found = block_attention(query, key, value, scaling=scaling)
    torch.testing.assert_close(found, expected.transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_masked_attention() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, BLOCK + 3, 16, requires_grad=True) for heads in (4, 2, 2))
    wanted = torch.randn(1, BLOCK + 3, 4, 16)
    found = block_attention(query, key, value, scaling=None)
    plain = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True).transpose(1, 2)
    ours, theirs = (torch.autograd.grad((output * wanted).sum(), (query, key, value)) for output in (found, plain))
    for gradient, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-5)


def test_float32_keeps_the_kernels_of_torch() -> None:
    assert not blocks_pay(torch.zeros(1))
