"""A training run of a listwise reranker, from files to the registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rankers.listwise.prompt import PromptBuilder
from rankers.sources import resolve_model
from training.dev_lists import MEASURE, read_split
from training.listwise.dev import dev_examples
from training.listwise.examples import ExampleStream, check_lengths
from training.listwise.loop import StepRecord, train
from training.listwise.network import load_network, save_network
from training.listwise.settings import ListwiseSettings
from training.listwise.template import trainable_template
from training.trained_model import Course, RunPlace, TrainedModel, register
from training.trainer_run import OnStep, claim_folder, describe_run, followed_run


def train_listwise(
    lists: Sequence[Path],
    dev: Sequence[Path],
    settings: ListwiseSettings,
    *,
    model: str,
    place: RunPlace,
    on_step: OnStep,
) -> TrainedModel:
    """Train a listwise reranker and add it to the registry; go on where an interrupted run stopped.

    Parameters
    ----------
    lists
        Files of training lists. Those whose targets are all equal teach nothing and are left out.
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
        The model, with the weights of the best step.

    Raises
    ------
    InvalidInputError
        If lists cannot be read, none teaches anything, one is longer than the model reads, none is held out, the folder
        holds another run, or training diverges.
    ConfigError
        If the template or the model cannot be trained with.
    MissingExtraError
        If what training needs is not installed.
    """
    template = trainable_template(settings)
    files, held_out = read_split(lists, dev)
    training = [item for part in files for item in part if len(set(item.targets)) > 1]
    source = resolve_model(model, models_dir=place.models_dir)
    network, tokenizer = load_network(source, settings)
    builder = PromptBuilder(template, tokenizer, passage_tokens=settings.passage_tokens)
    builder.labels.require(settings.max_candidates)
    check_lengths(
        training,
        builder,
        tokenizer,
        candidates=settings.max_candidates,
        writes=settings.language_model_weight > 0,
    )
    sizes = (settings.min_candidates, settings.max_candidates)
    stream = ExampleStream(
        training, builder, tokenizer, sizes=sizes, queries=settings.queries_per_list, seed=settings.seed
    )
    measured = dev_examples(held_out, stream, settings)
    recipe = describe_run(model, settings, source=Path(source), place=place, training=training, held_out=held_out)
    claim_folder(place.folder, recipe)
    with followed_run(place, recipe, on_step) as note:
        outcome = train(
            network,
            stream,
            measured,
            settings,
            folder=place.folder,
            on_step=lambda record: note(record.step, settings.steps, _measures(record)),
        )
    history = [{"step": record.step, **_measures(record)} for record in outcome.history]
    return register(
        lambda folder: save_network(network, tokenizer, folder),
        Course(outcome.first_ndcg, outcome.best_ndcg, outcome.best_step, history),
        recipe,
        place=place,
        kind="causal-lm",
        source=Path(source),
    )


def _measures(record: StepRecord) -> dict[str, float]:
    """What was measured at a step, by the names that `training.trainer_run.OnStep` has."""
    found = {name: value for name, value in asdict(record).items() if value is not None}
    step = found.pop("step")
    return found if step else {MEASURE: found[MEASURE]}
