"""A training run of a retriever, from files to the registry."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MarginMSELoss, MultipleNegativesRankingLoss
from sentence_transformers.util import pairwise_cos_sim
from torch import Tensor, nn

from rankers.errors import ConfigError, InvalidInputError, MissingExtraError
from rankers.sources import resolve_model
from training.data.training_list import TrainingList, hash_lists
from training.dev_lists import MEASURE, DevLists, read_split
from training.processes import share_of
from training.retriever.rows import Columns, contrastive_rows, distillation_rows
from training.retriever.settings import RetrieverSettings
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

CONTRASTIVE, DISTILLATION = "contrastive", "distillation"


class WeightedLoss(nn.Module):
    """A loss of sentence-transformers times a constant."""

    def __init__(self, loss: nn.Module, weight: float) -> None:
        super().__init__()
        self.loss = loss
        self.model = loss.model
        self._weight = weight

    def forward(self, *inputs: Any) -> Tensor:
        """Compute it."""
        value: Tensor = self._weight * self.loss(*inputs)
        return value


def train_retriever(
    lists: Sequence[Path],
    teacher: Sequence[Path],
    dev: Sequence[Path],
    settings: RetrieverSettings,
    *,
    model: str,
    place: RunPlace,
    on_step: OnStep,
) -> TrainedModel:
    """Train a bi-encoder and add it to the registry; go on where an interrupted run stopped.

    Relevant documents against hard negatives and the documents of other queries (van den Oord, Li, Vinyals,
    arXiv 1807.03748, equation 4), and margins of a teacher (Margin-MSE, Hofstätter et al., arXiv 2010.02666), in turns.

    Parameters
    ----------
    lists
        Files of training lists, one per retriever: their negatives are mixed.
    teacher
        Files of lists whose targets are a teacher's scores, on the scale of cosines; none to learn from `lists` alone.
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
        If lists cannot be read or teach nothing, or the folder holds another run.
    ConfigError
        If the model cannot be loaded.
    MissingExtraError
        If what training needs is not installed.
    """
    if not lists and not teacher:
        raise InvalidInputError("there are no training lists; make some with: shortlist data lists")
    files, held_out = read_split([*lists, *teacher], dev)
    labelled, taught = files[: len(lists)], [item for part in files[len(lists) :] for item in part]
    evaluator = DevLists(held_out, limit=settings.dev_lists, score=score_lists)
    rows: dict[str, Columns] = {}
    if labelled:
        rows[CONTRASTIVE] = contrastive_rows(labelled, settings)
    if taught:
        rows[DISTILLATION] = distillation_rows(taught, settings)
    source = resolve_model(model, models_dir=place.models_dir)
    training = [item for part in files for item in part]
    recipe = describe_run(
        model, settings, source=Path(source), place=place, training=training, held_out=evaluator.lists
    ) | {"teacher_sha256": hash_lists(taught)}
    claim_folder(place.folder, recipe)
    try:
        retriever = SentenceTransformer(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot load {model!r} to train a retriever from: {error}") from error
    own_limit = retriever.max_seq_length
    retriever.max_seq_length = min(settings.max_tokens, own_limit or settings.max_tokens)
    first = measure_before(lambda: evaluator(retriever), place.folder)
    with followed_run(place, recipe, on_step) as note:
        note(0, 0, {MEASURE: first})
        state = _train(retriever, rows, evaluator, settings, folder=place.folder, on_step=note)
    retriever.max_seq_length = own_limit  # it embeds with all it can read
    return register(
        lambda folder: retriever.save_pretrained(str(folder), create_model_card=False),
        course_of(state, first),
        recipe,
        place=place,
        kind="encoder",
        source=Path(source),
    )


def score_lists(model: SentenceTransformer, lists: Sequence[TrainingList]) -> list[Tensor]:
    """Score the candidates of lists: cosines, float32 [L] per list."""
    queries = model.encode_query(
        [item.query.text for item in lists], convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False
    )
    documents = model.encode_document(
        [document.content for item in lists for document in item.documents],
        convert_to_tensor=True,
        normalize_embeddings=True,
        show_progress_bar=False,
    )
    parts = documents.split([len(item.documents) for item in lists])
    return [(part @ query).float().cpu() for part, query in zip(parts, queries, strict=True)]


def _train(
    model: SentenceTransformer,
    rows: Mapping[str, Columns],
    evaluator: DevLists,
    settings: RetrieverSettings,
    *,
    folder: Path,
    on_step: OnStep,
) -> Any:
    """Run the trainer, which leaves the weights of the best checkpoint in the model, and give its final state."""
    try:
        from datasets import Dataset, DatasetDict
    except ImportError as error:
        raise MissingExtraError("datasets", extra="train") from error
    from sentence_transformers.sentence_transformer import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )

    losses: dict[str, nn.Module] = {
        # Negatives are not gathered from other processes: one may be at the other loss, and they would wait for ever.
        CONTRASTIVE: MultipleNegativesRankingLoss(model, scale=1 / settings.temperature),
        DISTILLATION: WeightedLoss(MarginMSELoss(model, similarity_fct=pairwise_cos_sim), settings.distillation_weight),
    }
    steps = sum(math.ceil(len(columns["query"]) / settings.queries_per_step) for columns in rows.values())
    arguments = on_one_device(
        SentenceTransformerTrainingArguments(
            **trainer_arguments(folder, settings, steps=steps),
            per_device_train_batch_size=share_of("queries_per_step", settings.queries_per_step),
            # Another query's documents are negatives: none of them may be its own.
            batch_sampler="no_duplicates",
        )
    )
    model.model_card_data.generate_widget_examples = False  # no card of the library's is written
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=DatasetDict({name: Dataset.from_dict(columns) for name, columns in rows.items()}),
        loss={name: losses[name] for name in rows},
        evaluator=evaluator,
        callbacks=[Watcher(on_step)],
    )
    return run_trainer(trainer, folder)
