"""Training lists as the rows that a trainer of bi-encoders draws batches from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rankers.errors import InvalidInputError
from training.data.training_list import TrainingList
from training.retriever.negatives import mix_negatives
from training.retriever.settings import RetrieverSettings

Columns = dict[str, list[Any]]


def contrastive_rows(files: Sequence[Sequence[TrainingList]], settings: RetrieverSettings) -> Columns:
    """Give each query, in every epoch, one of its relevant documents and newly drawn negatives of all retrievers.

    Parameters
    ----------
    files
        Lists of one retriever each.
    settings
        How many negatives and epochs; the seed of the draws.

    Returns
    -------
    dict
        Columns query, positive, negative_1, ...

    Raises
    ------
    InvalidInputError
        If no query has both a relevant document and another one, or a file has the order or scores of a teacher, which
        do not say what is relevant.
    """
    for lists in files:
        if lists and all(len(set(item.targets)) == len(item.targets) > 2 for item in lists):
            raise InvalidInputError(
                f"no two targets of a list are equal in the {len(lists)} lists of one file ({lists[0].source}): a "
                "teacher's order or scores do not say which documents are relevant; give its scores with --teacher"
            )
    mixed = mix_negatives(files)
    if not mixed:
        raise InvalidInputError(
            f"no query of {sum(map(len, files))} training lists has a relevant document and another one; "
            "make some with: shortlist data lists"
        )
    columns = _empty(settings.negatives)
    for epoch in range(settings.epochs):
        random = np.random.default_rng((settings.seed, epoch))
        for i in random.permutation(len(mixed)):
            item = mixed[int(i)]
            positive = item.positives[int(random.integers(len(item.positives)))]
            _add(columns, item.query, [positive, *item.draw(settings.negatives, random)])
    return columns


def distillation_rows(lists: Sequence[TrainingList], settings: RetrieverSettings) -> Columns:
    """Give each query, in every epoch, a document its teacher likes and others, with the teacher's scores as label.

    Parameters
    ----------
    lists
        Targets are a teacher's scores, on the scale of cosines.
    settings
        As for `contrastive_rows`. Lists of fewer candidates than it asks for are left out.

    Returns
    -------
    dict
        Columns query, positive, negative_1, ..., label.

    Raises
    ------
    InvalidInputError
        If no list is long enough.
    """
    long_enough = [item for item in lists if len(item.documents) > settings.negatives]
    if not long_enough:
        raise InvalidInputError(f"none of {len(lists)} lists of a teacher has over {settings.negatives} candidates")
    columns = _empty(settings.negatives) | {"label": []}
    for epoch in range(settings.epochs):
        random = np.random.default_rng((settings.seed, epoch))
        for i in random.permutation(len(long_enough)):
            item = long_enough[int(i)]
            best = int(np.argmax(item.targets))
            others = [j for j in range(len(item.documents)) if j != best]
            chosen = [best, *(int(j) for j in random.choice(others, size=settings.negatives, replace=False))]
            _add(columns, item.query.text, [item.documents[j] for j in chosen])
            columns["label"].append([item.targets[j] for j in chosen])
    return columns


def _empty(negatives: int) -> Columns:
    return {name: [] for name in ("query", "positive", *(f"negative_{i + 1}" for i in range(negatives)))}


def _add(columns: Columns, query: str, documents: Sequence[Any]) -> None:
    values = [query, *(document.content for document in documents)]
    for name, value in zip((name for name in columns if name != "label"), values, strict=True):
        columns[name].append(value)
