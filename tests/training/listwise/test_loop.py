"""The training loop: it learns, it goes on where it was killed, it keeps the best step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import training.listwise
from rankers.errors import ConfigError, InvalidInputError
from rankers.listwise.prompt import PromptBuilder
from rankers.listwise.template import load_template
from rankers.llm.transformers_engine import TransformersEngine
from rankers.registry import ModelRegistry
from rankers.shipped import ADAPTER_FOLDER
from rankers.types import Query
from training.data.training_list import TrainingList, write_lists
from training.listwise.dev import measure
from training.listwise.examples import ExampleStream
from training.listwise.network import load_network, save_network
from training.listwise.run import train_listwise
from training.listwise.settings import ListwiseSettings
from training.settings_file import load_settings
from training.trained_model import RunPlace, TrainedModel
from training.trainer_run import OnStep

RECIPES = Path(training.listwise.__file__).parent / "recipes"

QUICK = ListwiseSettings(
    passage_tokens=8,
    max_candidates=6,
    steps=6,
    lists_per_step=2,
    adapter_rank=4,
    learning_rate=1e-2,
    dev_lists=4,
    steps_between_measurements=3,
    steps_between_checkpoints=2,
)


def ignore(step: int, steps: int, measures: Mapping[str, float]) -> None:
    """Show no progress."""


def run(
    folder: Path,
    tiny_model: Path,
    settings: ListwiseSettings = QUICK,
    *,
    version: str = "1",
    on_step: OnStep = ignore,
) -> TrainedModel:
    place = RunPlace("tiny-first", version, models_dir=folder / "models", folder=folder / "work")
    return train_listwise([folder / "lists.jsonl"], [], settings, model=str(tiny_model), place=place, on_step=on_step)


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = AutoModelForCausalLM.from_pretrained(path).state_dict()
    return state


@pytest.mark.parametrize("loss", ["ranknet", "listnet", "lambdarank", "neural-ndcg"])
def test_each_loss_brings_a_network_to_the_order_it_is_shown(
    loss: str, tiny_model: Path, colour_lists: list[TrainingList]
) -> None:
    settings = load_settings(ListwiseSettings, None, [f"ranking_loss={loss}", "adapter_rank=0", "noise=0"])
    network, tokenizer = load_network(str(tiny_model), settings)
    builder = PromptBuilder(load_template("first"), tokenizer, passage_tokens=8)
    stream = ExampleStream(colour_lists, builder, tokenizer, sizes=(6, 6), seed=1)
    examples = stream[0]
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    values = []
    for _ in range(30):
        losses = network(examples)
        losses.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        values.append(losses)
    assert values[-1].ranking < values[0].ranking
    assert values[-1].language_model < 0.75 * values[0].language_model
    assert measure(network, examples, lists_per_pass=1) > 0.9


def test_a_run_learns_and_draws_what_it_learned(
    tmp_path: Path, tiny_model: Path, colour_lists: list[TrainingList]
) -> None:
    write_lists(tmp_path / "lists.jsonl", colour_lists)
    told: list[tuple[int, int, Mapping[str, float]]] = []
    trained = run(tmp_path, tiny_model, on_step=lambda *seen: told.append(seen))
    assert [(step, steps) for step, steps, _ in told] == [(step, 6) for step in range(7)]
    assert [step for step, _, measures in told if "dev_ndcg" in measures] == [0, 3, 6]
    assert trained.course.best_ndcg == max(measures.get("dev_ndcg", 0.0) for _, _, measures in told)
    assert told[-1][2]["language_model_loss"] < told[1][2]["language_model_loss"]
    history = json.loads((trained.path / "history.json").read_text())
    assert [entry["step"] for entry in history] == list(range(7))
    assert (trained.path / "curves.png").stat().st_size > 5_000


def test_a_trained_model_is_an_ordinary_model_with_a_card(
    tmp_path: Path, tiny_model: Path, colour_lists: list[TrainingList]
) -> None:
    write_lists(tmp_path / "lists.jsonl", colour_lists)
    trained = run(tmp_path, tiny_model)
    registry = ModelRegistry(tmp_path / "models")
    card = registry.card("tiny-first", "1")
    assert registry.live("tiny-first") is None  # not promoted unless asked
    assert card.kind == "causal-lm"
    assert card.measures["dev nDCG@10"] == trained.course.best_ndcg
    recipe = json.loads((trained.path / "training.json").read_text())
    assert ListwiseSettings.model_validate(recipe["settings"]) == QUICK
    assert recipe["lists"]["made"] + recipe["held_out"]["made"] == 60

    engine = TransformersEngine.load(str(trained.path), dtype="float32")  # refuses what it cannot read exactly
    network, tokenizer = load_network(str(trained.path), QUICK.model_copy(update={"adapter_rank": 0}))
    builder = PromptBuilder(load_template("first"), tokenizer, passage_tokens=8)
    stream = ExampleStream(colour_lists, builder, tokenizer, sizes=(2, 6), seed=1)
    examples = [stream[n][0] for n in range(5)]
    served = engine.next_token_logits([e.prompt for e in examples], [e.labels for e in examples])
    for ours, theirs in zip(network.eval().identifier_logits(examples), served, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-4)


def test_adapters_start_as_the_model_and_only_they_learn(
    tmp_path: Path, tiny_model: Path, colour_lists: list[TrainingList]
) -> None:
    write_lists(tmp_path / "lists.jsonl", colour_lists)
    trained = run(tmp_path, tiny_model)
    assert (trained.path / ADAPTER_FOLDER / "adapter_model.safetensors").is_file()
    weights = torch.load(tmp_path / "work" / "checkpoint.pt", weights_only=True)["weights"]
    learned = {name for name, weight in weights.items() if ".lora_B." in name and weight.any()}
    assert all(".lora_" in name for name in weights)
    assert len(learned) == len(weights) / 2  # they start at 0; the other half starts at random


def test_adapters_are_merged_into_the_weights(
    tmp_path: Path, tiny_model: Path, colour_lists: list[TrainingList]
) -> None:
    network, tokenizer = load_network(str(tiny_model), QUICK)
    builder = PromptBuilder(load_template("first"), tokenizer, passage_tokens=8)
    examples = [ExampleStream(colour_lists, builder, tokenizer, sizes=(2, 6), seed=1)[n][0] for n in range(3)]
    before = network.eval().identifier_logits(examples)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if ".lora_B." in name:
                weight.normal_(std=0.1)
    adapted = network.identifier_logits(examples)
    save_network(network, tokenizer, tmp_path / "saved")
    merged, _ = load_network(str(tmp_path / "saved"), QUICK.model_copy(update={"adapter_rank": 0}))
    for ours, theirs, start in zip(merged.eval().identifier_logits(examples), adapted, before, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-4)
        assert not torch.allclose(ours, start, atol=1e-3)


def test_training_goes_on_with_the_same_adapters(
    tmp_path: Path, tiny_model: Path, colour_lists: list[TrainingList]
) -> None:
    write_lists(tmp_path / "lists.jsonl", colour_lists)
    first = run(tmp_path, tiny_model)
    network, tokenizer = load_network(str(first.path), QUICK)
    again = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    kept = load_file(first.path / ADAPTER_FOLDER / "adapter_model.safetensors")
    assert len(again) == len(kept)
    for name, weight in again.items():
        stored = name.removeprefix("model.").replace(".default.", ".")
        torch.testing.assert_close(weight.detach(), kept[stored])
    save_network(network, tokenizer, tmp_path / "saved")
    merged = weights_of(first.path)
    for name, value in weights_of(tmp_path / "saved").items():
        torch.testing.assert_close(value, merged[name])


def test_adapters_of_another_rank_or_scale_are_refused(
    tmp_path: Path, tiny_model: Path, colour_lists: list[TrainingList]
) -> None:
    write_lists(tmp_path / "lists.jsonl", colour_lists)
    first = run(tmp_path, tiny_model)
    for change, message in (
        ({"adapter_rank": 8}, "have rank 4, adapter_rank is 8; make it the same"),
        ({"adapter_scale": 3}, "have scale 2, adapter_scale is 3; make it the same"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_network(str(first.path), QUICK.model_copy(update=change))


def test_bfloat16_trains_float32_adapters_on_weights_that_stay_as_they_are(
    tmp_path: Path, tiny_model: Path, colour_lists: list[TrainingList]
) -> None:
    write_lists(tmp_path / "lists.jsonl", colour_lists)
    settings = QUICK.model_copy(update={"precision": "bf16"})
    network, _ = load_network(str(tiny_model), settings)
    kinds = {(weight.requires_grad, weight.dtype) for weight in network.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    told: list[Mapping[str, float]] = []
    trained = run(tmp_path, tiny_model, settings, on_step=lambda _step, _steps, seen: told.append(seen))
    assert told[-1]["language_model_loss"] < told[1]["language_model_loss"]
    assert {weight.dtype for weight in weights_of(trained.path).values()} == {torch.float32}


def test_a_killed_run_goes_on_to_the_same_weights(
    tmp_path: Path, tiny_model: Path, colour_lists: list[TrainingList]
) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    for folder in (straight, killed):
        write_lists(folder / "lists.jsonl", colour_lists)
    expected = run(straight, tiny_model)
    script = f"""
import os, signal
from pathlib import Path
from tests.training.listwise.test_loop import run
def die(step, steps, measures):
    if step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
run(Path({str(killed)!r}), Path({str(tiny_model)!r}), on_step=die)
"""
    root = Path(__file__).parents[3]
    child = subprocess.run(
        [sys.executable, "-c", script], cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, check=False
    )
    assert child.returncode == -signal.SIGKILL
    checkpoint = torch.load(killed / "work" / "checkpoint.pt", weights_only=True)
    assert checkpoint["progress"]["step"] == 4  # one interval before the end of step 5 at the latest
    resumed = run(killed, tiny_model)
    assert (resumed.course.best_step, resumed.course.best_ndcg) == (
        expected.course.best_step,
        expected.course.best_ndcg,
    )
    one, other = weights_of(expected.path), weights_of(resumed.path)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_that_diverges_stops_and_keeps_the_checkpoint_from_before(
    tmp_path: Path, tiny_model: Path, colour_lists: list[TrainingList]
) -> None:
    write_lists(tmp_path / "lists.jsonl", colour_lists)
    settings = QUICK.model_copy(
        update={"learning_rate": 1e30, "steps_between_measurements": 1, "steps_between_checkpoints": 1}
    )
    told: list[Mapping[str, float]] = []
    with pytest.raises(InvalidInputError, match=r"not finite at step 2; lower learning_rate \(now 1e\+30\)"):
        run(tmp_path, tiny_model, settings, on_step=lambda _step, _steps, seen: told.append(seen))
    assert told[0]["dev_ndcg"] > 0
    assert told[1]["dev_ndcg"] == 0  # all logits are NaN
    checkpoint = torch.load(tmp_path / "work" / "checkpoint.pt", weights_only=True)
    assert checkpoint["progress"]["step"] == 1
    assert checkpoint["progress"]["best_step"] == 0
    assert not (tmp_path / "models").exists()


def test_what_cannot_be_trained_is_refused_before_training(
    tmp_path: Path, tiny_model: Path, colour_lists: list[TrainingList]
) -> None:
    write_lists(tmp_path / "lists.jsonl", colour_lists)
    with pytest.raises(ConfigError, match="template 'insert_rank'"):
        run(tmp_path, tiny_model, QUICK.model_copy(update={"template": "insert_rank"}))
    long = replace(colour_lists[7], query=Query("long", "which colour is it " * 200))
    write_lists(tmp_path / "lists.jsonl", [*colour_lists, long])
    with pytest.raises(InvalidInputError, match=r"query 'long' takes up to .* lower max_candidates .* or leave it out"):
        run(tmp_path, tiny_model)
    assert not (tmp_path / "work").exists()


def test_the_checkpoint_of_another_run_is_refused(
    tmp_path: Path, tiny_model: Path, colour_lists: list[TrainingList]
) -> None:
    write_lists(tmp_path / "lists.jsonl", colour_lists)
    run(tmp_path, tiny_model)
    with pytest.raises(InvalidInputError, match="holds a run with other settings"):
        run(tmp_path, tiny_model, QUICK.model_copy(update={"learning_rate": 1e-3}), version="2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["lists_per_step=3", "lists_per_pass=2"], "does not divide"),
        (["min_candidates=9", "max_candidates=3"], "is more than max_candidates"),
        (["ranking_loss=null", "language_model_weight=0"], "nothing to learn from"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(changes: list[str], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load_settings(ListwiseSettings, None, changes)


def test_the_weight_of_the_ranking_loss_is_the_papers(tmp_path: Path) -> None:
    assert ListwiseSettings().rank_weight == 10
    assert ListwiseSettings(ranking_loss="listnet").rank_weight == 0.1
    assert ListwiseSettings(ranking_loss=None).rank_weight == 0
    assert ListwiseSettings(ranking_weight=3).rank_weight == 3


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_are_settings(path: Path) -> None:
    assert load_settings(ListwiseSettings, path).template == "first_small"
