"""What a feature can be made of. Each kind is an entry of a feature set's YAML file, and gives columns of numbers.

NaN says that there is no such number; nothing is ever filled in. Letters in shapes: L documents of a list, W columns of
a kind (1 unless it says otherwise), D dimensions of an encoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Annotated, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from rankers.errors import ConfigError
from rankers.ltr.terms import K1, B, CollectionStatistics, Part, Splitter, bm25, smallest_window
from rankers.types import Document, Query, Ranking, ScoredDocument, ScoreKind

Encode: TypeAlias = Callable[[Query, Sequence[Document]], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
"""Vectors of unit length of a query, float32 [D], and of L documents, float32 [L, D]."""
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
        Of each part of the collection; of the candidates themselves if not given.
    now
        With a time zone; what freshness is measured from.
    encode
        Gives vectors; what is made of them is missing everywhere if not given.
    """

    def __init__(
        self,
        ranking: Ranking,
        splitter: Splitter,
        *,
        statistics: Mapping[Part, CollectionStatistics] | None,
        now: datetime,
        encode: Encode | None,
    ) -> None:
        self.ranking = ranking
        self.documents = ranking.documents
        self.now = now
        self._encode = encode
        self.query_terms = splitter.terms(ranking.query.text)
        self.distinct_terms = frozenset(self.query_terms)
        self._titles = [splitter.terms(document.title) for document in self.documents]
        self._texts = [splitter.terms(document.text) for document in self.documents]
        self._statistics: dict[Part, CollectionStatistics] = dict(statistics or {})

    def terms(self, part: Part) -> list[list[str]]:
        """Terms of a part of every document."""
        if part == "content":
            return self._contents
        return self._titles if part == "title" else self._texts

    def statistics(self, part: Part) -> CollectionStatistics:
        """Of a part of the collection or, where nothing is known of it, of the candidates."""
        if part not in self._statistics:
            self._statistics[part] = CollectionStatistics.of(self.terms(part))
        return self._statistics[part]

    @cached_property
    def vectors(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
        """Of the query, float32 [D], and of its documents, float32 [L, D]; None where there are none."""
        if self._encode is None or not self.documents:
            return None
        return self._encode(self.ranking.query, self.documents)

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

    @property
    def names(self) -> tuple[str, ...]:
        """Of its columns, W."""
        return (self.name,)


class Bm25(_Feature):
    """BM25 of a part; `k1` is how slowly repetition saturates, `b` how much long parts are held back."""

    kind: Literal["bm25"]
    part: Part = "content"
    k1: float = Field(K1, ge=0)
    b: float = Field(B, ge=0, le=1)

    def column(self, candidates: Candidates) -> list[float]:
        """Give L numbers."""
        query, statistics = candidates.query_terms, candidates.statistics(self.part)
        return [bm25(query, terms, statistics, k1=self.k1, b=self.b) for terms in candidates.terms(self.part)]


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
    """Cosine of query and document by the encoder of the feature set; missing where it names none."""

    kind: Literal["cosine"]

    def column(self, candidates: Candidates) -> npt.NDArray[np.float32]:
        """Give L numbers."""
        if candidates.vectors is None:
            return np.full(len(candidates.documents), NAN, dtype=np.float32)
        query, documents = candidates.vectors
        return np.asarray(documents @ query)


class PairEncoding(_Feature):
    """What an encoder that stays as it is makes of query and document: `groups` sums of products, and of differences.

    With q and d their vectors and G_1 ... G_g dimensions that follow one another, column i is the sum over G_i of
    q_j d_j, column g + i that of abs(q_j - d_j): what a linear scorer needs to weigh directions of the encoder's space.
    The sums of products add up to the cosine. With as many groups as there are dimensions nothing is summed. Missing
    where the feature set names no encoder.
    """

    kind: Literal["pair_encoding"]
    groups: int = Field(64, ge=1)

    @property
    def names(self) -> tuple[str, ...]:
        """Of its columns, 2 g of them."""
        return tuple(f"{self.name}.{what}{group}" for what in ("product", "difference") for group in range(self.groups))

    def column(self, candidates: Candidates) -> npt.NDArray[np.float32]:
        """Give L rows of 2 g numbers."""
        if candidates.vectors is None:
            return np.full((len(candidates.documents), 2 * self.groups), NAN, dtype=np.float32)
        query, documents = candidates.vectors
        if self.groups > len(query):
            raise ConfigError(
                f"feature {self.name!r} has {self.groups} groups, the encoder's vectors have {len(query)} numbers; "
                "use at most as many groups"
            )
        starts = np.arange(self.groups) * len(query) // self.groups
        return np.concatenate(
            [np.add.reduceat(values, starts, axis=1) for values in (documents * query, np.abs(documents - query))],
            axis=1,
        )


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
    Bm25 | Overlap | Coverage | Proximity | Length | Rank | Score | Cosine | PairEncoding | Caller | Freshness,
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
