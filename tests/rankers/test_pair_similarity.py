"""The cross-encoder that begins as a bi-encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from rankers.pair_similarity import SCALES, PairSimilarityConfig, PairSimilarityModel
from rankers.pointwise import CrossEncoderScorer
from rankers.types import Document, Query
from tests.rankers.start import start_from

PAIRS = [
    ("what does a cat eat", "Cats are carnivores and eat meat, fish and small rodents."),
    ("what does a cat eat", "The stock market fell on Monday."),
    ("height of mount everest", "Everest rises 8,849 metres above the sea, the highest mountain of the earth."),
]


@pytest.fixture(scope="module")
def model(minilm: str, tmp_path_factory: pytest.TempPathFactory) -> CrossEncoder:
    return start_from(minilm, tmp_path_factory.mktemp("start"))


def network_of(model: CrossEncoder) -> Any:
    return model.model


def logits(model: CrossEncoder, pairs: list[tuple[str, str]]) -> list[float]:
    return [float(value) for value in model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)]


def test_it_starts_with_the_opinion_of_the_bi_encoder(model: CrossEncoder, minilm: str) -> None:
    bi_encoder = SentenceTransformer(minilm)
    cosines = [float(bi_encoder.encode(query) @ bi_encoder.encode(text)) for query, text in PAIRS]
    texts, words, _ = SCALES
    for logit, cosine in zip(logits(model, PAIRS), cosines, strict=True):
        assert logit == pytest.approx(texts * cosine + words * 0.5, abs=2.0)
    assert np.argmin(logits(model, PAIRS)) == np.argmin(cosines) == 1


def test_a_batch_equals_its_pairs_one_by_one(model: CrossEncoder) -> None:
    alone = [logits(model, [pair])[0] for pair in PAIRS]
    assert logits(model, PAIRS) == pytest.approx(alone, abs=1e-4)


def test_with_attention_shut_the_other_text_changes_a_token_only_through_the_first(model: CrossEncoder) -> None:
    shut = PairSimilarityConfig(**{**network_of(model).config.to_dict(), "cross_attention": -1e4})
    network = PairSimilarityModel(shut)
    network.train(False)
    network.load_state_dict(network_of(model).state_dict())
    seen: list[torch.Tensor] = []
    network.head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    for _, text in PAIRS[:2]:
        features = model.preprocess([("what does a cat eat", text)])
        network(features["input_ids"], features["attention_mask"], features["token_type_ids"])
    one, other = (states[0, 1:6] for states in seen)
    assert torch.nn.functional.cosine_similarity(one, other, dim=-1).min() > 0.9


def test_it_is_saved_and_served_like_any_cross_encoder(model: CrossEncoder, tmp_path: Path) -> None:
    model.save_pretrained(str(tmp_path), create_model_card=False)
    scorer = CrossEncoderScorer(str(tmp_path), device="cpu")
    pairs = [(Query(str(i), query), Document(str(i), text)) for i, (query, text) in enumerate(PAIRS)]
    assert scorer.score(pairs).scores.tolist() == pytest.approx(logits(model, PAIRS), abs=1e-4)


def test_every_parameter_that_may_learn_gets_a_gradient(model: CrossEncoder) -> None:
    features = model.preprocess(PAIRS)
    network_of(model).zero_grad()
    output = network_of(model)(features["input_ids"], features["attention_mask"], features["token_type_ids"])
    output.logits.sum().backward()
    missing = [name for name, parameter in network_of(model).named_parameters() if parameter.grad is None]
    assert missing == []
    assert all(
        torch.isfinite(parameter.grad).all()
        for parameter in network_of(model).parameters()
        if parameter.grad is not None
    )
