"""TREC runs: rankings as files, and files as a first stage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rankers.errors import InvalidInputError
from rankers.types import Document, Query, Ranking, ScoreKind
from training.evaluation.lines import numbered_lines

Run = Mapping[str, Mapping[str, float]]
"""Query id -> document id -> score."""


def read_run(path: Path) -> dict[str, dict[str, float]]:
    """Read a run: ``query_id Q0 document_id rank score tag`` a line.

    Parameters
    ----------
    path
        The file; gzip is not unpacked.

    Returns
    -------
    dict
        Scores as they are, in the order of the file.

    Raises
    ------
    NotFoundError
        If there is no such file.
    InvalidInputError
        If a line has another form, a score is no number, or a document occurs twice for a query.
    """
    run: dict[str, dict[str, float]] = {}
    for place, line in numbered_lines(path):
        fields = line.split()
        if len(fields) != 6:
            raise InvalidInputError(f"{place}: expected 6 fields (query Q0 document rank score tag), got {line!r}")
        query_id, _, document_id, _, score, _ = fields
        scores = run.setdefault(query_id, {})
        if document_id in scores:
            raise InvalidInputError(f"{place}: document {document_id!r} occurs twice for query {query_id!r}")
        scores[document_id] = _number(place, score)
    return run


def _number(place: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise InvalidInputError(f"{place}: score is {text!r}, must be a number")
    return value


def format_run(rankings: Iterable[Ranking], *, tag: str) -> str:
    """Write rankings as a TREC run, with strictly decreasing scores.

    Parameters
    ----------
    rankings
        One per query.
    tag
        Names the system in the last column; no white space.

    Returns
    -------
    str
        One line per place. trec_eval sorts by score and breaks ties by document id, so equal scores would come back
        in another order; `strictly_decreasing` sees to it that there are none.

    Raises
    ------
    InvalidInputError
        If the tag or an id has white space in it.
    """
    lines: list[str] = []
    for ranking in rankings:
        for name in (tag, ranking.query.id, *ranking.ids):
            if len(name.split()) != 1:
                raise InvalidInputError(f"{name!r} cannot stand in a TREC run: it is empty or has white space in it")
        scores = strictly_decreasing(ranking.scores)
        lines.extend(
            f"{ranking.query.id} Q0 {document_id} {rank} {score:.9g} {tag}\n"
            for rank, (document_id, score) in enumerate(zip(ranking.ids, scores, strict=True), start=1)
        )
    return "".join(lines)


def strictly_decreasing(scores: Sequence[float]) -> list[float]:
    """Move scores as little as possible, so that each is below the one before, also in single precision.

    Parameters
    ----------
    scores
        Non-increasing, L of them; infinities are brought to the largest finite numbers.

    Returns
    -------
    list of float
        L values that differ as float32, the precision trec_eval reads.

    Examples
    --------
    >>> a, b, c = strictly_decreasing([2.0, 2.0, 1.0])
    >>> a > b > c, a, c
    (True, 2.0, 1.0)
    """
    limit = float(np.finfo(np.float32).max) / 2
    below, moved = np.float32(math.inf), []
    for score in scores:
        value = np.float32(min(max(score, -limit), limit))
        if value >= below:
            value = np.nextafter(below, np.float32(-math.inf))
        moved.append(float(value))
        below = value
    return moved


class RunRetriever:
    """A stored run as the first stage of a pipeline; a `rankers.protocols.Retriever`.

    Parameters
    ----------
    run
        Candidates per query.
    documents
        The collection; only documents of the run are kept.
    score_kind
        What the run's scores are. Those of an unknown system are unbounded and comparable within a query, as BM25's.

    Raises
    ------
    InvalidInputError
        If the collection lacks a document of the run.
    """

    def __init__(self, run: Run, documents: Iterable[Document], *, score_kind: ScoreKind = ScoreKind.LEXICAL) -> None:
        self._run = run
        self._score_kind = score_kind
        wanted = {document_id for scores in run.values() for document_id in scores}
        self._documents = {document.id: document for document in documents if document.id in wanted}
        missing = wanted - self._documents.keys()
        if missing:
            raise InvalidInputError(
                f"the collection lacks {len(missing)} documents of the run, {min(missing)!r} for one", field="run"
            )

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Ranking]:
        """Look rankings up by query id; a query that is not in the run gets an empty one."""
        rankings = []
        for query in queries:
            scores = self._run.get(query.id, {})
            documents = [self._documents[document_id] for document_id in scores]
            ranking = Ranking.from_scores(query, documents, list(scores.values()), score_kind=self._score_kind)
            rankings.append(ranking.top(k))
        return rankings
