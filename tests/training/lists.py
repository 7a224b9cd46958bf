"""Small training lists and small encoders, for tests of trainers."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from rankers.types import Document, Query
from training.data.training_list import TrainingList, write_lists

TOPICS = ("glacier", "violin", "protein", "harbour", "comet", "bakery", "tunnel", "orchid", "parliament", "magnet")


def topic_lists(*, found_by: str = "bm25", shift: int = 0, asks: str = "where is the") -> list[TrainingList]:
    """One list per topic: the first document but one is about it, the others are about other topics."""
    return [_topic_list(i, found_by, shift, asks) for i in range(len(TOPICS))]


def write_topic_lists(path: Path, **options: object) -> Path:
    """Write `topic_lists` and give the path."""
    write_lists(path, topic_lists(**options))  # type: ignore[arg-type]
    return path


def write_dev_lists(path: Path) -> Path:
    """Write lists about the same topics for other queries, and give the path."""
    return write_topic_lists(path, asks="who has seen the")


def write_tiny_bert(folder: Path, tokenizer: str) -> str:
    """Write a BERT of two layers with seeded weights and the tokenizer of a real one."""
    vocabulary = AutoTokenizer.from_pretrained(tokenizer)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    vocabulary.model_max_length = 64
    vocabulary.save_pretrained(folder)
    return str(folder)


def write_tiny_llama(folder: Path, tokenizer: str, *, seed: int = 0) -> str:
    """Write a Llama of two layers with seeded weights and the tokenizer of a real one."""
    vocabulary = AutoTokenizer.from_pretrained(tokenizer)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    vocabulary.save_pretrained(folder)
    return str(folder)


def _topic_list(i: int, found_by: str, shift: int, asks: str) -> TrainingList:
    others = [TOPICS[(i + step + shift) % len(TOPICS)] for step in (1, 2, 3)]
    topics = [others[0], TOPICS[i], *others[1:]]
    return TrainingList(
        query=Query(f"q{i}", f"{asks} {TOPICS[i]}"),
        documents=tuple(Document(f"d-{topic}", f"a long note about the {topic} and its past") for topic in topics),
        targets=tuple(float(topic == TOPICS[i]) for topic in topics),
        source=f"qrels:topics/{found_by}",
    )
