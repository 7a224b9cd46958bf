"""Words that a query and a document share: terms, BM25, and how close together they stand."""

from __future__ import annotations

import json
import math
import re
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import Stemmer

from rankers.errors import ConfigError
from rankers.types import Document

Part: TypeAlias = Literal["title", "text", "content"]
"""Of a document; the content is title and text."""
PARTS: tuple[Part, ...] = ("title", "text", "content")

_WORD = re.compile(r"\w+")
K1, B = 1.2, 0.75
"""Parameters of BM25 where none are given: Lucene's."""


class Splitter:
    """Turns text into terms, in order: lower-case words, stemmed if there is a stemmer. Safe to call from threads.

    Parameters
    ----------
    stemmer
        A Snowball stemmer such as ``english``; None keeps words as they are.

    Raises
    ------
    ConfigError
        If there is no such stemmer; the message lists them.
    """

    def __init__(self, stemmer: str | None) -> None:
        if stemmer is not None and stemmer not in Stemmer.algorithms():
            raise ConfigError(f"no stemmer {stemmer!r}; there are {', '.join(Stemmer.algorithms())}")
        self._stem = Stemmer.Stemmer(stemmer) if stemmer is not None else None
        self._lock = threading.Lock()  # a Snowball stemmer has a cache and a buffer that two threads must not share

    def terms(self, text: str) -> list[str]:
        """Terms of a text, in order, with repetitions: ``Red foxes`` gives ``red`` and ``fox``."""
        words = _WORD.findall(text.lower())
        if self._stem is None:
            return words
        with self._lock:
            stemmed: list[str] = self._stem.stemWords(words)
        return stemmed


@cache
def splitter(stemmer: str | None) -> Splitter:
    """Give the one splitter of a language, so that its cache of stems is shared."""
    return Splitter(stemmer)


@dataclass(frozen=True, slots=True)
class CollectionStatistics:
    """What BM25 has to know of a collection: documents in it, their mean length in terms, and documents per term."""

    documents: int
    mean_terms: float
    frequencies: Mapping[str, int]

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]]) -> CollectionStatistics:
        """Count the terms of documents, each given as its terms."""
        documents, total = 0, 0
        frequencies: Counter[str] = Counter()
        for terms in texts:
            documents += 1
            total += len(terms)
            frequencies.update(set(terms))
        return cls(documents, total / max(documents, 1), frequencies)

    def idf(self, term: str) -> float:
        """Weight of a term: ln(1 + (N - df + 0.5) / (df + 0.5))."""
        frequency = self.frequencies.get(term, 0)
        return math.log1p((self.documents - frequency + 0.5) / (frequency + 0.5))


def count_collection(documents: Iterable[Document], stemmer: str | None) -> dict[Part, CollectionStatistics]:
    """Count the terms of a collection, part by part.

    Parameters
    ----------
    documents
        Read as a stream; a part that a document does not have is not counted for it.
    stemmer
        Of the feature set that is to use them.

    Returns
    -------
    dict
        Statistics of each part.
    """
    split = splitter(stemmer)
    counts: dict[Part, tuple[int, int, Counter[str]]] = {part: (0, 0, Counter()) for part in PARTS}
    for document in documents:
        title, text = split.terms(document.title), split.terms(document.text)
        for part, terms in zip(PARTS, (title, text, title + text), strict=True):
            if terms:
                many, total, frequencies = counts[part]
                frequencies.update(set(terms))
                counts[part] = (many + 1, total + len(terms), frequencies)
    return {
        part: CollectionStatistics(many, total / max(many, 1), frequencies)
        for part, (many, total, frequencies) in counts.items()
    }


def save_statistics(statistics: Mapping[Part, CollectionStatistics], path: Path, *, stemmer: str | None) -> None:
    """Write statistics as JSON, with the stemmer they were counted with."""
    parts = {
        part: {"documents": one.documents, "mean_terms": one.mean_terms, "frequencies": dict(one.frequencies)}
        for part, one in statistics.items()
    }
    content = {"stemmer": stemmer, "parts": parts}
    path.write_text(json.dumps(content, sort_keys=True) + "\n", encoding="utf-8")


def load_statistics(path: Path, *, stemmer: str | None) -> dict[Part, CollectionStatistics]:
    """Read what `save_statistics` wrote.

    Parameters
    ----------
    path
        The file.
    stemmer
        Of the feature set that uses them.

    Returns
    -------
    dict
        Statistics of each part.

    Raises
    ------
    ConfigError
        If it cannot be read, or its terms were made with another stemmer.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        counted_with = content["stemmer"]
        found = {part: CollectionStatistics(**content["parts"][part]) for part in PARTS}
    except FileNotFoundError as error:
        raise ConfigError(f"no statistics at {path}; make them with: shortlist index statistics {path}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is no file of statistics ({error!r}); make one with: shortlist index statistics {path}"
        ) from error
    if counted_with != stemmer:
        raise ConfigError(
            f"the terms of {path} were made with stemmer {counted_with!r}, the feature set has {stemmer!r}; count again"
        )
    return found


def bm25(
    query: Collection[str],
    document: Sequence[str],
    statistics: CollectionStatistics,
    *,
    k1: float = K1,
    b: float = B,
) -> float:
    """Score a document: the sum over query terms of idf * tf / (tf + k1 * (1 - b + b * length / mean length)).

    As Lucene does; see `index.bm25` for the source.

    Parameters
    ----------
    query
        Terms of the query; one that occurs twice counts twice.
    document
        Terms of the document.
    statistics
        Of the collection, terms split the same way.
    k1
        How slowly repetition of a term saturates, at least 0.
    b
        How much long documents are held back, 0 to 1.

    Returns
    -------
    float
        At least 0.

    Examples
    --------
    >>> texts = [["red", "fox"], ["red", "dog"]]
    >>> round(bm25(["fox"], texts[0], CollectionStatistics.of(texts)), 4)  # ln(1 + 1.5 / 1.5) * 1 / (1 + 1.2)
    0.3151
    """
    counts = Counter(document)
    norm = k1 * (1 - b + b * len(document) / (statistics.mean_terms or 1.0))
    return sum(statistics.idf(term) * counts[term] / (counts[term] + norm) for term in query if counts[term])


def smallest_window(wanted: Collection[str], terms: Sequence[str]) -> tuple[int, int]:
    """Find the shortest stretch of a text that has every wanted term that occurs in it at all.

    MinCover: Tao, Zhai, "An Exploration of Proximity Measures in Information Retrieval", SIGIR 2007, section 3.1.

    Parameters
    ----------
    wanted
        Terms of the query.
    terms
        Terms of the text, in order.

    Returns
    -------
    tuple of int
        How many different wanted terms occur, and the length of the window; both 0 if none does.

    Examples
    --------
    >>> smallest_window({"a", "b", "z"}, ["a", "x", "x", "b", "a"])
    (2, 2)
    """
    wanted = frozenset(wanted)
    hits = [(at, term) for at, term in enumerate(terms) if term in wanted]
    needed = len({term for _, term in hits})
    last_seen: dict[str, int] = {}
    shortest = 0
    for at, term in hits:
        # Kept in order of their last occurrence, so the first is where the window through `at` begins.
        last_seen.pop(term, None)
        last_seen[term] = at
        if len(last_seen) == needed:
            length = at - next(iter(last_seen.values())) + 1
            shortest = min(shortest or length, length)
    return needed, shortest
