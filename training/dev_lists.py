"""Held-out lists, and how well a model in training orders them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.evaluation import BaseEvaluator
from torch import Tensor

from rankers.errors import InvalidInputError
from training.data.training_list import TrainingList, read_lists
from training.listwise.dev import ndcg

HELD_OUT = 20
"""One query in so many is held out where there are no dev lists."""
MEASURE = "dev_ndcg"

ScoreLists = Callable[[Any, Sequence[TrainingList]], list[Tensor]]
"""Scores the candidates of lists with a model: float [L] for each."""


class DevLists(BaseEvaluator):
    """Mean nDCG@10 over held-out lists, gain linear in the target above the least of its list.

    Parameters
    ----------
    lists
        Those whose targets are all equal measure nothing and are left out.
    limit
        At most so many are looked at, evenly spread over them.
    score
        How the kind of model that is trained scores.

    Raises
    ------
    InvalidInputError
        If no list measures anything.
    """

    def __init__(self, lists: Sequence[TrainingList], *, limit: int, score: ScoreLists) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.primary_metric = MEASURE
        measuring = [item for item in lists if len(set(item.targets)) > 1]
        if not measuring:
            raise InvalidInputError(
                f"none of {len(lists)} held-out lists has two different targets; give others with --dev"
            )
        self.lists = measuring[:: math.ceil(len(measuring) / limit)]
        self._score = score

    def __call__(self, model: Any, *_place: Any, **_context: Any) -> dict[str, float]:
        """Score every candidate of every list; the library also says where it may write, and at which step it is."""
        scores = self._score(model, self.lists)
        values = [ndcg(part, torch.tensor(item.targets)) for part, item in zip(scores, self.lists, strict=True)]
        return {MEASURE: sum(values) / len(values)}


def read_split(paths: Sequence[Path], dev_paths: Sequence[Path]) -> tuple[list[list[TrainingList]], list[TrainingList]]:
    """Read lists to train on, file by file, and those that are held out.

    Parameters
    ----------
    paths
        Files of training lists.
    dev_paths
        Files of held-out lists; without any, one query in `HELD_OUT` is taken from `paths`.

    Returns
    -------
    tuple
        Lists per file, and held-out ones. The split is by the text of the query, so that one query is never on both
        sides, whatever files it is in.

    Raises
    ------
    InvalidInputError
        If lists cannot be read, or every query to train on is held out.
    """
    files = [list(read_lists(path)) for path in paths]
    if dev_paths:
        held_out = [item for path in dev_paths for item in read_lists(path)]
    else:
        held_out = [item for lists in files for item in lists if _is_drawn(item)]
    queries = {_text(item) for item in held_out}
    kept = [[item for item in lists if _text(item) not in queries] for lists in files]
    if any(files) and not any(kept):
        raise InvalidInputError(
            f"each of the {sum(map(len, files))} training lists has a query that is held out to measure with; give "
            "other lists, or leave --dev out"
        )
    return kept, held_out


def _text(item: TrainingList) -> str:
    return item.query.text.strip().lower()


def _is_drawn(item: TrainingList) -> bool:
    digest = hashlib.sha256(_text(item).encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT == 0
