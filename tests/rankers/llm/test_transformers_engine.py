"""The engine reads exactly what a plain forward pass of the model gives, and computes nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
)

from rankers.errors import ConfigError, InvalidInputError
from rankers.llm.transformers_engine import TransformersEngine
from tests.rankers.models import (
    CONTEXT,
    TOKENS,
    byte_tokenizer,
    plain_logits,
    random_network,
    tiny_engine,
    tiny_llama_config,
    write_tiny_gguf,
)

VOCABULARY = len(TOKENS)
token_ids = st.integers(0, VOCABULARY - 1)
some_prompts = st.lists(st.lists(token_ids, min_size=1, max_size=40), min_size=1, max_size=6)

SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
}


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return tiny_engine(max_batch_tokens=100)


@pytest.fixture(scope="module")
def network() -> Any:
    return random_network(tiny_llama_config())


@settings(max_examples=30)
@given(prompts=some_prompts, data=st.data())
def test_logits_equal_a_plain_forward_pass(
    engine: TransformersEngine, network: Any, prompts: list[list[int]], data: st.DataObject
) -> None:
    candidates = [data.draw(st.lists(token_ids, max_size=8)) for _ in prompts]
    found = engine.next_token_logits(prompts, candidates)
    for prompt, wanted, logits in zip(prompts, candidates, found, strict=True):
        assert logits.dtype == np.float32
        assert logits.shape == (len(wanted),)
        np.testing.assert_allclose(logits, plain_logits(network, prompt, wanted), atol=1e-4)


def test_logits_of_smollm2_equal_a_plain_forward_pass_for_mixed_lengths(
    smollm2: str, smollm2_engine: TransformersEngine
) -> None:
    plain = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    text = "The identifiers of the passages, most relevant first, are [B] > [A]. " * 12
    prompts = [smollm2_engine.encode(text)[:length] for length in (1, 7, 8, 61, 150)]
    candidates = [list(range(100 * i, 100 * i + 26)) for i in range(len(prompts))]
    found = smollm2_engine.next_token_logits(prompts, candidates)
    for prompt, wanted, logits in zip(prompts, candidates, found, strict=True):
        np.testing.assert_allclose(logits, plain_logits(plain, prompt, wanted), atol=1e-4)


class OutputShapes(TorchDispatchMode):
    """Records the shape of everything torch computes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and func is not torch.ops.aten.detach.default:
            self.seen.add(tuple(result.shape))
        return result


def test_one_position_is_computed_and_only_the_rows_asked_for() -> None:
    network = random_network(tiny_llama_config())
    engine = TransformersEngine(network, byte_tokenizer())
    bodies: list[tuple[int, ...]] = []
    last: list[tuple[int, ...]] = []
    heads: list[object] = []
    caches: list[object] = []

    def body_ran(module: object, args: tuple[torch.Tensor, ...], output: Any) -> None:
        bodies.append(tuple(args[0].shape))
        caches.append(output.past_key_values)

    network.base_model.register_forward_hook(body_ran)
    network.lm_head.register_forward_hook(lambda *call: heads.append(call))
    for layer in network.base_model.layers:
        layer.mlp.act_fn.register_forward_hook(lambda module, args, output: last.append(tuple(output.shape[:2])))
    with OutputShapes() as shapes:
        engine.next_token_logits([[5] * 30, [5] * 17 + [6] * 3], [[40, 41, 42], [43, 44, 45]])

    # One pass for both prompts, over 30 rows and the 3 in which the second differs: no step is decoded after it.
    assert bodies == [(1, 33)]
    assert last == [(1, 33), (1, 2)]  # the last layer only at the two rows that are read
    assert caches == [None]
    assert heads == []
    assert (3,) in shapes.seen
    width = network.config.hidden_size
    # Nothing is as wide as the vocabulary but views of the output matrix itself.
    assert {shape for shape in shapes.seen if VOCABULARY in shape} <= {(VOCABULARY, width), (width, VOCABULARY)}


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=4),
        Qwen2Config(**SHAPE, tie_word_embeddings=True),
        MistralConfig(**SHAPE, sliding_window=8),
        Gemma2Config(**SHAPE, head_dim=8, final_logit_softcapping=2.0, sliding_window=8),
        CohereConfig(**SHAPE, logit_scale=0.0625),
        GraniteConfig(**SHAPE, logits_scaling=8.0),
    ],
    ids=lambda config: config.model_type,
)
def test_architectures_that_treat_logits_differently_are_read_exactly(config: PretrainedConfig) -> None:
    network = random_network(config)
    engine = TransformersEngine(network, byte_tokenizer())
    assert engine.context_tokens == CONTEXT
    prompts = [list(range(3, 33)), [7, 8, 9]]
    for prompt, logits in zip(prompts, engine.next_token_logits(prompts, [[1, 50, 99]] * 2), strict=True):
        np.testing.assert_allclose(logits, plain_logits(network, prompt, [1, 50, 99]), atol=1e-4)


def test_a_head_that_does_something_else_is_refused() -> None:
    network = random_network(tiny_llama_config())
    network.lm_head.register_forward_hook(lambda module, args, logits: logits.cumsum(dim=-1))
    with pytest.raises(ConfigError, match="cannot be read exactly"):
        TransformersEngine(network, byte_tokenizer())


def test_a_model_that_looks_right_is_refused() -> None:
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=CONTEXT,
    )
    with pytest.raises(ConfigError, match="cannot be read exactly"):
        TransformersEngine(random_network(config), byte_tokenizer())


def test_a_prompt_over_the_context_is_refused_with_numbers(engine: TransformersEngine) -> None:
    engine.next_token_logits([[1] * CONTEXT], [[2]])
    with pytest.raises(InvalidInputError, match=f"prompt 1 has {CONTEXT + 1} tokens, the context .* is {CONTEXT}"):
        engine.next_token_logits([[1], [1] * (CONTEXT + 1)], [[2], [2]])


def test_bad_input_is_refused(engine: TransformersEngine) -> None:
    with pytest.raises(InvalidInputError, match="prompt 0 is empty"):
        engine.next_token_logits([[]], [[1]])
    with pytest.raises(InvalidInputError, match="as many candidate lists"):
        engine.next_token_logits([[1]], [])
    for token in (-1, VOCABULARY):
        with pytest.raises(InvalidInputError, match=f"token {token} is not in the vocabulary"):
            engine.next_token_logits([[1]], [[token]])
    with pytest.raises(ConfigError, match="max_batch_tokens is 0"):
        tiny_engine(max_batch_tokens=0)


def test_no_prompts_give_no_logits(engine: TransformersEngine) -> None:
    assert engine.next_token_logits([], []) == []


def test_likelihoods_equal_a_plain_forward_pass(engine: TransformersEngine, network: Any) -> None:
    prompts = [[5] * 20, [5] * 20 + [9], [7]]
    continuations = [[1, 2, 3], [4], list(range(50, 90))]
    found = engine.continuation_log_probabilities(prompts, continuations)
    for prompt, wanted, values in zip(prompts, continuations, found, strict=True):
        with torch.inference_mode():
            logits = network(torch.tensor([[*prompt, *wanted]])).logits[0]
        expected = logits.log_softmax(dim=-1)[range(len(prompt) - 1, len(prompt) + len(wanted) - 1), wanted]
        np.testing.assert_allclose(values, expected.numpy(), atol=1e-4)


def test_likelihoods_of_bad_input_are_refused(engine: TransformersEngine) -> None:
    with pytest.raises(InvalidInputError, match="continuation 1 is empty"):
        engine.continuation_log_probabilities([[1], [2]], [[3], []])
    with pytest.raises(InvalidInputError, match=f"the context .* is {CONTEXT}"):
        engine.continuation_log_probabilities([[1] * CONTEXT], [[1, 2]])


def greedy(network: Any, prompt: list[int], budget: int) -> list[int]:
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(budget):
            ids.append(int(network(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_text_equals_a_plain_greedy_loop_for_mixed_lengths(network: Any) -> None:
    engine = TransformersEngine(network, byte_tokenizer(), max_batch_tokens=100)
    prompts = [[40, 50, 60], [70] * 30, [80, 81]]
    for prompt, written in zip(prompts, engine.generate(prompts, max_new_tokens=6), strict=True):
        ids = greedy(network, prompt, 6)
        end = ids.index(1) if 1 in ids else 6  # token 1 ends the text
        assert written.text == byte_tokenizer().decode(ids[:end], skip_special_tokens=True)
        assert (written.tokens, written.complete) == (min(end + 1, 6), end < 6)


def test_a_stop_string_ends_the_text(network: Any) -> None:
    engine = TransformersEngine(network, byte_tokenizer())
    (free,) = engine.generate([[40, 50, 60]], max_new_tokens=12)
    stop = free.text[2:4]
    (stopped,) = engine.generate([[40, 50, 60]], max_new_tokens=12, stop=[stop])
    assert stopped.complete
    assert stopped.text == free.text[: free.text.index(stop) + len(stop)]


def test_text_that_would_not_fit_the_context_is_refused(engine: TransformersEngine) -> None:
    with pytest.raises(InvalidInputError, match=f"500 tokens and may write 13, the context .* is {CONTEXT}"):
        engine.generate([[1] * 500], max_new_tokens=13)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot load"):
        TransformersEngine.load(str(tmp_path))
    with pytest.raises(ConfigError, match="no GGUF file"):
        TransformersEngine.load(str(tmp_path / "none.gguf"))


def test_a_gguf_file_is_read_directly_and_as_saved(tmp_path: Path) -> None:
    from rankers.llm.gguf import load_gguf

    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path)
    direct = TransformersEngine.load(str(path), device="cpu", dtype="float32")
    network, tokenizer = load_gguf(path, dtype=torch.float32)
    network.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = TransformersEngine.load(str(tmp_path / "saved"), device="cpu", dtype="float32")

    text = "Which the? <|im_end|>"
    assert direct.encode(text) == saved.encode(text) == tokenizer(text, split_special_tokens=True)["input_ids"]
    assert direct.chat_text("s", "u") == saved.chat_text("s", "u")
    prompt, candidates = direct.encode(text), [3, 30, 200]
    (one,), (two,) = (model.next_token_logits([prompt], [candidates]) for model in (direct, saved))
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)  # the same weights; where they lie in memory rounds sums


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"not a model")
    with pytest.raises(ConfigError, match="cannot read the GGUF file"):
        TransformersEngine.load(str(tmp_path / "broken.gguf"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_reads_what_a_plain_forward_pass_gives(smollm2: str, smollm2_engine: TransformersEngine) -> None:
    prompts = [smollm2_engine.encode("The most relevant passage is [" * n) for n in (1, 4)]
    candidates = [list(range(1000))] * 2
    expected = smollm2_engine.next_token_logits(prompts, candidates)
    exact = TransformersEngine.load(smollm2, device="cuda", dtype="float32")
    for ours, theirs in zip(exact.next_token_logits(prompts, candidates), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-2)
    half = TransformersEngine.load(smollm2, device="cuda")
    for ours, theirs in zip(half.next_token_logits(prompts, candidates), expected, strict=True):
        assert np.corrcoef(ours, theirs)[0, 1] > 0.99
