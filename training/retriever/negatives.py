"""Hard negatives from several retrievers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rankers.types import Document
from training.data.training_list import TrainingList


@dataclass(frozen=True, slots=True)
class MixedList:
    """A query, its documents that are relevant, and negatives with the probability of each to be drawn."""

    query: str
    positives: tuple[Document, ...]
    negatives: tuple[Document, ...]
    probabilities: tuple[float, ...]

    def draw(self, count: int, random: np.random.Generator) -> list[Document]:
        """Draw different negatives; some twice where there are fewer."""
        chosen = random.choice(
            len(self.negatives), size=count, replace=len(self.negatives) < count, p=self.probabilities
        )
        return [self.negatives[int(i)] for i in chosen]


def mix_negatives(files: Sequence[Sequence[TrainingList]]) -> list[MixedList]:
    """Put together what several retrievers found for the same queries.

    The probability of a negative is the mean over the retrievers of (1 / rank) / sum of (1 / rank) over the negatives
    that the retriever found: what several find is drawn more often, and so is what stands higher. Drawing from the
    joint distribution of retrievers instead of from one keeps a model from learning the faults of that one: R2anker
    (Zhou et al., "Towards Robust Ranker for Text Retrieval", Findings of ACL 2023), which normalises the retrievers'
    scores, where lists keep ranks.

    Parameters
    ----------
    files
        Lists of one retriever each, targets above the least of the list meaning relevant; queries are matched by text.

    Returns
    -------
    list of MixedList
        One per query that has a positive and a negative, in the order of first occurrence.
    """
    grouped: dict[str, list[TrainingList]] = {}
    for lists in files:
        for item in lists:
            grouped.setdefault(item.query.text, []).append(item)
    mixed = [_mix(query, lists) for query, lists in grouped.items()]
    return [item for item in mixed if item.positives and item.negatives]


def _mix(query: str, lists: Sequence[TrainingList]) -> MixedList:
    documents: dict[str, Document] = {}
    relevant: set[str] = set()
    for item in lists:
        documents |= {document.id: document for document in item.documents}
        relevant |= {d.id for d, target in zip(item.documents, item.targets, strict=True) if target > min(item.targets)}
    weights = dict.fromkeys((i for i in documents if i not in relevant), 0.0)
    for item in lists:
        shares = {d.id: 1.0 / rank for rank, d in enumerate(item.documents, start=1) if d.id not in relevant}
        for document_id, share in shares.items():
            weights[document_id] += share / sum(shares.values())
    total = sum(weights.values())
    return MixedList(
        query=query,
        positives=tuple(documents[i] for i in documents if i in relevant),
        negatives=tuple(documents[i] for i in weights),
        probabilities=tuple(weight / total for weight in weights.values()),
    )
