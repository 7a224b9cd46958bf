"""A ranking becomes a training list: by judgements, or by the order of a teacher."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import Literal

from rankers.types import Document, Ranking
from training.data.training_list import TrainingList

Targets = Literal["order", "scores"]


def label_by_qrels(
    ranking: Ranking,
    grades: Mapping[str, int],
    relevant: Sequence[Document],
    *,
    depth: int,
    most_missed: int,
    source: str,
    generator: Random,
) -> TrainingList | None:
    """Take the best candidates, add relevant documents that they lack, and let the grades be the targets.

    A list that has none of the relevant documents teaches nothing, and a first stage misses some. Those it missed take
    the places of the last candidates that are not relevant, somewhere in the second half of the list: where a deeper
    search would have brought them. The best candidate that is not relevant stays.

    Parameters
    ----------
    ranking
        What a first stage found.
    grades
        Document id to grade; a document without one, or with one below 0, counts as 0.
    relevant
        Documents with a grade above 0, also those that were found.
    depth
        Candidates of the list, at least 2.
    most_missed
        Most documents that are added; which of more is drawn.
    source
        Of the training list.
    generator
        Draws.

    Returns
    -------
    TrainingList or None
        At most `depth` candidates in the order found. None where all have one grade, from which nothing can be learned.
    """
    documents = list(ranking.top(depth).documents)
    found = {document.id for document in documents}
    missed = [document for document in relevant if document.id not in found]
    wrong = sum(grades.get(i, 0) <= 0 for i in found)
    room = depth - (len(found) - wrong) - bool(wrong)
    missed = generator.sample(missed, min(len(missed), most_missed, room))
    surplus = len(documents) + len(missed) - depth
    for place in reversed(range(len(documents))):
        if surplus > 0 and grades.get(documents[place].id, 0) <= 0:
            del documents[place]
            surplus -= 1
    for document in missed:
        documents.insert(generator.randint(len(documents) // 2, len(documents)), document)
    targets = tuple(float(max(grades.get(document.id, 0), 0)) for document in documents)
    if len(set(targets)) < 2:
        return None
    return TrainingList(ranking.query, tuple(documents), targets, source)


def label_by_teacher(
    candidates: Ranking, taught: Ranking, *, depth: int, targets: Targets, source: str
) -> TrainingList | None:
    """Take the best candidates and let a teacher's ranking of them be the target.

    Parameters
    ----------
    candidates
        What a first stage found.
    taught
        What the teacher made of them, or found by itself; candidates that it does not have are left out.
    depth
        Candidates of the list, at least 2.
    targets
        ``order``: minus the places among the candidates, from 1. ``scores``: the teacher's scores, which are to mean
        something.
    source
        Of the training list.

    Returns
    -------
    TrainingList or None
        At most `depth` candidates in the order found; None where fewer than two are left or all have one target.
    """
    wanted = candidates.top(depth).documents
    scores = dict(zip(taught.ids, taught.scores, strict=True))
    documents = [document for document in wanted if document.id in scores]
    if targets == "order":
        ids = {document.id for document in documents}
        scores = {i: -float(place) for place, i in enumerate((i for i in taught.ids if i in ids), start=1)}
    values = tuple(scores[document.id] for document in documents)
    if len(set(values)) < 2:
        return None
    return TrainingList(candidates.query, tuple(documents), values, source)


def without(ranking: Ranking, excluded: Collection[str]) -> Ranking:
    """Leave documents out of a ranking; the places of the others close up."""
    kept = [item for item in ranking.items if item.document.id not in excluded]
    return Ranking.from_scores(
        ranking.query,
        [item.document for item in kept],
        [item.score for item in kept],
        score_kind=ranking.score_kind,
    )
