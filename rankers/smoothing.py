"""Ranking by vote over copies with words left out, and how many words of a document may be changed without effect.

Top-K robustness against word substitution: Wu et al., "Certified Robustness to Word Substitution Ranking Attack for
Neural Ranking Models", CIKM 2022 (arXiv 2209.06691). They swap words for synonyms; here words are left out, which
covers any substitution: Levine, Feizi, "Robustness Certificates for Sparse Adversarial Attacks by Randomized Ablation",
AAAI 2020 (arXiv 1911.09272).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rankers.errors import ConfigError, InvalidInputError
from rankers.protocols import Ranker
from rankers.types import Document, Evidence, Ranking, ScoreKind


class SmoothedRanker:
    """Ranks copies with words left out at random, and orders by how often a document comes among the first `top_k`.

    In every copy each document keeps round(keep * n) of its n words, at least 1, chosen anew and in their order; words
    are what spaces separate in title and text. Equal shares are settled by the mean rank, then by the incoming order.

    A certificate needs a `keep` well under 1/2, since one changed word of n is seen in about that share of the copies,
    and hundreds of samples. The default evens out chance and certifies nothing.

    Parameters
    ----------
    ranker
        Any that reads the text it is given; called once for all copies.
    keep
        Share of the words that is kept, above 0, at most 1.
    samples
        Copies of each ranking, at least 1.
    top_k
        Places that count, at least 1.
    seed
        Chooses the words; the same for every ranking, whatever else is ranked with it. Who knows it and writes the
        documents can aim at the copies that will be drawn.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """

    def __init__(self, ranker: Ranker, *, keep: float = 0.8, samples: int = 20, top_k: int = 10, seed: int = 0) -> None:
        if not 0 < keep <= 1:
            raise ConfigError(f"keep is {keep}, must be above 0 and at most 1")
        for name, value, least in (("samples", samples, 1), ("top_k", top_k, 1), ("seed", seed, 0)):
            if value < least:
                raise ConfigError(f"{name} is {value}, must be at least {least}")
        self._ranker = ranker
        self._keep = keep
        self._samples = samples
        self._top_k = top_k
        self._seed = seed

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        """Rank all copies in one call and count.

        Parameters
        ----------
        rankings
            Any number, each for a query of its own.

        Returns
        -------
        list of Ranking
            `ScoreKind.SHARE`: the share of the copies in which a document is among the first `top_k`. `evidence` has
            the tokens of all copies.
        """
        ranked = self._ranker.rank([copy for ranking in rankings for copy in self._copies(ranking)])
        starts = range(0, len(ranked), self._samples)
        return [self._count(r, ranked[i : i + self._samples]) for r, i in zip(rankings, starts, strict=True)]

    def cost_tokens(self, ranking: Ranking) -> int:
        """Estimate tokens: those of the ranker for every copy, were it whole."""
        return self._samples * self._ranker.cost_tokens(ranking)

    def certified_words(self, ranking: Ranking, *, confidence: float = 0.95) -> dict[str, int]:
        """Find how many words of a document anyone may replace without bringing it among the first `top_k`.

        Let p_i be the probability, over the words left out, that document i is among the first k of a copy; the
        smoothed order is that of p. Replace R of the n words of document d by any other words, and choose the same
        places as before: the copies differ only where one of the R places is kept, which has probability
        delta = 1 - C(n - R, kept) / C(n, kept). So every p_i moves by at most delta, and d stays outside if k other
        documents have p_j - delta > p_d + delta. From S copies, Hoeffding's inequality bounds every p of a list of m
        documents at once, with probability `confidence` at least, to within e = sqrt(ln(2 m / (1 - confidence)) / 2S)
        of the share counted. d is certified for R where

            (k-th share - e) - (share of d + e) > 2 delta(n, R)

        It holds for replaced words of one document, as long as the ranker is deterministic and the incoming order,
        scores and features stay. It is about p, not about the copies of one seed.

        Parameters
        ----------
        ranking
            What `rank` gave, with all its documents.
        confidence
            Probability that all certificates of this ranking hold, in (0, 1).

        Returns
        -------
        dict of str to int
            Words per id for the documents below place `top_k`; 0 where nothing is certain.

        Raises
        ------
        InvalidInputError
            If the ranking is not one of shares, or the confidence is out of range.
        """
        if ranking.score_kind is not ScoreKind.SHARE:
            raise InvalidInputError(f"the scores are of kind {ranking.score_kind.value!r}; give what this ranker gave")
        if not 0 < confidence < 1:
            raise InvalidInputError(f"confidence is {confidence}, must be between 0 and 1", field="confidence")
        if len(ranking) <= self._top_k:
            return {}
        margin = math.sqrt(math.log(2 * len(ranking) / (1 - confidence)) / (2 * self._samples))
        certified = {}
        for item in ranking.items[self._top_k :]:
            words = len(item.document.title.split()) + len(item.document.text.split())
            gap = ranking.scores[self._top_k - 1] - item.score - 2 * margin
            certified[item.document.id] = largest_substitution(gap, words=words, kept=self._kept(words))
        return certified

    def _kept(self, words: int) -> int:
        return min(words, max(1, round(self._keep * words)))

    def _copies(self, ranking: Ranking) -> list[Ranking]:
        # The choice depends on the numbers of words alone: the words themselves must not steer it.
        generator = np.random.default_rng(self._seed)
        return [
            ranking.with_documents({document.id: self._thinned(document, generator) for document in ranking.documents})
            for _ in range(self._samples)
        ]

    def _thinned(self, document: Document, generator: np.random.Generator) -> Document:
        title, text = document.title.split(), document.text.split()
        count = len(title) + len(text)
        kept = np.sort(generator.permutation(count)[: self._kept(count)]).tolist()
        return replace(
            document,
            title=" ".join(title[i] for i in kept if i < len(title)),
            text=" ".join(text[i - len(title)] for i in kept if i >= len(title)),
        )

    def _count(self, ranking: Ranking, copies: Sequence[Ranking]) -> Ranking:
        rank_of = [{item.document.id: item.rank for item in copy.items} for copy in copies]
        ranks = np.array([[ranks[key] for key in ranking.ids] for ranks in rank_of])  # [samples, L]
        kind = ScoreKind.SHARE
        by_mean = Ranking.from_scores(ranking.query, ranking.documents, -ranks.sum(axis=0), score_kind=kind)
        shares = dict(zip(ranking.ids, (ranks <= self._top_k).mean(axis=0), strict=True))
        return Ranking.from_scores(
            ranking.query,
            by_mean.documents,
            [shares[key] for key in by_mean.ids],
            score_kind=kind,
            previous=ranking,
            evidence=Evidence(
                tokens=sum(copy.evidence.tokens for copy in copies),
                generated_tokens=sum(copy.evidence.generated_tokens for copy in copies),
            ),
        )


def largest_substitution(gap: float, *, words: int, kept: int) -> int:
    """Find the largest R with gap > 2 delta, where delta = 1 - C(n - R, kept) / C(n, kept).

    delta is the probability that at least one of R places is among `kept` of n (arXiv 1911.09272).

    Parameters
    ----------
    gap
        How much more probable the last document inside is than the one outside, in [-1, 1].
    words
        n, at least 0.
    kept
        Words kept, at most n, at least 1 where there are words.

    Returns
    -------
    int
        R, 0 where not even one word may change.

    Examples
    --------
    >>> largest_substitution(0.9, words=10, kept=1)  # delta = R / 10, and 2 * 4 / 10 < 0.9
    4
    """
    changed = 0
    while changed < words and gap > 2 * (1 - math.comb(words - changed - 1, kept) / math.comb(words, kept)):
        changed += 1
    return changed
