"""Training by two processes: it ends where one does, and there is one version, written by one of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rankers.errors import InvalidInputError, MissingExtraError
from rankers.registry import ModelRegistry
from tests.training.lists import write_dev_lists, write_tiny_bert, write_tiny_llama, write_topic_lists
from training.cross_encoder.run import train_cross_encoder
from training.cross_encoder.settings import CrossEncoderSettings
from training.listwise.run import train_listwise
from training.listwise.settings import ListwiseSettings
from training.processes import in_first_process, is_first_process, process_count, share_of
from training.progress import report
from training.retriever.run import train_retriever
from training.retriever.settings import RetrieverSettings
from training.trained_model import RunPlace

LISTWISE = ListwiseSettings(
    passage_tokens=8,
    max_candidates=4,
    adapter_rank=2,
    noise=0,
    steps=4,
    lists_per_step=4,
    dev_lists=4,
    learning_rate=1e-2,
    steps_between_measurements=2,
    steps_between_checkpoints=2,
)
CROSS_ENCODER = CrossEncoderSettings(
    candidates=3, epochs=2, lists_per_step=4, max_tokens=32, steps_between_checkpoints=2, learning_rate=1e-3
)
RETRIEVER = RetrieverSettings(
    negatives=2, epochs=2, queries_per_step=4, max_tokens=32, steps_between_checkpoints=2, learning_rate=1e-3
)
TWO_PROCESSES = """
import sys
from pathlib import Path
from tests.training.test_processes import train_all
train_all(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def train_all(models: Path, root: Path) -> list[tuple[int, int]]:
    """Train one model of each kind, and give the steps that somebody was told about."""
    lists, dev, told = [models / "lists.jsonl"], [models / "dev.jsonl"], list[tuple[int, int]]()

    def on_step(step: int, steps: int, _measures: Mapping[str, float]) -> None:
        told.append((step, steps))

    def place(name: str) -> RunPlace:
        return RunPlace(name, "1", models_dir=root / "models", folder=root / name, promote=True)

    bert, llama = str(models / "bert"), str(models / "llama")
    # The trainers of transformers replace what accelerate knows of the processes, so the loop of our own comes first.
    runs = [
        train_listwise(lists, dev, LISTWISE, model=llama, place=place("listwise"), on_step=on_step),
        train_cross_encoder(lists, dev, CROSS_ENCODER, model=bert, place=place("cross"), on_step=on_step),
        train_retriever(lists, lists, dev, RETRIEVER, model=bert, place=place("retriever"), on_step=on_step),
    ]
    for done in runs:
        report(f"{done.label} {done.course.best_ndcg:.4f} told {bool(told)}")
    (root / f"seen-{os.environ.get('RANK', 'alone')}.json").write_text(
        json.dumps([process_count(), is_first_process(), bool(told), [done.label for done in runs]])
    )
    return told


def test_two_processes_end_where_one_does(
    tmp_path: Path, minilm: str, smollm2: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_topic_lists(tmp_path / "lists.jsonl")
    write_dev_lists(tmp_path / "dev.jsonl")
    write_tiny_bert(tmp_path / "bert", minilm)
    write_tiny_llama(tmp_path / "llama", smollm2)
    one, two = tmp_path / "one", tmp_path / "two"
    for root in (one, two):
        root.mkdir()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"),
            *(sys.executable, "-c", TWO_PROCESSES, str(tmp_path), str(two)),
        ],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,  # processes that wait for each other would do so for ever
    )
    assert done.returncode == 0, done.stderr
    labels = ["listwise@1", "cross@1", "retriever@1"]
    assert json.loads((two / "seen-0.json").read_text()) == [2, True, True, labels]
    assert json.loads((two / "seen-1.json").read_text()) == [2, False, False, labels]
    assert done.stderr.count("@1 ") == 3  # each run is reported once

    told = train_all(tmp_path, one)
    assert told[-1] == (10, 10)
    assert capsys.readouterr().err.count("@1 ") == 3
    assert len(ModelRegistry(two / "models").cards()) == len(ModelRegistry(one / "models").cards()) == 3
    start = {f"bert.{name}": weight for name, weight in load_file(tmp_path / "bert" / "model.safetensors").items()}
    for learned in (adapters_of, encoder_of):
        alone, shared = learned(one), learned(two)
        change = torch.cat([(alone[name] - start.get(name, 0.0)).flatten() for name in alone])
        difference = torch.cat([(alone[name] - shared[name]).flatten() for name in alone])
        assert change.norm() > 0
        assert difference.norm() < 0.02 * change.norm()


def adapters_of(root: Path) -> dict[str, torch.Tensor]:
    """The half of the adapters that starts at zero, after the last step."""
    weights = torch.load(root / "listwise" / "checkpoint.pt", weights_only=True)["weights"]
    return {name: weight for name, weight in weights.items() if ".lora_B." in name}


def encoder_of(root: Path) -> dict[str, torch.Tensor]:
    """The layers of the cross-encoder, after the last step."""
    weights = load_file(root / "cross" / "checkpoint-5" / "model.safetensors")
    return {name: weight for name, weight in weights.items() if name.startswith("bert.encoder.")}


def test_one_process_is_the_first_and_does_everything() -> None:
    assert process_count() == 1
    assert is_first_process()
    assert in_first_process(lambda: "done") == "done"
    assert share_of("lists_per_step", 5) == 5


def test_a_step_that_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.processes.process_count", lambda: 2)
    with pytest.raises(InvalidInputError, match="lists_per_step is 5, which 2 processes cannot share evenly"):
        share_of("lists_per_step", 5)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"shortlist-rank\[train\]"):
        is_first_process()
