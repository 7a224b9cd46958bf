"""Excerpts: of a long document a model reads the sentences that share most with the query.

Li, Popa, Chagnon, Cinar, Gaussier, "The Power of Selecting Key Blocks with Local Pre-ranking for Long Document
Information Retrieval", ACM TOIS 2023 (arXiv 2111.09852): blocks ordered by BM25, the best of them in the order of the
text. Blocks are sentences here, and their collection is that of the list.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace

from rankers.errors import ConfigError
from rankers.ltr.terms import CollectionStatistics, bm25, splitter
from rankers.protocols import Ranker, joins_of
from rankers.sentences import split_sentences
from rankers.types import Document, Query, Ranking, Reading

STEMMER = "english"


class ExcerptRanker:
    """Shows a ranker excerpts, and gives back the documents whole; a `rankers.protocols.Ranker`.

    A model that reads the first words of a document misses what is said further down; one that reads all of it takes
    longer. Excerpts are made for every ranking anew and cost microseconds a sentence.

    Parameters
    ----------
    ranker
        Any that reads the text it is given.
    words
        Of a document that is longer, at most so many are shown, at least 1.

    Raises
    ------
    ConfigError
        If `words` is below 1.
    """

    def __init__(self, ranker: Ranker, *, words: int) -> None:
        if words < 1:
            raise ConfigError(f"excerpt_words is {words}, must be at least 1")
        self._ranker = ranker
        self._words = words

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        """Rank by excerpts.

        Parameters
        ----------
        rankings
            Any number, each for a query of its own.

        Returns
        -------
        list of Ranking
            With the scores of the ranker. The tokens that a document has in `readings` are estimated from the share of
            its words that was shown.
        """
        shown = [self._shown(ranking) for ranking in rankings]
        return [_whole(ranked, ranking) for ranked, ranking in zip(self._ranker.rank(shown), rankings, strict=True)]

    def cost_tokens(self, ranking: Ranking) -> int:
        """Estimate tokens: those of the ranker for as many words, without looking for the best of them."""
        first = {
            document.id: replace(
                document, title="", text=" ".join(document.content.split(None, self._words)[: self._words])
            )
            for document in ranking.documents
        }
        return self._ranker.cost_tokens(ranking.with_documents(first))

    @property
    def joins(self) -> Hashable | None:
        """What the ranker's work is merged with."""
        return joins_of(self._ranker)

    def _shown(self, ranking: Ranking) -> Ranking:
        excerpts = excerpt(ranking.query, ranking.documents, words=self._words)
        return ranking.with_documents({document.id: document for document in excerpts})


def excerpt(query: Query, documents: Sequence[Document], *, words: int) -> list[Document]:
    """Cut documents to the sentences that share most with a query.

    Sentences are taken by BM25 against the query until `words` are full, the earlier one where two are equal, and shown
    in the order of the text; what does not fit is cut. The title stays as long as it leaves half of the words to the
    text, or all that the text needs. Words are what spaces separate.

    Parameters
    ----------
    query
        Whose words count, stemmed as English.
    documents
        Candidates of the query, any number; how rare a word is, is counted over their sentences.
    words
        Most words of title and text together, at least 1.

    Returns
    -------
    list of Document
        In the order given; those that are short enough are the same objects.

    Examples
    --------
    >>> long = Document("d", "It rained all day. Nobody knows why. Foxes hunt at night.")
    >>> excerpt(Query("q", "when do foxes hunt"), [long], words=8)[0].text
    'It rained all day. Foxes hunt at night.'
    """
    split = splitter(STEMMER)
    wanted = dict.fromkeys(split.terms(query.text))
    blocks = [_blocks(document.text, words) for document in documents]
    terms = [[split.terms(block) for block in own] for own in blocks]
    statistics = CollectionStatistics.of(term for own in terms for term in own)
    shown = []
    for document, own, own_terms in zip(documents, blocks, terms, strict=True):
        title = document.title.split()
        length = sum(len(block.split()) for block in own)
        if len(title) + length <= words:
            shown.append(document)
            continue
        kept_title = title[: max(words // 2, words - length)]
        scores = [bm25(wanted, term, statistics) for term in own_terms]
        text = _fill(own, scores, words - len(kept_title))
        shown.append(replace(document, title=" ".join(kept_title), text=text))
    return shown


def _blocks(text: str, words: int) -> list[str]:
    """Sentences; one that is longer than half of the words that are shown is cut into equal parts."""
    longest = max(words // 2, 1)
    blocks: list[str] = []
    for start, end in split_sentences(text):
        own = text[start:end].split()
        length = math.ceil(len(own) / math.ceil(len(own) / longest))
        blocks.extend(" ".join(own[i : i + length]) for i in range(0, len(own), length))
    return blocks


def _fill(blocks: Sequence[str], scores: Sequence[float], room: int) -> str:
    kept: dict[int, str] = {}
    for i in sorted(range(len(blocks)), key=lambda i: -scores[i]):
        own = blocks[i].split()[:room]
        if not own:
            break
        kept[i] = " ".join(own)
        room -= len(own)
    return " ".join(kept[i] for i in sorted(kept))


def _whole(ranked: Ranking, incoming: Ranking) -> Ranking:
    """Put the documents back, and say of those that were cut that they were."""
    documents = {document.id: document for document in incoming.documents}
    readings = dict(ranked.evidence.readings)
    for item in ranked.items:
        reading, whole = readings.get(item.document.id), documents[item.document.id]
        if reading is not None and item.document is not whole:
            share = len(item.document.content.split()) / len(whole.content.split())
            readings[whole.id] = Reading(reading.tokens_used, round(reading.tokens_total / share))
    restored = ranked.with_documents(documents)
    return replace(restored, evidence=replace(ranked.evidence, readings=readings))
