"""Training runs of retrievers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from index.encoders import Encoder
from rankers.errors import ConfigError, InvalidInputError
from rankers.registry import ModelRegistry
from rankers.sources import resolve_model
from tests.training.lists import write_topic_lists
from training.retriever.run import train_retriever
from training.retriever.settings import RetrieverSettings
from training.trained_model import RunPlace

QUICK = RetrieverSettings(negatives=2, queries_per_step=4, steps_between_checkpoints=2, max_tokens=32)


def place(root: Path, version: str = "1") -> RunPlace:
    return RunPlace("finder", version, models_dir=root / "models", folder=root / "run", promote=True)


def test_lists_and_a_teacher_make_an_encoder_of_the_registry(tmp_path: Path, minilm: str) -> None:
    one = write_topic_lists(tmp_path / "bm25.jsonl")
    other = write_topic_lists(tmp_path / "dense.jsonl", found_by="dense", shift=2)
    taught = write_topic_lists(tmp_path / "teacher.jsonl", found_by="teacher")
    steps: list[int] = []
    done = train_retriever(
        [one, other],
        [taught],
        [one],
        QUICK,
        model=minilm,
        place=place(tmp_path),
        on_step=lambda step, *_: steps.append(step),
    )
    assert done.label == "finder@1"
    assert done.course.best_ndcg >= 0.9
    assert max(steps) == 6  # three steps of four queries for each of the two losses
    recipe = json.loads((done.path / "training.json").read_text())
    assert recipe["lists"] == {"qrels:topics/bm25": 10, "qrels:topics/dense": 10, "qrels:topics/teacher": 10}
    assert ModelRegistry(tmp_path / "models").card("finder").kind == "encoder"
    encoder = Encoder(resolve_model("finder", models_dir=tmp_path / "models"), device="cpu")
    similarity = encoder.encode_queries(["where is the comet"]) @ encoder.encode_documents(["the comet", "a bakery"]).T
    assert similarity[0, 0] > similarity[0, 1]

    again = train_retriever(
        [one, other], [taught], [one], QUICK, model=minilm, place=place(tmp_path, "2"), on_step=lambda *_: None
    )
    assert again.course.best_ndcg == done.course.best_ndcg  # the run was done: nothing was trained again


def test_input_that_cannot_be_used_is_refused(tmp_path: Path, minilm: str) -> None:
    with pytest.raises(InvalidInputError, match="there are no training lists"):
        train_retriever([], [], [], QUICK, model=minilm, place=place(tmp_path), on_step=lambda *_: None)
    lists = write_topic_lists(tmp_path / "lists.jsonl")
    (tmp_path / "not-a-model").mkdir()
    with pytest.raises(ConfigError, match="cannot load"):
        train_retriever(
            [lists],
            [],
            [lists],
            QUICK,
            model=str(tmp_path / "not-a-model"),
            place=place(tmp_path),
            on_step=lambda *_: None,
        )
