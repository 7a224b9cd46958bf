"""What happens to queries, documents and their order without anybody meaning harm; each from a seed alone."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from rankers.errors import InvalidInputError
from rankers.types import Document, Query, Ranking

Orders = Mapping[str, Sequence[str]]
"""Query id -> document ids, best first."""
MIN_TYPO_LETTERS = 4
"""Shorter words carry little of a query's meaning."""
SIMILAR_WORDS = 10
"""A word is replaced by one of this many on either side of it in the order of document frequency."""

_WORD = re.compile(r"\w+")
_LETTERS = re.compile("[a-zA-Z]+")
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS = {
    letter: "".join(row[max(column - 1, 0) : column] + row[column + 1 : column + 2])
    for row in _KEYBOARD
    for column, letter in enumerate(row)
}


def generator(seed: int, key: str) -> np.random.Generator:
    """Random numbers for one query or document: the same for a seed and an id, whatever else is drawn."""
    return np.random.default_rng([seed, zlib.crc32(key.encode(errors="surrogatepass"))])


def rebuilt(
    ranking: Ranking, *, query: Query | None = None, change: Callable[[Document], Document] | None = None
) -> Ranking:
    """Put another query or other documents in a ranking.

    Parameters
    ----------
    ranking
        As it was found.
    query
        What to ask instead.
    change
        Makes another document of each.

    Returns
    -------
    Ranking
        The same places, scores and kind of score, and nothing before it.
    """
    documents = ranking.documents if change is None else [change(document) for document in ranking.documents]
    return Ranking.from_scores(query or ranking.query, documents, ranking.scores, score_kind=ranking.score_kind)


def shuffled(ranking: Ranking, depth: int, *, seed: int) -> Ranking:
    """Put the first `depth` documents in random order; the rest stay below.

    Parameters
    ----------
    ranking
        As it was found.
    depth
        How many change place.
    seed
        The same seed gives the same order for the same query.

    Returns
    -------
    Ranking
        `ScoreKind.RANK`: the scores belonged to the other order.
    """
    order = generator(seed, ranking.query.id).permutation(min(depth, len(ranking)))
    head = [ranking.documents[i] for i in order]
    return Ranking.from_order(ranking.query, [*head, *ranking.documents[depth:]])


def turned_round(ranking: Ranking, depth: int) -> Ranking:
    """Put the first `depth` documents in reverse order; the rest stay below.

    Parameters
    ----------
    ranking
        As it was found.
    depth
        How many change place.

    Returns
    -------
    Ranking
        `ScoreKind.RANK`.

    Examples
    --------
    >>> documents = [Document(name, "x") for name in "abcd"]
    >>> turned_round(Ranking.from_order(Query("q", "?"), documents), 3).ids
    ('c', 'b', 'a', 'd')
    """
    return Ranking.from_order(ranking.query, [*ranking.documents[:depth][::-1], *ranking.documents[depth:]])


def with_typo(query: Query, *, seed: int) -> Query:
    """Mistype one word: two neighbouring letters swapped, one dropped, one doubled, or the key beside it hit.

    After Zhuang and Zuccon, "Dealing with Typos for BERT-based Passage Retrieval and Ranking" (EMNLP 2021).

    Parameters
    ----------
    query
        What was meant.
    seed
        The same seed gives the same typo for the same query.

    Returns
    -------
    Query
        The same id. The text is unchanged where no word has `MIN_TYPO_LETTERS` letters of the Latin alphabet.

    Examples
    --------
    >>> with_typo(Query("q1", "deep sea fishing"), seed=0).text
    'edep sea fishing'
    """
    words = [word for word in _LETTERS.finditer(query.text) if len(word[0]) >= MIN_TYPO_LETTERS]
    if not words:
        return query
    random = generator(seed, query.id)
    word = words[random.integers(len(words))]
    mistyped = _mistyped(word[0], random)
    return Query(query.id, query.text[: word.start()] + mistyped + query.text[word.end() :])


def _mistyped(word: str, random: np.random.Generator) -> str:
    kind = random.integers(4)
    place = int(random.integers(len(word)))
    letter = word[place]
    if kind == 0:
        # Equal neighbours swapped would be no typo.
        swappable = [i for i in range(len(word) - 1) if word[i] != word[i + 1]]
        if swappable:
            i = swappable[random.integers(len(swappable))]
            return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    if kind == 1:
        return word[:place] + word[place + 1 :]
    if kind == 2:
        beside = _NEIGHBOURS[letter.lower()]
        hit = beside[random.integers(len(beside))]
        return word[:place] + (hit.upper() if letter.isupper() else hit) + word[place + 1 :]
    return word[:place] + letter + word[place:]


class WordSubstitution:
    """Replaces words by others that about as many documents of the collection have.

    Parameters
    ----------
    documents
        The collection, read once.
    rate
        Share of the words to replace, above 0 and at most 1; each document loses the nearest whole number of them.

    Raises
    ------
    InvalidInputError
        If the rate is out of range, or the collection has fewer than two different words.
    """

    def __init__(self, documents: Iterable[Document], *, rate: float) -> None:
        if not 0 < rate <= 1:
            raise InvalidInputError(f"rate is {rate}, must be above 0 and at most 1", field="rate")
        frequencies: Counter[str] = Counter(
            word for document in documents for word in set(_WORD.findall(document.content.lower()))
        )
        if len(frequencies) < 2:
            raise InvalidInputError(
                f"the collection has {len(frequencies)} different words; substitution needs at least 2"
            )
        # Equally frequent words in no order of their own: alphabetical neighbours often mean the same.
        self._words = sorted(frequencies, key=lambda word: (frequencies[word], zlib.crc32(word.encode()), word))
        self._places = {word: place for place, word in enumerate(self._words)}
        self._rate = rate

    def __call__(self, document: Document, *, seed: int) -> Document:
        """Replace words of the title and the text, the same ones for the same seed and document id."""
        random = generator(seed, document.id)
        return replace(
            document, title=self._substitute(document.title, random), text=self._substitute(document.text, random)
        )

    def _substitute(self, text: str, random: np.random.Generator) -> str:
        words = [word for word in _WORD.finditer(text) if word[0].lower() in self._places]
        chosen = set(random.permutation(len(words))[: round(self._rate * len(words))].tolist())
        parts, end = [], 0
        for number, word in enumerate(words):
            if number in chosen:
                other = self._similar(word[0].lower(), random)
                parts += [text[end : word.start()], other.capitalize() if word[0][0].isupper() else other]
                end = word.end()
        return "".join([*parts, text[end:]])

    def _similar(self, word: str, random: np.random.Generator) -> str:
        place = self._places[word]
        low, high = max(place - SIMILAR_WORDS, 0), min(place + SIMILAR_WORDS, len(self._words) - 1)
        drawn = int(random.integers(low, high))  # the word itself is stepped over
        return self._words[drawn + 1 if drawn >= place else drawn]


def rewritten(document: Document, rewrites: Mapping[str, Document]) -> Document:
    """Give the rewritten document of the same id, or the document itself where there is none."""
    other = rewrites.get(document.id)
    return document if other is None else replace(document, title=other.title, text=other.text)


REWRITTEN_SUFFIX = "#rewritten"


def both_offered(ranking: Ranking, rewrites: Mapping[str, Document], depth: int, *, rewritten_first: bool) -> Ranking:
    """Offer documents beside their rewritten forms, so many that a ranker of `depth` candidates sees both.

    Parameters
    ----------
    ranking
        As it was found.
    rewrites
        By document id.
    depth
        Candidates the ranker sees: pairs are half as many, and at least one.
    rewritten_first
        Which of each two stands first. A ranker is to be asked both ways, so that its liking for a place cancels.

    Returns
    -------
    Ranking
        Pairs only; the rewritten document has `REWRITTEN_SUFFIX` behind its id.
    """
    pairs = [document for document in ranking.documents if document.id in rewrites][: max(depth // 2, 1)]
    offered = []
    for document in pairs:
        other = replace(rewritten(document, rewrites), id=document.id + REWRITTEN_SUFFIX)
        offered += [other, document] if rewritten_first else [document, other]
    return Ranking.from_order(ranking.query, offered)


def shares_above(repeats: Sequence[Orders]) -> dict[str, float]:
    """Share of pairs whose rewritten document stands above its original.

    Parameters
    ----------
    repeats
        What became of `both_offered`, one for each way round.

    Returns
    -------
    dict
        Query id -> mean over the repeats; queries without a pair are left out.

    Examples
    --------
    >>> shares_above([{"q": ["a", "a#rewritten"]}, {"q": ["a#rewritten", "a"]}])
    {'q': 0.5}
    """
    above: dict[str, list[bool]] = {}
    for orders in repeats:
        for query_id, order in orders.items():
            places = {document_id: place for place, document_id in enumerate(order)}
            for document_id, place in places.items():
                if document_id + REWRITTEN_SUFFIX in places:
                    above.setdefault(query_id, []).append(places[document_id + REWRITTEN_SUFFIX] < place)
    return {query_id: sum(values) / len(values) for query_id, values in above.items()}
