"""A small model with a real tokenizer, and lists whose order can be learned in a few steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankers.types import Document, Query
from tests.training.lists import write_tiny_llama
from training.data.training_list import TrainingList

COLOURS = ("red", "green", "blue", "white", "black", "grey", "brown", "pink")


@pytest.fixture(scope="session")
def tiny_model(smollm2: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a Llama of two layers with the tokenizer of SmolLM2."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_llama(folder, smollm2)
    return folder


@pytest.fixture
def colour_lists() -> list[TrainingList]:
    """Sixty lists: the passage that names the colour of the query is best, the one after it second."""
    lists = []
    for i in range(60):
        best = i % 6
        documents = tuple(Document(f"{i}-{j}", f"the {colour} one") for j, colour in enumerate(COLOURS[:6]))
        targets = tuple(2.0 if j == best else 1.0 if j == (best + 1) % 6 else 0.0 for j in range(6))
        lists.append(TrainingList(Query(str(i), f"{COLOURS[best]} {i}"), documents, targets, "made"))
    return lists
