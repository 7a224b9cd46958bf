"""Batches by token budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rankers.batching import token_batches


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200), st.none() | st.integers(0, 50))
def test_every_text_is_in_one_batch_and_no_batch_of_several_is_over_the_budget(
    lengths: list[int], budget: int, pass_tokens: int | None
) -> None:
    batches = token_batches(lengths, max_batch_tokens=budget, pass_tokens=pass_tokens)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_a_large_budget_makes_one_batch(lengths: list[int]) -> None:
    assert len(token_batches(lengths, max_batch_tokens=50 * 40)) == 1


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(0, 50))
def test_padding_costs_no_more_than_the_passes_it_saves(lengths: list[int], pass_tokens: int) -> None:
    batches = token_batches(lengths, max_batch_tokens=10_000, pass_tokens=pass_tokens)
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    assert padded - sum(lengths) <= pass_tokens * (len(lengths) - len(batches))
