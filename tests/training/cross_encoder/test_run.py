"""Training runs of cross-encoders: to the registry, through a kill, and with input that cannot be used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from index.stages import CrossEncoderSpec, find_model, load_ranker
from rankers.errors import ConfigError, InvalidInputError
from rankers.registry import ModelCard, ModelRegistry
from rankers.types import Document, Query, Ranking
from tests.training.lists import TOPICS, write_dev_lists, write_tiny_bert, write_topic_lists
from training.cross_encoder.run import train_cross_encoder
from training.cross_encoder.settings import CrossEncoderSettings
from training.trained_model import RunPlace, TrainedModel

QUICK = CrossEncoderSettings(candidates=3, steps=4, lists_per_step=2, steps_between_checkpoints=2, max_tokens=32)


def place(root: Path, version: str = "1", *, promote: bool = False) -> RunPlace:
    return RunPlace("topics", version, models_dir=root / "models", folder=root / "run", promote=promote)


def train(root: Path, settings: CrossEncoderSettings, model: str, version: str = "1") -> TrainedModel:
    lists, dev = write_topic_lists(root / "lists.jsonl"), write_dev_lists(root / "dev.jsonl")
    where = place(root, version)
    return train_cross_encoder([lists], [dev], settings, model=model, place=where, on_step=lambda *_: None)


def test_what_is_trained_serves_from_the_registry(tmp_path: Path, minilm: str) -> None:
    steps: list[tuple[int, int, dict[str, float]]] = []
    lists, dev = write_topic_lists(tmp_path / "lists.jsonl"), write_dev_lists(tmp_path / "dev.jsonl")
    done = train_cross_encoder(
        [lists],
        [dev],
        QUICK.model_copy(update={"rank_regularisation": 0.1, "curriculum": 0.5}),
        model=minilm,
        place=place(tmp_path, promote=True),
        on_step=lambda step, total, measures: steps.append((step, total, dict(measures))),
    )
    assert done.label == "topics@1"
    assert done.course.best_ndcg >= 0.9  # the bi-encoder it starts as knows these topics
    card = ModelRegistry(tmp_path / "models").card("topics")
    assert (card.kind, card.version) == ("cross-encoder", "1")
    assert card.measures["dev nDCG@10"] == done.course.best_ndcg
    recipe = json.loads((done.path / "training.json").read_text())
    assert recipe["settings"]["rank_regularisation"] == 0.1
    assert recipe["lists"] == {"qrels:topics/bm25": 10}
    assert card.data_hash == f"sha256:{recipe['data_sha256']}"
    assert json.loads((done.path / "tokenizer_config.json").read_text())["model_max_length"] == 512  # not QUICK's 32
    assert (done.path / "curves.png").stat().st_size > 1000
    assert steps[0][2] == {"dev_ndcg": done.course.first_ndcg}
    assert steps[-1][:2] == (4, 4)

    spec = CrossEncoderSpec(kind="cross-encoder", model="topics", device="cpu")
    models_dir = tmp_path / "models"
    ranker = load_ranker(
        spec, find_model(spec, models_dir=models_dir), models_dir=models_dir, once=lambda _, load: load()
    )
    documents = [Document(topic, f"a long note about the {topic} and its past") for topic in TOPICS]
    (ranked,) = ranker.rank([Ranking.from_order(Query("q", "where is the comet"), documents)])
    assert ranked.ids[0] == "comet"


KILLED_RUN = """
import os, signal, sys
from pathlib import Path
from tests.training.cross_encoder.test_run import QUICK, place, train_cross_encoder

def kill(step, total, measures):
    if step >= 4:  # the checkpoint of step 2 is there, that of step 4 is not
        os.kill(os.getpid(), signal.SIGKILL)

root = Path(sys.argv[1])
lists, dev = root / "lists.jsonl", root / "dev.jsonl"
settings = QUICK.model_copy(update={"steps": 5})
train_cross_encoder([lists], [dev], settings, model=sys.argv[2], place=place(root), on_step=kill)
"""


def test_a_killed_run_goes_on_and_ends_where_an_undisturbed_one_does(tmp_path: Path, minilm: str) -> None:
    model = write_tiny_bert(tmp_path / "tiny", minilm)
    settings = QUICK.model_copy(update={"steps": 5})
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    for root in (broken, whole):
        write_topic_lists(root / "lists.jsonl")
        write_dev_lists(root / "dev.jsonl")
    done = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, str(broken), model], cwd=Path(__file__).parents[3], check=False
    )
    assert done.returncode == -9
    assert (broken / "run" / "checkpoint-2").is_dir()
    assert not ModelRegistry(broken / "models").cards()
    one = load_file(train(broken, settings, model).path / "model.safetensors")
    other = load_file(train(whole, settings, model).path / "model.safetensors")
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in other)


def test_a_checkpoint_cut_off_while_it_was_written_is_passed_over(tmp_path: Path, minilm: str) -> None:
    model = write_tiny_bert(tmp_path / "tiny", minilm)
    train(tmp_path, QUICK, model)
    state = tmp_path / "run" / "checkpoint-4" / "trainer_state.json"
    state.write_text(state.read_text()[:20])
    assert train(tmp_path, QUICK, model, version="2").label == "topics@2"


def test_a_plain_classifier_and_the_other_losses_train_too(tmp_path: Path, minilm: str) -> None:
    model = write_tiny_bert(tmp_path / "tiny", minilm)
    settings = QUICK.model_copy(update={"head": "classifier", "loss": "binary", "steps": 1})
    done = train(tmp_path / "binary", settings, model)
    assert json.loads((done.path / "config.json").read_text())["architectures"] == ["BertForSequenceClassification"]
    again = settings.model_copy(update={"loss": "margin-mse", "freeze_embeddings": False})
    assert train(tmp_path / "again", again, str(done.path)).label == "topics@1"


def test_frozen_embeddings_stay_those_of_the_base(tmp_path: Path, minilm: str) -> None:
    model = write_tiny_bert(tmp_path / "tiny", minilm)
    before = load_file(tmp_path / "tiny" / "model.safetensors")
    after = load_file(train(tmp_path, QUICK, model).path / "model.safetensors")
    assert torch.equal(before["embeddings.word_embeddings.weight"], after["bert.embeddings.word_embeddings.weight"])
    assert not torch.equal(
        before["encoder.layer.1.output.dense.weight"], after["bert.encoder.layer.1.output.dense.weight"]
    )


def test_only_the_last_layers_may_be_trained(tmp_path: Path, minilm: str) -> None:
    model = write_tiny_bert(tmp_path / "tiny", minilm)
    before = load_file(tmp_path / "tiny" / "model.safetensors")
    done = train(tmp_path, QUICK.model_copy(update={"layers": 1}), model)
    after = load_file(done.path / "model.safetensors")
    changed = {
        name for name in before if f"bert.{name}" in after and not torch.equal(before[name], after[f"bert.{name}"])
    }
    assert {name.split(".")[2] for name in changed} == {"1"}
    with pytest.raises(ConfigError, match="layers is 3, but BertModel has 2"):
        train(tmp_path / "three", QUICK.model_copy(update={"layers": 3}), model)


def test_another_run_in_the_same_folder_is_refused(tmp_path: Path, minilm: str) -> None:
    model = write_tiny_bert(tmp_path / "tiny", minilm)
    train(tmp_path, QUICK.model_copy(update={"steps": 1}), model)
    with pytest.raises(InvalidInputError, match="holds a run with other settings, data or model"):
        train(tmp_path, QUICK, model, version="2")


def test_what_is_kept_are_the_weights_of_the_best_checkpoint(tmp_path: Path, minilm: str) -> None:
    # At this rate every step takes what it starts with, which knows the topics, further away.
    done = train(tmp_path, QUICK.model_copy(update={"learning_rate": 3e-3, "steps_between_checkpoints": 1}), minilm)
    measured = [(entry["dev_ndcg"], -entry["step"]) for entry in done.course.history if "dev_ndcg" in entry][1:]
    assert (done.course.best_ndcg, -done.course.best_step) == max(measured)
    assert done.course.best_step < max(entry["step"] for entry in done.course.history)
    kept, best = (
        load_file(folder / "model.safetensors")
        for folder in (done.path, tmp_path / "run" / f"checkpoint-{done.course.best_step}")
    )
    torch.testing.assert_close(kept, best, rtol=0, atol=0)


def test_a_run_that_diverges_is_stopped_and_nothing_of_it_is_registered(tmp_path: Path, minilm: str) -> None:
    model = write_tiny_bert(tmp_path / "tiny", minilm)
    with pytest.raises(InvalidInputError, match=r"not finite .* lower learning_rate, now 1e\+30"):
        train(tmp_path, QUICK.model_copy(update={"learning_rate": 1e30}), model)
    assert not ModelRegistry(tmp_path / "models").cards()


def test_a_head_that_was_trained_before_learns_as_the_rest_does(tmp_path: Path, minilm: str) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    first = train(tmp_path / "one", QUICK, write_tiny_bert(tmp_path / "tiny", minilm))
    still = QUICK.model_copy(update={"learning_rate": 1e-12, "head_learning_rate": 1.0})
    second = train(tmp_path / "two", still, str(first.path))
    before, after = (load_file(done.path / "model.safetensors") for done in (first, second))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)


def test_steps_end_with_the_epochs_and_pairs_where_the_model_does(tmp_path: Path, minilm: str) -> None:
    model = write_tiny_bert(tmp_path / "tiny", minilm)  # of 64 positions
    done = train(tmp_path, QUICK.model_copy(update={"steps": 1000, "max_tokens": 1000}), model)
    assert max(entry["step"] for entry in done.course.history) == 5  # ten lists, two a step


def test_a_run_does_not_go_on_from_another_base_or_with_other_held_out_lists(tmp_path: Path, minilm: str) -> None:
    registry = ModelRegistry(tmp_path / "models")
    tiny = Path(write_tiny_bert(tmp_path / "tiny", minilm))

    def copy(folder: Path) -> None:
        shutil.copytree(tiny, folder, dirs_exist_ok=True)

    for version in ("1", "2"):
        card = ModelCard("base", version, kind="encoder", source="test", licence="none", data_hash="none")
        registry.add(card, copy, promote=True)
    train(tmp_path, QUICK, "base")
    registry.promote("base", "1")
    with pytest.raises(InvalidInputError, match="other settings, data or model"):
        train(tmp_path, QUICK, "base", version="2")
    registry.promote("base", "2")
    lists, dev = tmp_path / "lists.jsonl", write_topic_lists(tmp_path / "dev.jsonl", asks="who sells a")
    with pytest.raises(InvalidInputError, match="other settings, data or model"):
        train_cross_encoder([lists], [dev], QUICK, model="base", place=place(tmp_path, "2"), on_step=lambda *_: None)


def test_input_that_cannot_be_used_is_refused_before_anything_runs(tmp_path: Path, minilm: str) -> None:
    lists, dev = write_topic_lists(tmp_path / "lists.jsonl"), write_dev_lists(tmp_path / "dev.jsonl")
    options = {"place": place(tmp_path), "on_step": lambda *_: None}
    with pytest.raises(InvalidInputError, match="no training lists at"):
        train_cross_encoder([tmp_path / "nothing.jsonl"], [], QUICK, model=minilm, **options)  # type: ignore[arg-type]
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(InvalidInputError, match="none of 0 held-out lists"):
        train_cross_encoder([lists], [empty], QUICK, model=minilm, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="each of the 10 training lists has a query that is held out"):
        train_cross_encoder([lists], [lists], QUICK, model=minilm, **options)  # type: ignore[arg-type]
    (tmp_path / "not-a-model").mkdir()
    with pytest.raises(ConfigError, match=r"cannot load .*not-a-model"):
        train_cross_encoder([lists], [dev], QUICK, model=str(tmp_path / "not-a-model"), **options)  # type: ignore[arg-type]
