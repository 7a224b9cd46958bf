"""What a feature can be made of. Each kind is an entry of a feature set's YAML file, and gives a column of numbers.

NaN says that there is no such number; nothing is ever filled in. Letters in shapes: L documents of a list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Annotated, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from rankers.ltr.terms import CollectionStatistics, Splitter, bm25, smallest_window
from rankers.types import Document, Query, Ranking, ScoredDocument, ScoreKind

Similarity: TypeAlias = Callable[[Query, Sequence[Document]], npt.NDArray[np.float32]]
"""Cosines float32 [L] of a query and L documents."""
Part: TypeAlias = Literal["title", "text", "content"]
Source: TypeAlias = Literal["first", "incoming"] | ScoreKind

NAN = math.nan
SECONDS_PER_DAY = 86_400.0


class Candidates:
    """A ranking as features see it; what several of them need is worked out once.

    Parameters
    ----------
    ranking
        What is to be ordered; features come in its order.
    splitter
        Makes terms.
    statistics
        Of the collection; of the candidates themselves if not given.
    now
        With a time zone; what freshness is measured from.
    similarity
        Cosines; missing everywhere if not given.
    """

    def __init__(
        self,
        ranking: Ranking,
        splitter: Splitter,
        *,
        statistics: CollectionStatistics | None,
        now: datetime,
        similarity: Similarity | None,
    ) -> None:
        self.ranking = ranking
        self.documents = ranking.documents
        self.now = now
        self.similarity = similarity
        self.query_terms = splitter.terms(ranking.query.text)
        self.distinct_terms = frozenset(self.query_terms)
        self._titles = [splitter.terms(document.title) for document in self.documents]
        self._texts = [splitter.terms(document.text) for document in self.documents]
        self._statistics = statistics

    def terms(self, part: Part) -> list[list[str]]:
        """Terms of a part of every document."""
        if part == "content":
            return self._contents
        return self._titles if part == "title" else self._texts

    @cached_property
    def statistics(self) -> CollectionStatistics:
        """Of the collection or, where nothing is known of it, of the candidates."""
        return self._statistics or CollectionStatistics.of(self._contents)

    @cached_property
    def _contents(self) -> list[list[str]]:
        return [title + text for title, text in zip(self._titles, self._texts, strict=True)]

    def places(self, source: Source) -> list[tuple[Ranking, ScoredDocument | None]]:
        """Where each document stood in an earlier ranking: the first, the incoming, or the latest of a kind."""
        if source == "first":
            found: Ranking | None = self.ranking.origin
        elif source == "incoming":
            found = self.ranking
        else:
            found = next((one for one in self.ranking.history() if one.score_kind == source), None)
        if found is None:
            return [(self.ranking, None)] * len(self.documents)
        items = {item.document.id: item for item in found.items}
        return [(found, items.get(document.id)) for document in self.documents]


class _Feature(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_.]*$")


class Bm25(_Feature):
    """BM25 of title and text."""

    kind: Literal["bm25"]

    def column(self, candidates: Candidates) -> list[float]:
        """Give L numbers."""
        return [bm25(candidates.query_terms, terms, candidates.statistics) for terms in candidates.terms("content")]


class Overlap(_Feature):
    """How many different terms of the query a part has; missing where the document has no such part."""

    kind: Literal["overlap"]
    part: Part

    def column(self, candidates: Candidates) -> list[float]:
        """Give L numbers."""
        wanted = candidates.distinct_terms
        return [float(len(wanted.intersection(terms))) if terms else NAN for terms in candidates.terms(self.part)]


class Coverage(_Feature):
    """Share of the query's different terms that a part has, in [0, 1]; missing where either has no terms."""

    kind: Literal["coverage"]
    part: Part = "content"

    def column(self, candidates: Candidates) -> list[float]:
        """Give L numbers."""
        wanted = candidates.distinct_terms
        return [
            len(wanted.intersection(terms)) / len(wanted) if terms and wanted else NAN
            for terms in candidates.terms(self.part)
        ]


class Proximity(_Feature):
    """Matched terms over the length of the smallest window that has them, in (0, 1].

    1 where they stand side by side; missing where fewer than two terms match.
    """

    kind: Literal["proximity"]

    def column(self, candidates: Candidates) -> list[float]:
        """Give L numbers."""
        windows = (smallest_window(candidates.distinct_terms, terms) for terms in candidates.terms("content"))
        return [matched / length if matched > 1 else NAN for matched, length in windows]


class Length(_Feature):
    """Terms of a part, or of the query."""

    kind: Literal["length"]
    part: Part | Literal["query"]

    def column(self, candidates: Candidates) -> list[float]:
        """Give L numbers."""
        if self.part == "query":
            return [float(len(candidates.query_terms))] * len(candidates.documents)
        return [float(len(terms)) for terms in candidates.terms(self.part)]


class Rank(_Feature):
    """Rank in an earlier ranking, from 1; missing where there is no such ranking or it lacks the document.

    `of` is ``first`` (the first stage), ``incoming`` (as this stage was given it) or a kind of score, which stands for
    the latest ranking with such scores: `lexical` for BM25, `similarity` for dense retrieval, also of those fused.
    """

    kind: Literal["rank"]
    of: Source

    def column(self, candidates: Candidates) -> list[float]:
        """Give L numbers."""
        return [float(item.rank) if item is not None else NAN for _, item in candidates.places(self.of)]


class Score(_Feature):
    """Score in an earlier ranking, chosen as for `Rank`; missing too where that ranking gave an order and no scores."""

    kind: Literal["score"]
    of: Source

    def column(self, candidates: Candidates) -> list[float]:
        """Give L numbers."""
        return [
            item.score if item is not None and ranking.score_kind is not ScoreKind.RANK else NAN
            for ranking, item in candidates.places(self.of)
        ]


class Cosine(_Feature):
    """Cosine of query and document by an encoder of the stage's own; missing where it has none."""

    kind: Literal["cosine"]

    def column(self, candidates: Candidates) -> list[float]:
        """Give L numbers."""
        if candidates.similarity is None or not candidates.documents:
            return [NAN] * len(candidates.documents)
        cosines: list[float] = candidates.similarity(candidates.ranking.query, candidates.documents).tolist()
        return cosines


class Caller(_Feature):
    """A number the caller sent with the document, or stored with it, under `key` or the feature's own name."""

    kind: Literal["caller"]
    key: str | None = None

    def column(self, candidates: Candidates) -> list[float]:
        """Give L numbers."""
        return [float(document.features.get(self.key or self.name, NAN)) for document in candidates.documents]


class Freshness(_Feature):
    """0.5 ** (age / half-life) by a date of the metadata: 1 for today's, 0.5 after `half_life_days`.

    The date is ISO 8601 (UTC if it has no time zone) or seconds since 1970; missing where there is none.
    """

    kind: Literal["freshness"]
    key: str
    half_life_days: float = Field(gt=0)

    def column(self, candidates: Candidates) -> list[float]:
        """Give L numbers."""
        return [self._freshness(document.metadata.get(self.key), candidates.now) for document in candidates.documents]

    def _freshness(self, value: object, now: datetime) -> float:
        moment = _moment(value)
        if moment is None:
            return NAN
        age_days = max((now - moment).total_seconds(), 0.0) / SECONDS_PER_DAY
        return float(0.5 ** (age_days / self.half_life_days))


FeatureSpec = Annotated[
    Bm25 | Overlap | Coverage | Proximity | Length | Rank | Score | Cosine | Caller | Freshness,
    Field(discriminator="kind"),
]


def _moment(value: object) -> datetime | None:
    """Read a date as people write them into metadata; None for what is not one."""
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            value = datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return datetime(value.year, value.month, value.day, tzinfo=UTC) if isinstance(value, date) else None
