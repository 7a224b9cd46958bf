"""Packing lays every prompt out completely, each shared beginning once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MistralConfig, Qwen2Config

from rankers.llm.packing import MIN_SHARED_TOKENS, pack, packed_batches, shared_tokens
from rankers.llm.transformers_engine import TransformersEngine
from tests.rankers.llm.test_transformers_engine import SHAPE
from tests.rankers.models import byte_tokenizer, plain_logits, random_network, tiny_llama_config

PIECES = st.sampled_from([[1] * 20, [2] * 20, [1] * 7, [3, 4], [5]])
prompts_with_shared_beginnings = st.lists(
    st.lists(PIECES, min_size=1, max_size=4).map(lambda pieces: [token for piece in pieces for token in piece]),
    min_size=1,
    max_size=12,
)


@given(prompts_with_shared_beginnings)
def test_every_path_spells_its_prompt_and_every_row_is_used(prompts: list[list[int]]) -> None:
    packing = pack(prompts)
    rows_used = set()
    for i, prompt in enumerate(prompts):
        rows = packing.tail(i, len(prompt))
        assert [packing.ids[row] for row in rows] == prompt
        assert [packing.positions[row] for row in rows] == list(range(len(prompt)))
        rows_used.update(rows)
    assert rows_used == set(range(len(packing.ids)))
    covered = [row for segment in packing.segments for row in range(*segment.rows)]
    assert covered == list(range(len(packing.ids)))


@given(prompts_with_shared_beginnings)
def test_a_long_beginning_occurs_once(prompts: list[list[int]]) -> None:
    distinct = {tuple(prompt[:MIN_SHARED_TOKENS]) for prompt in prompts if len(prompt) >= MIN_SHARED_TOKENS}
    packing = pack(prompts)
    roots = [packing.ids[segment.rows[0] : segment.rows[1]] for segment in packing.segments if len(segment.path) == 1]
    beginnings = [ids[:MIN_SHARED_TOKENS] for ids in roots if len(ids) >= MIN_SHARED_TOKENS]
    assert len(beginnings) == len(set(beginnings)) <= len(distinct)


def test_one_prompt_may_be_the_beginning_of_another_and_two_may_be_equal() -> None:
    prompts = [[1] * 20, [1] * 20 + [2] * 20, [1] * 20]
    packing = pack(prompts)
    assert len(packing.ids) == 40
    assert packing.paths[0] == packing.paths[2] == ((0, 20),)
    assert packing.paths[1] == ((0, 20), (20, 40))


@given(prompts_with_shared_beginnings, st.integers(1, 60))
def test_batches_hold_every_prompt_once_within_the_budget(prompts: list[list[int]], budget: int) -> None:
    batches = packed_batches(prompts, max_batch_tokens=budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(prompts)))
    for batch in batches:
        assert len(batch) == 1 or len(pack([prompts[i] for i in batch]).ids) <= budget


def test_shared_tokens() -> None:
    assert shared_tokens([1, 2, 3], [1, 2, 4, 5]) == 2
    assert shared_tokens([1, 2], [1, 2, 3]) == 2
    assert shared_tokens([], [1]) == 0


@pytest.mark.parametrize(
    "config",
    [tiny_llama_config(), Qwen2Config(**SHAPE), MistralConfig(**SHAPE, sliding_window=8)],
    ids=lambda config: config.model_type,
)
@settings(max_examples=10)
@given(prompts=prompts_with_shared_beginnings)
def test_logits_do_not_depend_on_what_shares_the_pass(config: object, prompts: list[list[int]]) -> None:
    network = random_network(config)  # type: ignore[arg-type]
    engine = TransformersEngine(network, byte_tokenizer(), max_batch_tokens=200)
    candidates = [[10, 20, 30]] * len(prompts)
    for prompt, logits in zip(prompts, engine.next_token_logits(prompts, candidates), strict=True):
        np.testing.assert_allclose(logits, plain_logits(network, prompt, [10, 20, 30]), atol=1e-4)
