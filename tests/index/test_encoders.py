from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from index.encoders import Encoder
from rankers.errors import NotFoundError

TEXTS = ["a quick brown fox", "how do birds sing?", "x " * 400, ""]


def test_equals_mean_pooling_over_a_plain_forward_pass(encoder: Encoder, minilm: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    network = AutoModel.from_pretrained(minilm)
    expected = []
    for text in TEXTS:
        inputs = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            mean = network(**inputs).last_hidden_state.mean(dim=1)[0].numpy()
        expected.append(mean / np.linalg.norm(mean))
    for vectors in (encoder.encode_queries(TEXTS), encoder.encode_documents(TEXTS)):
        assert vectors.dtype == np.float32
        assert vectors.shape == (4, encoder.dimensions) == (4, 384)
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_no_texts_make_no_vectors(encoder: Encoder) -> None:
    assert encoder.encode_documents([]).shape == (0, 384)
    assert encoder.encode_queries([]).dtype == np.float32


def test_max_tokens_cuts_texts(minilm: str) -> None:
    short = Encoder(minilm, device="cpu", max_tokens=8)
    one, two = short.encode_documents(["one two three four five six", "one two three four five six seven eight nine"])
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_prompts_of_the_model_are_used(minilm: str, tmp_path: Path, encoder: Encoder) -> None:
    model = Path(shutil.copytree(minilm, tmp_path / "model"))
    config = model / "config_sentence_transformers.json"
    content = json.loads(config.read_text()) | {"prompts": {"query": "query: ", "document": "passage: "}}
    config.write_text(json.dumps(content))
    prompted = Encoder(str(model), device="cpu")
    np.testing.assert_allclose(prompted.encode_queries(["fox"]), encoder.encode_queries(["query: fox"]), atol=1e-5)
    np.testing.assert_allclose(
        prompted.encode_documents(["fox"]), encoder.encode_documents(["passage: fox"]), atol=1e-5
    )


def test_threads_share_an_encoder(encoder: Encoder) -> None:
    texts = [f"text {'word ' * i}" for i in range(24)]
    with ThreadPoolExecutor(4) as pool:
        vectors = list(pool.map(lambda text: encoder.encode_queries([text])[0], texts))
    np.testing.assert_allclose(vectors, encoder.encode_queries(texts), atol=1e-5)


def test_a_model_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no embedding model at 'nobody/nothing'"):
        Encoder("nobody/nothing", device="cpu")
