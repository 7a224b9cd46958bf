"""Texts that are the same but for little.

Two texts are near when the Jaccard similarity of their sets of shingles, |A & B| / |A | B|, reaches a threshold, and
a long one is also near what contains it, by |A & B| / |A| (Broder, "On the resemblance and containment of documents",
SEQUENCES 1997). Both are exact: shingles are looked up in an inverted index, and nothing is hashed into sketches.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from index.analysis import Analyzer

_WORD = re.compile(r"\w+")

Shingles = Callable[[str], frozenset[str]]
"""What of a text is compared; sets are equal where texts are the same after normalisation."""


def word_trigrams(text: str) -> frozenset[str]:
    """Give every three words in a row of a text; its words as one shingle, where they are fewer.

    Parameters
    ----------
    text
        Any; case, punctuation, white space and compatibility forms of Unicode make no difference.

    Returns
    -------
    frozenset of str
        Empty for a text without words.

    Examples
    --------
    >>> sorted(word_trigrams("A cat, a dog!"))
    ['a cat a', 'cat a dog']
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    starts = range(max(len(words) - 2, 1)) if words else ()
    return frozenset(" ".join(words[start : start + 3]) for start in starts)


def content_words(text: str) -> frozenset[str]:
    """Give the stems of a query's words, without stop words; the words themselves, where there are only such.

    Parameters
    ----------
    text
        English.

    Returns
    -------
    frozenset of str
        Empty for a text without words.

    Examples
    --------
    >>> content_words("How long is the life cycle of a flea?") == content_words("life cycles of fleas, how long")
    True
    """
    return frozenset(_ANALYZER.terms(text) or _WORD.findall(text.casefold()))


_ANALYZER = Analyzer("english")


class NearTexts:
    """Finds, among texts it was given, the nearest to another one.

    Parameters
    ----------
    texts
        Keys and texts.
    shingles
        `word_trigrams` for passages, `content_words` for queries.
    threshold
        Least similarity that counts, above 0 and at most 1.
    contained_from
        A text of at least so many shingles is compared by the share of them that the other one has, which is never
        less than the Jaccard similarity; by default none is.
    """

    def __init__(
        self,
        texts: Iterable[tuple[str, str]],
        *,
        shingles: Shingles,
        threshold: float,
        contained_from: float = math.inf,
    ) -> None:
        self._shingles = shingles
        self._threshold = threshold
        self._contained_from = contained_from
        self._keys: list[str] = []
        self._sizes: list[int] = []
        self._places: defaultdict[str, list[int]] = defaultdict(list)
        for key, text in texts:
            found = shingles(text)
            for shingle in found:
                self._places[shingle].append(len(self._keys))
            self._keys.append(key)
            self._sizes.append(len(found))

    def nearest(self, text: str) -> tuple[str, float] | None:
        """Find the nearest text.

        Parameters
        ----------
        text
            To compare with all.

        Returns
        -------
        tuple or None
            Key and similarity; None where none reaches the threshold. Of equally near ones, the first given.
        """
        own = self._shingles(text)
        shared: Counter[int] = Counter()
        for shingle in own:
            shared.update(self._places.get(shingle, ()))
        best, similarity = -1, 0.0
        for place, count in shared.items():
            others = self._sizes[place] - count if len(own) < self._contained_from else 0
            value = count / (len(own) + others)
            if (value, -place) > (similarity, -best):
                best, similarity = place, value
        return (self._keys[best], similarity) if similarity >= self._threshold else None
