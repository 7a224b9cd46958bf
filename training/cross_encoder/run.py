"""A training run of a cross-encoder, from files to the registry."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from torch import Tensor

from rankers.errors import MissingExtraError
from rankers.sources import resolve_model
from training.cross_encoder.loss import ListLoss
from training.cross_encoder.model import HEAD_PARAMETERS, is_cross_encoder, start_cross_encoder
from training.cross_encoder.rows import make_rows
from training.cross_encoder.settings import CrossEncoderSettings
from training.data.training_list import TrainingList
from training.dev_lists import MEASURE, DevLists, read_split
from training.processes import share_of
from training.trained_model import RunPlace, TrainedModel, register
from training.trainer_run import (
    OnStep,
    Watcher,
    claim_folder,
    course_of,
    describe_run,
    followed_run,
    measure_before,
    on_one_device,
    run_trainer,
    trainer_arguments,
)

BATCH_SIZE = 16


def train_cross_encoder(
    lists: Sequence[Path],
    dev: Sequence[Path],
    settings: CrossEncoderSettings,
    *,
    model: str,
    place: RunPlace,
    on_step: OnStep,
) -> TrainedModel:
    """Train a cross-encoder and add it to the registry; go on where an interrupted run stopped.

    Parameters
    ----------
    lists
        Files of training lists.
    dev
        Files of held-out lists; without any, one query in twenty, chosen by its text, is held out.
    settings
        The recipe.
    model
        What to start from, as `rankers.sources.resolve_model` finds it.
    place
        Names and folders.
    on_step
        Told about losses and dev measures; of several processes that of the first one.

    Returns
    -------
    TrainedModel
        The model, with the weights of the best checkpoint.

    Raises
    ------
    InvalidInputError
        If lists cannot be read, none teaches anything, none is held out, or the folder holds another run.
    ConfigError
        If the model cannot be trained from.
    MissingExtraError
        If what training needs is not installed.
    """
    files, held_out = read_split(lists, dev)
    training = [item for part in files for item in part]
    evaluator = DevLists(held_out, limit=settings.dev_lists, score=score_lists)
    rows = make_rows(training, settings)
    source = resolve_model(model, models_dir=place.models_dir)
    recipe = describe_run(
        model, settings, source=Path(source), place=place, training=training, held_out=evaluator.lists
    )
    claim_folder(place.folder, recipe)
    cross_encoder = start_cross_encoder(source, settings)
    own_limit = cross_encoder.max_seq_length
    cross_encoder.max_seq_length = min(settings.max_tokens, own_limit or settings.max_tokens)
    first = measure_before(lambda: evaluator(cross_encoder), place.folder)
    with followed_run(place, recipe, on_step) as note:
        note(0, 0, {MEASURE: first})
        state = _train(
            cross_encoder,
            rows,
            evaluator,
            settings,
            new_head=not is_cross_encoder(source),
            folder=place.folder,
            on_step=note,
        )
    cross_encoder.max_seq_length = own_limit  # how much is read when it serves is for the stage to say
    return register(
        lambda folder: cross_encoder.save_pretrained(str(folder), create_model_card=False),
        course_of(state, first),
        recipe,
        place=place,
        kind="cross-encoder",
        source=Path(source),
    )


def score_lists(model: CrossEncoder, lists: Sequence[TrainingList]) -> list[Tensor]:
    """Score the candidates of lists: one logit each, float32 [L] per list."""
    pairs = [(item.query.text, document.content) for item in lists for document in item.documents]
    logits = model.predict(
        pairs, batch_size=BATCH_SIZE, activation_fn=torch.nn.Identity(), show_progress_bar=False, convert_to_tensor=True
    )
    return list(logits.float().cpu().split([len(item.documents) for item in lists]))


def _train(
    model: CrossEncoder,
    rows: Mapping[str, list[Any]],
    evaluator: DevLists,
    settings: CrossEncoderSettings,
    *,
    new_head: bool,
    folder: Path,
    on_step: OnStep,
) -> Any:
    """Run the trainer, which leaves the weights of the best checkpoint in the model, and give its final state."""
    try:
        from datasets import Dataset
    except ImportError as error:
        raise MissingExtraError("datasets", extra="train") from error
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments

    loss = ListLoss(model, settings)
    arguments = on_one_device(
        CrossEncoderTrainingArguments(
            **trainer_arguments(
                folder,
                settings,
                # The rows of all epochs are there, so this is one pass over them or less.
                steps=math.ceil(len(rows["query"]) / settings.lists_per_step),
            ),
            per_device_train_batch_size=share_of("lists_per_step", settings.lists_per_step),
            learning_rate_mapping={HEAD_PARAMETERS: settings.head_learning_rate} if new_head else {},
        )
    )
    model.model_card_data.generate_widget_examples = False  # no card of the library's is written
    trainer = CrossEncoderTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(dict(rows)),
        loss=loss,
        evaluator=evaluator,
        callbacks=[Watcher(on_step, lambda progress: setattr(loss, "progress", progress))],
    )
    return run_trainer(trainer, folder)
