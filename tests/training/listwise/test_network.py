"""The network reads any causal model as that model's own forward pass does, or refuses it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GPT2Config, GraniteConfig, PretrainedConfig

from rankers.errors import ConfigError
from tests.rankers.llm.test_transformers_engine import SHAPE
from tests.rankers.models import CONTEXT, TOKENS, byte_tokenizer, plain_logits, random_network
from training.listwise.examples import Example
from training.listwise.network import ListwiseNetwork, load_network
from training.listwise.settings import ListwiseSettings

SETTINGS = ListwiseSettings(adapter_rank=0, noise=0)


def write_model(folder: Path, config: PretrainedConfig) -> str:
    random_network(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


def examples_of(*lengths: int) -> list[Example]:
    """Prompts that share their first 60 tokens."""
    random = np.random.default_rng(0)
    start, *rests = (random.integers(2, len(TOKENS), size).tolist() for size in (60, *lengths))
    return [Example((*start, *rest), (20, 7, 21, 8), labels=(20, 21), targets=(1.0, 0.0)) for rest in rests]


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(vocab_size=len(TOKENS), n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=4),
        CohereConfig(**SHAPE, logit_scale=0.0625),
        GraniteConfig(**SHAPE, logits_scaling=8.0),
    ],
    ids=lambda config: config.model_type,
)
def test_losses_and_logits_are_those_of_the_models_own_forward_pass(tmp_path: Path, config: PretrainedConfig) -> None:
    path = write_model(tmp_path, config)
    network, _ = load_network(path, SETTINGS)
    plain = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    examples = examples_of(5, 30, 17)
    for example, logits in zip(examples, network.eval().identifier_logits(examples), strict=True):
        expected = plain_logits(plain, list(example.prompt), list(example.labels))
        np.testing.assert_allclose(logits.numpy(), expected, atol=1e-4)
    assert network(examples).language_model.item() == pytest.approx(own_loss(plain, examples), rel=1e-4)


def own_loss(plain: Any, examples: Sequence[Example]) -> float:
    """Mean cross-entropy of the answers' tokens, each sequence read alone."""
    losses: list[float] = []
    for example in examples:
        with torch.inference_mode():
            logits = plain(torch.tensor([[*example.prompt, *example.answer]])).logits[0]
        read = logits[len(example.prompt) - 1 : -1]
        losses += F.cross_entropy(read, torch.tensor(example.answer), reduction="none").tolist()
    return float(np.mean(losses))


def test_a_model_whose_own_attention_cannot_be_packed_is_refused(tmp_path: Path) -> None:
    config = Gemma2Config(**SHAPE, head_dim=8, attn_logit_softcapping=0.5)
    with pytest.raises(ConfigError, match=r"its attention \(eager\) packed ones are not read .* use another model"):
        load_network(write_model(tmp_path, config), SETTINGS)


def test_noise_does_not_shrink_with_what_is_packed_beside_a_list(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=len(TOKENS), n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=4)
    network, _ = load_network(write_model(tmp_path, config), SETTINGS.model_copy(update={"noise": 5.0}))
    embeddings = network.model.get_input_embeddings()
    embedded: list[torch.Tensor] = []
    embeddings.register_forward_hook(
        lambda module, inputs, output: embedded.append(output - F.embedding(inputs[0], module.weight))
    )

    def largest(network: ListwiseNetwork, examples: list[Example]) -> float:
        embedded.clear()
        network(examples)
        return float(embedded[0].detach().abs().max())

    network.train()
    examples = examples_of(20, 20, 60, 60)
    mean = np.mean([len(example.prompt) + len(example.answer) - 1 for example in examples])
    assert largest(network, examples) == pytest.approx(5 / math.sqrt(mean * 32), rel=0.01)
    assert largest(network, examples[:1]) == pytest.approx(5 / math.sqrt((60 + 20 + 3) * 32), rel=0.01)
    assert largest(network.eval(), examples) == 0
