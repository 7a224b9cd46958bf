"""Small values that tests of this package share."""

from __future__ import annotations

import string

from hypothesis import strategies as st

from rankers.types import Document, Query, Ranking, ScoreKind

QUERY = Query("q1", "what is asked")

finite_scores = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False)
words = st.text(string.ascii_letters, min_size=1, max_size=8)


def documents(count: int, *, prefix: str = "d") -> list[Document]:
    """Give `count` documents with ids d0, d1, ... and different texts."""
    return [Document(f"{prefix}{i}", f"text number {i}") for i in range(count)]


def ordered(*document_ids: str, query: Query = QUERY) -> Ranking:
    """Rank documents of these ids in this order."""
    return Ranking.from_order(query, [Document(i, f"text of {i}") for i in document_ids])


def scored(scores: dict[str, float], *, kind: ScoreKind = ScoreKind.LEXICAL, query: Query = QUERY) -> Ranking:
    """Rank documents of these ids by these scores."""
    return Ranking.from_scores(
        query, [Document(i, f"text of {i}") for i in scores], list(scores.values()), score_kind=kind
    )
