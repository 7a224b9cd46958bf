"""`shortlist train` as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.lists import write_dev_lists, write_tiny_bert, write_topic_lists
from tests.training.test_command import run

QUICK = ("--set", "steps=2", "--set", "max_tokens=32", "--set", "steps_between_checkpoints=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, minilm: str) -> Path:
    folder = tmp_path_factory.mktemp("train")
    write_tiny_bert(folder / "tiny", minilm)
    write_topic_lists(folder / "lists.jsonl")
    write_dev_lists(folder / "dev.jsonl")
    (folder / "shortlist.yaml").write_text(
        "models_dir: models\ndefault: bm25\npipelines:\n  bm25: {retriever: {kind: bm25}}\n"
    )
    return folder


@pytest.mark.parametrize("kind", ["cross-encoder", "retriever"])
def test_a_model_is_in_the_registry_when_it_is_done(folder: Path, kind: str) -> None:
    options = ("lists.jsonl", "--dev", "dev.jsonl", "--model", "./tiny", "--name", f"my-{kind}", *QUICK)
    shown = run(folder, kind, *options, command="train")
    assert "step 1: dev nDCG@10" in shown
    told = shown.splitlines()[-1]
    assert told.startswith(f"my-{kind}@")
    assert told.endswith("with curves.png")
    assert len(list((folder / "models" / f"my-{kind}").glob("*/model.safetensors"))) == 1
    assert not (folder / "models" / f"my-{kind}" / "LIVE").exists()  # only --promote makes it live
    assert (folder / "var" / "training" / f"my-{kind}" / "checkpoint-1").is_dir()


def test_what_cannot_be_used_is_said_in_one_line(folder: Path) -> None:
    assert "no training lists at nothing.jsonl" in run(folder, "retriever", "nothing.jsonl", command="train", status=2)
    wrong = ("cross-encoder", "lists.jsonl", "--set", "epoch=3")
    assert "epoch: Extra inputs are not permitted" in run(folder, *wrong, command="train", status=2)
