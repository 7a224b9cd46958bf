"""Training lists as the rows that a trainer draws batches from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError
from training.cross_encoder.settings import CrossEncoderSettings
from training.data.training_list import TrainingList


def make_rows(lists: Sequence[TrainingList], settings: CrossEncoderSettings) -> dict[str, list[Any]]:
    """Cut lists to what one step scores, anew for every epoch.

    The rows of all epochs are drawn beforehand from the seed, so that a run which is resumed sees exactly what it would
    have seen.

    Parameters
    ----------
    lists
        Those whose targets are all equal teach no order and are left out.
    settings
        How many candidates, of which at most `positives` are of the better half of the targets, and how many epochs.

    Returns
    -------
    dict
        Columns, in the order that `ListLoss` takes them: query, documents, ranks, easiness, label.

    Raises
    ------
    InvalidInputError
        If no list teaches anything.
    """
    teaching = [item for item in lists if len(set(item.targets)) > 1]
    if not teaching:
        raise InvalidInputError(
            f"none of {len(lists)} training lists has two different targets; make some with: shortlist data lists"
        )
    columns: dict[str, list[Any]] = {"query": [], "documents": [], "ranks": [], "easiness": [], "label": []}
    for epoch in range(settings.epochs):
        random = np.random.default_rng((settings.seed, epoch))
        for i in random.permutation(len(teaching)):
            item = teaching[int(i)]
            chosen = _choose(np.asarray(item.targets), settings, random)
            columns["query"].append(item.query.text)
            columns["documents"].append([item.documents[j].content for j in chosen])
            columns["ranks"].append([j + 1 for j in chosen])
            columns["easiness"].append(easiness([item.targets[j] for j in chosen]))
            columns["label"].append([item.targets[j] for j in chosen])
    return columns


def easiness(targets: Sequence[float]) -> float:
    """Share of the pairs with different targets that the first stage has in the right order.

    Parameters
    ----------
    targets
        Of candidates in the order of the first stage, not all equal.

    Returns
    -------
    float
        From 0, all wrong, to 1.

    Examples
    --------
    >>> easiness([1, 0, 0]), easiness([0, 1, 0]), easiness([0, 0, 1])
    (1.0, 0.5, 0.0)
    """
    values = np.asarray(targets, dtype=np.float64)
    differences = np.sign(values[:, None] - values[None, :])[np.triu_indices(len(values), k=1)]
    return float((differences > 0).sum() / (differences != 0).sum())


def _choose(targets: npt.NDArray[np.float64], settings: CrossEncoderSettings, random: np.random.Generator) -> list[int]:
    """Draw candidates, some of the better half of the targets among them, and put them in the order of the list."""
    middle = (targets.min() + targets.max()) / 2
    better = np.flatnonzero(targets > middle)
    best = random.permutation(better)[: min(settings.positives, settings.candidates - 1)]
    others = np.setdiff1d(np.arange(len(targets)), better)
    worse = random.permutation(others)[: settings.candidates - len(best)]
    return sorted(int(i) for i in (*best, *worse))
