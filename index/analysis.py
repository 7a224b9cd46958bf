"""Text to index terms: words, without stop words, stemmed."""

from __future__ import annotations

import re
import threading

import Stemmer
from bm25s import stopwords

from rankers.errors import InvalidInputError

_WORD = re.compile(r"\w+")

STOP_WORDS: dict[str, frozenset[str]] = {
    # The longer of the two English lists, which has the words of questions and the halves of "don't".
    "english": frozenset(stopwords.STOPWORDS_EN_PLUS),
    "danish": frozenset(stopwords.STOPWORDS_DANISH),
    "dutch": frozenset(stopwords.STOPWORDS_DUTCH),
    "french": frozenset(stopwords.STOPWORDS_FRENCH),
    "german": frozenset(stopwords.STOPWORDS_GERMAN),
    "italian": frozenset(stopwords.STOPWORDS_ITALIAN),
    "norwegian": frozenset(stopwords.STOPWORDS_NORWEGIAN),
    "portuguese": frozenset(stopwords.STOPWORDS_PORTUGUESE),
    "russian": frozenset(stopwords.STOPWORDS_RUSSIAN),
    "spanish": frozenset(stopwords.STOPWORDS_SPANISH),
    "swedish": frozenset(stopwords.STOPWORDS_SWEDISH),
    "turkish": frozenset(stopwords.STOPWORDS_TURKISH),
}
"""By name of the Snowball stemmer; languages not here are indexed with all their words."""


class Analyzer:
    """Turns text into terms, the same way for documents and queries. Safe to call from several threads.

    Parameters
    ----------
    stemmer
        A Snowball stemmer such as ``english`` or ``german``; None keeps words as they are, stop words too.

    Raises
    ------
    InvalidInputError
        If there is no such stemmer; the message lists them.
    """

    def __init__(self, stemmer: str | None) -> None:
        if stemmer is not None and stemmer not in Stemmer.algorithms():
            raise InvalidInputError(
                f"no stemmer {stemmer!r}; there are {', '.join(Stemmer.algorithms())}", field="stemmer"
            )
        self.stemmer = stemmer
        self._stop_words = STOP_WORDS.get(stemmer, frozenset()) if stemmer is not None else frozenset()
        self._stem = Stemmer.Stemmer(stemmer) if stemmer is not None else None
        self._lock = threading.Lock()  # a Snowball stemmer has a cache and a buffer that two threads must not share

    def terms(self, text: str) -> list[str]:
        """Terms of a text, in order, with repetitions."""
        words = [word for word in _WORD.findall(text.lower()) if word not in self._stop_words]
        if self._stem is None:
            return words
        with self._lock:
            stemmed: list[str] = self._stem.stemWords(words)
        return stemmed
