"""Training runs of retrievers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from index.encoders import Encoder
from rankers.errors import ConfigError, InvalidInputError
from rankers.registry import ModelRegistry
from rankers.sources import resolve_model
from tests.training.lists import topic_lists, write_dev_lists, write_topic_lists
from training.data.training_list import write_lists
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
    dev = write_dev_lists(tmp_path / "dev.jsonl")
    steps: list[int] = []
    done = train_retriever(
        [one, other],
        [taught],
        [dev],
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
    assert SentenceTransformer(str(done.path)).max_seq_length == 256  # that of MiniLM, not QUICK's 32

    again = train_retriever(
        [one, other], [taught], [dev], QUICK, model=minilm, place=place(tmp_path, "2"), on_step=lambda *_: None
    )
    assert again.course.best_ndcg == done.course.best_ndcg  # the run was done: nothing was trained again


def test_input_that_cannot_be_used_is_refused(tmp_path: Path, minilm: str) -> None:
    with pytest.raises(InvalidInputError, match="there are no training lists"):
        train_retriever([], [], [], QUICK, model=minilm, place=place(tmp_path), on_step=lambda *_: None)
    lists, dev = write_topic_lists(tmp_path / "lists.jsonl"), write_dev_lists(tmp_path / "dev.jsonl")
    (tmp_path / "not-a-model").mkdir()
    with pytest.raises(ConfigError, match="cannot load"):
        train_retriever(
            [lists],
            [],
            [dev],
            QUICK,
            model=str(tmp_path / "not-a-model"),
            place=place(tmp_path),
            on_step=lambda *_: None,
        )


KILLED_RUN = """
import os, signal, sys
from pathlib import Path
from tests.training.retriever.test_run import SLOW, place, train_retriever

def kill(step, total, measures):
    if step >= 4:  # the checkpoint of step 3 is there
        os.kill(os.getpid(), signal.SIGKILL)

root = Path(sys.argv[1])
lists, dev = root / "lists.jsonl", root / "dev.jsonl"
train_retriever([lists], [lists], [dev], SLOW, model=sys.argv[2], place=place(root), on_step=kill)
"""
SLOW = RetrieverSettings(negatives=2, epochs=2, queries_per_step=4, steps_between_checkpoints=3, max_tokens=32)


def test_a_killed_run_goes_on_and_ends_where_an_undisturbed_one_does(tmp_path: Path, minilm: str) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    for root in (broken, whole):
        root.mkdir()
        write_topic_lists(root / "lists.jsonl")
        write_dev_lists(root / "dev.jsonl")
    line = [sys.executable, "-c", KILLED_RUN, str(broken), minilm]
    assert subprocess.run(line, cwd=Path(__file__).parents[3], check=False).returncode == -9
    assert (broken / "run" / "checkpoint-3").is_dir()
    ends = []
    for root in (broken, whole):
        lists, dev = root / "lists.jsonl", root / "dev.jsonl"
        done = train_retriever([lists], [lists], [dev], SLOW, model=minilm, place=place(root), on_step=lambda *_: None)
        assert max(entry["step"] for entry in done.course.history) == 10
        last = root / "run" / "checkpoint-10" / "model.safetensors"
        ends.append(load_file(last))
        kept = load_file(done.path / "model.safetensors")
        best = load_file(root / "run" / f"checkpoint-{done.course.best_step}" / "model.safetensors")
        torch.testing.assert_close(kept, best, rtol=0, atol=0)
    torch.testing.assert_close(*ends, rtol=0, atol=1e-6)


def test_the_order_of_a_teacher_does_not_say_what_is_relevant(tmp_path: Path, minilm: str) -> None:
    ordered = [replace(item, targets=(-1.0, -2.0, -3.0, -4.0), source="gpt:hosted") for item in topic_lists()]
    write_lists(tmp_path / "lists.jsonl", ordered)
    with pytest.raises(InvalidInputError, match=r"gpt:hosted.*give its scores with --teacher"):
        train_retriever(
            [tmp_path / "lists.jsonl"], [], [], QUICK, model=minilm, place=place(tmp_path), on_step=lambda *_: None
        )
