"""The vocabulary: queries, documents, rankings. Frozen, slotted, and free of heavy imports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError
from rankers.filters import Filter


class ScoreKind(StrEnum):
    """What a score means, and so what may be done with it.

    Only scores of one kind are comparable, and only `PROBABILITY` is calibrated.
    """

    LEXICAL = "lexical"
    """A sum of term weights such as BM25: at least 0, no upper bound, comparable within one query."""
    SIMILARITY = "similarity"
    """A cosine in [-1, 1]."""
    FUSION = "fusion"
    """A combination of several rankings, in [0, 1]."""
    LOGIT = "logit"
    """Log-odds that one document is relevant; documents are scored independently."""
    LOG_PROBABILITY = "log_probability"
    """Log of the probability that this document comes first in its window: at most 0."""
    PROBABILITY = "probability"
    """A probability of relevance in [0, 1]."""
    LIKELIHOOD = "likelihood"
    """Mean log-probability of the query's tokens given the document: at most 0, comparable within one query."""
    PREFERENCE = "preference"
    """Log-odds that a document is preferred to the average one of its list (a Bradley-Terry strength)."""
    SHARE = "share"
    """How often, in [0, 1], a document is preferred to others of its list."""
    GRADE = "grade"
    """A grade that a model wrote down, scaled to [0, 1]."""
    RANK = "rank"
    """1 / rank: the ranker gives an order and no score."""


@dataclass(frozen=True, slots=True)
class Query:
    """What was asked, and what the metadata of documents must satisfy to be found, if anything."""

    id: str
    text: str
    filter: Filter | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A candidate.

    `features` are numbers the caller already has (price, age, the BM25 of its own engine); `metadata` is carried along
    and returned untouched.
    """

    id: str
    text: str
    title: str = ""
    features: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """Title and text as one string, the form every ranker and encoder reads."""
        return f"{self.title} {self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class ScoredDocument:
    """One place in a ranking; `rank` counts from 1."""

    document: Document
    score: float
    rank: int


@dataclass(frozen=True, slots=True)
class Reading:
    """How much of a document a model read, in tokens of that model."""

    tokens_used: int
    tokens_total: int

    @property
    def truncated(self) -> bool:
        """Whether the model did not see the whole document."""
        return self.tokens_used < self.tokens_total


@dataclass(frozen=True, slots=True)
class PairScores:
    """Scores of n (query, document) pairs, float64 [n]; how much of each document was read; tokens of each pair."""

    scores: npt.NDArray[np.float64]
    readings: tuple[Reading, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WindowEvidence:
    """One window as a listwise ranker saw it.

    `document_ids` are in the order shown and `logits`, where there are any, are the raw identifier logits in that
    order. `repairs` names what was wrong with a written answer, `trace` is the reasoning before it. `failure` says why
    the window could not be read and so kept its order.
    """

    document_ids: tuple[str, ...]
    logits: tuple[float, ...] = ()
    repairs: tuple[str, ...] = ()
    trace: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """How a ranker arrived at a ranking.

    `tokens` counts every token read, `generated_tokens` every token written, `readings` says per document id how much
    of it was read, `windows` keeps what a listwise ranker found so that scores can be calibrated and explained.
    `features` are the numbers a learned ranker was shown, by document id and name, None where one was missing, and
    `feature_set` names what they mean. `order_consistency` says how far the results of both orders of the list agree
    (Kendall's tau, in [-1, 1]), None where only one was ranked. `notes` are what the caller should know.
    """

    tokens: int = 0
    generated_tokens: int = 0
    readings: Mapping[str, Reading] = field(default_factory=dict)
    windows: tuple[WindowEvidence, ...] = ()
    features: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    feature_set: str = ""
    order_consistency: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def repairs(self) -> dict[str, int]:
        """How many written answers needed each kind of repair, the most frequent kind first."""
        return dict(Counter(str(kind) for window in self.windows for kind in window.repairs).most_common())


@dataclass(frozen=True, slots=True)
class Ranking:
    """An ordered list of documents for one query.

    Build it with `from_scores` or `from_order`, which hold the invariants: ranks count from 1, scores never increase,
    document ids are unique. `previous` is the ranking a ranker was given, with its scores as they were; `parts` are the
    rankings this one was put together from: those that were fused, or the head that was joined to its rest.
    """

    query: Query
    items: tuple[ScoredDocument, ...]
    score_kind: ScoreKind
    previous: Ranking | None = None
    evidence: Evidence = field(default_factory=Evidence)
    parts: tuple[Ranking, ...] = ()

    @classmethod
    def from_scores(
        cls,
        query: Query,
        documents: Sequence[Document],
        scores: npt.ArrayLike,
        *,
        score_kind: ScoreKind,
        previous: Ranking | None = None,
        evidence: Evidence | None = None,
    ) -> Ranking:
        """Sort documents by score. This is the only sort of documents in the code base.

        Parameters
        ----------
        query
            The query the scores are for.
        documents
            Candidates, N of them, with unique ids.
        scores
            float [N]; infinities are allowed, NaN is not.
        score_kind
            What the scores mean.
        previous
            The ranking the documents came in.
        evidence
            How the scores were found.

        Returns
        -------
        Ranking
            Score descending; equal scores keep their input order.

        Raises
        ------
        InvalidInputError
            If lengths differ, a score is NaN or an id occurs twice.

        Examples
        --------
        >>> documents = [Document("a", "x"), Document("b", "y"), Document("c", "z")]
        >>> ranking = Ranking.from_scores(Query("q", "?"), documents, [1.0, 2.0, 1.0], score_kind=ScoreKind.LOGIT)
        >>> ranking.ids
        ('b', 'a', 'c')
        """
        values = np.asarray(scores, dtype=np.float64)
        if values.shape != (len(documents),):
            raise InvalidInputError(f"{len(documents)} documents need as many scores, got shape {values.shape}")
        if np.isnan(values).any():
            at = int(np.flatnonzero(np.isnan(values))[0])
            raise InvalidInputError(f"score of document {documents[at].id!r} is NaN; a ranker must give a number")
        order = np.argsort(-values, kind="stable")
        return cls._build(query, [documents[i] for i in order], values[order].tolist(), score_kind, previous, evidence)

    @classmethod
    def from_order(
        cls,
        query: Query,
        documents: Sequence[Document],
        *,
        previous: Ranking | None = None,
        evidence: Evidence | None = None,
    ) -> Ranking:
        """Take documents in the order given; scores are 1 / rank.

        Parameters
        ----------
        query
            The query the order is for.
        documents
            Best first, with unique ids.
        previous
            The ranking the documents came in.
        evidence
            How the order was found.

        Returns
        -------
        Ranking
            The same order, `ScoreKind.RANK`.

        Raises
        ------
        InvalidInputError
            If an id occurs twice.

        Examples
        --------
        >>> Ranking.from_order(Query("q", "?"), [Document("a", "x"), Document("b", "y")]).scores
        (1.0, 0.5)
        """
        scores = [1.0 / rank for rank in range(1, len(documents) + 1)]
        return cls._build(query, documents, scores, ScoreKind.RANK, previous, evidence)

    @classmethod
    def _build(  # noqa: PLR0917
        cls,
        query: Query,
        documents: Sequence[Document],
        scores: Sequence[float],
        score_kind: ScoreKind,
        previous: Ranking | None,
        evidence: Evidence | None,
    ) -> Ranking:
        seen: set[str] = set()
        for document in documents:
            if document.id in seen:
                raise InvalidInputError(f"document id {document.id!r} occurs twice; ids must be unique in a ranking")
            seen.add(document.id)
        items = tuple(
            ScoredDocument(document, score, rank)
            for rank, (document, score) in enumerate(zip(documents, scores, strict=True), start=1)
        )
        return cls(query, items, score_kind, previous, evidence or Evidence())

    def __len__(self) -> int:
        return len(self.items)

    @property
    def documents(self) -> tuple[Document, ...]:
        """Documents, best first."""
        return tuple(item.document for item in self.items)

    @property
    def ids(self) -> tuple[str, ...]:
        """Document ids, best first."""
        return tuple(item.document.id for item in self.items)

    @property
    def scores(self) -> tuple[float, ...]:
        """Scores, best first; they never increase."""
        return tuple(item.score for item in self.items)

    @property
    def origin(self) -> Ranking:
        """The ranking of the first stage, before any ranker changed it."""
        ranking = self
        while ranking.previous is not None:
            ranking = ranking.previous
        return ranking

    def history(self) -> Iterator[Ranking]:
        """This ranking, its parts, and the same of every ranking before it: the latest first."""
        ranking: Ranking | None = self
        while ranking is not None:
            yield ranking
            yield from ranking.parts
            ranking = ranking.previous

    def top(self, k: int) -> Ranking:
        """Keep the first `k` places; a `k` above the length keeps all."""
        return self if k >= len(self.items) else replace(self, items=self.items[:k])

    def with_documents(self, documents: Mapping[str, Document]) -> Ranking:
        """Show other texts under the same order and scores, in the rankings before it too: no ranker finds the old."""
        items = tuple(replace(item, document=documents.get(item.document.id, item.document)) for item in self.items)
        previous = None if self.previous is None else self.previous.with_documents(documents)
        return replace(self, items=items, previous=previous)
