"""Simulated users of `shortlist demo-loop`: what they ask, what they like, where they look, what they click.

Nothing here is known to the learners. They see clicks, and features among which are those that users care about.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from rankers.ltr.features import FeatureSet
from rankers.types import Document, Query, Ranking

EXAMINATION = (0.68, 0.61, 0.48, 0.34, 0.28, 0.20, 0.11, 0.10, 0.08, 0.06)
"""Chance that a place is looked at: Ai et al., "Unbiased Learning to Rank with Unbiased Propensity Estimation", SIGIR
2018, after the eye tracking of Joachims et al., SIGIR 2005."""
NOISE = 0.1
"""Chance of a click on a document that is looked at and not liked at all."""
CODE = "code"
"""Feature of the documents: pieces of code that a passage quotes or shows."""
ENOUGH, STEEPNESS = 2.0, 2.5
"""Utility at which half of the users like a document, and how fast that changes with more of it."""

_CODE = re.compile(r'"[^"]{1,60}"|>>>|^ {4,}\S', re.MULTILINE)
_HEADING = re.compile(r"[A-Z][A-Za-z ,'’-]+")


@dataclass(frozen=True, slots=True)
class Preference:
    """One thing that users care about: utility grows with a feature by up to `weight`, which it reaches at `full`."""

    feature: str
    says: str
    weight: float
    full: float


PREFERENCES = (
    Preference(CODE, "code to look at", 3.0, 10.0),
    Preference("proximity", "words of the query side by side", 1.5, 1.0),
    Preference("title_overlap", "a title that has a word of the query", 1.0, 1.0),
    Preference("text_length", "a long text", -2.0, 150.0),
)


def with_code(document: Document) -> Document:
    """Add the feature `CODE`.

    >>> with_code(Document("with", 'Use "with" to close a file:\\n\\n    with open(path) as file: ...')).features
    {'code': 2.0}
    """
    return replace(document, features={**document.features, CODE: float(len(_CODE.findall(document.text)))})


def headings(documents: Sequence[Document]) -> list[str]:
    """Find queries: the headings of two to five words that passages begin with, each once, by name.

    >>> headings([Document("b", "Slice objects\\n\\nUsed to..."), Document("a", "Note\\n\\nThis is...")])
    ['Slice objects']
    """
    found = set()
    for document in documents:
        first = " ".join(document.text.strip().split("\n\n")[0].split())
        if 2 <= len(first.split()) <= 5 and _HEADING.fullmatch(first):
            found.add(first)
    return sorted(found)


def liking(query: str, documents: Sequence[Document], feature_set: FeatureSet) -> npt.NDArray[np.float64]:
    """Share of the users who like each document: 1 / (1 + exp(-steepness (utility - enough))).

    Parameters
    ----------
    query
        What they asked.
    documents
        L documents, with the feature `CODE`.
    feature_set
        Has the features of `PREFERENCES`.

    Returns
    -------
    array
        float64 [L], in (0, 1): the gains of nDCG here.
    """
    ranking = Ranking.from_order(Query(query, query), documents)
    features = np.nan_to_num(feature_set.extract(ranking, now=datetime.now(UTC)))
    utility = np.zeros(len(documents))
    for preference in PREFERENCES:
        column = features[:, feature_set.names.index(preference.feature)]
        utility += preference.weight * np.minimum(column / preference.full, 1.0)
    return 1.0 / (1.0 + np.exp(-STEEPNESS * (utility - ENOUGH)))


@dataclass(frozen=True, slots=True)
class Audience:
    """Users: queries they ask, queries they do not ask, and what share of them likes which document for which query."""

    asked: tuple[str, ...]
    held_out: tuple[str, ...]
    likes: Mapping[str, Mapping[str, float]]

    @classmethod
    def meet(
        cls, candidates: Mapping[str, Sequence[Document]], feature_set: FeatureSet, *, asked: int, seed: int
    ) -> Audience:
        """Draw the queries, and ask users about everything that can be found for them.

        Parameters
        ----------
        candidates
            By query, with the feature `CODE`.
        feature_set
            Has the features of `PREFERENCES`.
        asked
            Queries that users will ask; at least one is left over.
        seed
            Of the division of the queries.

        Returns
        -------
        Audience
            Which clicks, and knows what a list is worth.
        """
        likes = {}
        for query, documents in candidates.items():
            values = liking(query, documents, feature_set).tolist()
            likes[query] = dict(zip((document.id for document in documents), values, strict=True))
        drawn: list[str] = np.random.default_rng(seed).permutation(sorted(likes)).tolist()
        asked = min(asked, len(drawn) - 1)
        return cls(tuple(drawn[:asked]), tuple(drawn[asked:]), likes)

    def ndcg(self, query: str, document_ids: Sequence[str]) -> float:
        """Measure a list against what users like best of the candidates."""
        likes = self.likes[query]
        return ndcg_at_10([likes[document_id] for document_id in document_ids], list(likes.values()))

    def missed(self, query: str, document_ids: Sequence[str]) -> float:
        """Tell how much better a list could be, where more that is liked counts more."""
        return (1 - self.ndcg(query, document_ids)) * sum(self.likes[query].values())


def clicked_places(liked: Sequence[float], generator: np.random.Generator) -> list[int]:
    """Let one user look at a list and click: P(click) = examination of the place (noise + (1 - noise) liking).

    Parameters
    ----------
    liked
        Liking of what is shown, from the top.
    generator
        Of all draws.

    Returns
    -------
    list of int
        Places from 1; nobody looks further than `EXAMINATION` goes.
    """
    chances = [look * (NOISE + (1 - NOISE) * like) for look, like in zip(EXAMINATION, liked, strict=False)]
    drawn = generator.random(len(chances))
    return [place for place, chance in enumerate(chances, start=1) if drawn[place - 1] < chance]


def ndcg_at_10(shown: Sequence[float], candidates: Sequence[float]) -> float:
    """Normalised discounted cumulative gain of the first ten places, with liking as linear gain.

    Parameters
    ----------
    shown
        Liking of what is shown, from the top.
    candidates
        Liking of everything that could have been shown.

    Returns
    -------
    float
        In [0, 1].

    Examples
    --------
    >>> round(ndcg_at_10([0.0, 1.0], [1.0, 0.0]), 4)  # 1 / log2(3)
    0.6309
    """
    return _dcg(shown) / _dcg(sorted(candidates, reverse=True))


def _dcg(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains[:10], start=1))
