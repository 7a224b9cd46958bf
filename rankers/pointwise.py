"""Cross-encoders, and any scorer of single pairs, as rankers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rankers.batching import CPU_PASS_TOKENS, token_batches
from rankers.errors import ConfigError
from rankers.llm.precision import use_avx512_products
from rankers.protocols import Scorer
from rankers.types import Document, Evidence, PairScores, Query, Ranking, Reading, ScoreKind

CHARACTERS_PER_TOKEN = 3
"""Low for English (about 4.5), so that estimates err on the safe side."""


class CrossEncoderScorer:
    """A sentence-transformers CrossEncoder with one output; a `rankers.protocols.Scorer`.

    Not safe for concurrent calls: one caller at a time.

    Parameters
    ----------
    model
        A folder or hub name. Code that comes with a model is never run.
    device
        A torch device; sentence-transformers chooses when not given.
    max_tokens
        Longest pair that is read, query and special tokens included; the model's own limit if that is lower. The
        longer of query and document is cut.
    max_batch_tokens
        Bound on the padded tokens of one forward pass.

    Raises
    ------
    ConfigError
        If the model cannot be loaded, or gives more than one number per pair.
    """

    score_kind = ScoreKind.LOGIT

    def __init__(
        self, model: str, *, device: str | None = None, max_tokens: int = 512, max_batch_tokens: int = 16384
    ) -> None:
        from sentence_transformers import CrossEncoder

        import rankers.pair_similarity  # noqa: F401  (makes the architecture of our own cross-encoders known)

        try:
            self._model = CrossEncoder(model, device=device, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot load {model!r} as a cross-encoder: {error}") from error
        if self._model.num_labels != 1:
            raise ConfigError(
                f"{model!r} gives {self._model.num_labels} numbers per pair, a scorer needs 1; use a model trained for "
                "ranking"
            )
        self._tokenizer = self._model.tokenizer
        if not self._tokenizer.is_fast:
            raise ConfigError(f"{model!r} has no fast tokenizer (tokenizer.json), which counting its tokens needs")
        positions = getattr(self._model.config, "max_position_embeddings", max_tokens)
        self.max_tokens = min(max_tokens, self._tokenizer.model_max_length, positions)
        self._special_tokens = self._tokenizer.num_special_tokens_to_add(pair=True)
        if self.max_tokens < self._special_tokens + 2:
            raise ConfigError(
                f"max_tokens is {max_tokens}; {model!r} needs at least {self._special_tokens + 2} for a pair"
            )
        # The one setting that every version of sentence-transformers cuts pairs by.
        self._tokenizer.model_max_length = self.max_tokens
        self._max_batch_tokens = max_batch_tokens
        on_cpu = self._model.device.type == "cpu"
        self._pass_tokens = CPU_PASS_TOKENS if on_cpu else None
        if on_cpu:
            use_avx512_products()

    def score(self, pairs: Sequence[tuple[Query, Document]]) -> PairScores:
        """Score pairs: one raw logit each, no activation.

        Parameters
        ----------
        pairs
            Any number, n; of any queries.

        Returns
        -------
        PairScores
            Logits float64 [n] in the order given, how much of each document was read, and the tokens of each pair.
        """
        import torch

        texts = [(query.text, document.content) for query, document in pairs]
        lengths, readings = self._measure(texts)
        scores = np.empty(len(texts), dtype=np.float64)
        for batch in token_batches(lengths, max_batch_tokens=self._max_batch_tokens, pass_tokens=self._pass_tokens):
            scores[batch] = self._model.predict(
                [texts[i] for i in batch],
                batch_size=len(batch),
                activation_fn=torch.nn.Identity(),
                show_progress_bar=False,
            )
        return PairScores(scores, tuple(readings), tuple(lengths))

    def _measure(self, texts: Sequence[tuple[str, str]]) -> tuple[list[int], list[Reading]]:
        """Give the tokens of each pair as it is read, and how much of its document that is."""
        own_tokens = {text: self._count(text) for text in dict.fromkeys(text for pair in texts for text in pair)}
        lengths, readings = [], []
        for query, document in texts:
            length = own_tokens[query] + own_tokens[document] + self._special_tokens
            used = own_tokens[document]
            if length > self.max_tokens:
                encoded = self._tokenizer(query, document, truncation="longest_first", max_length=self.max_tokens)
                length, used = len(encoded["input_ids"]), encoded.sequence_ids(0).count(1)
            lengths.append(length)
            readings.append(Reading(tokens_used=used, tokens_total=own_tokens[document]))
        return lengths, readings

    def _count(self, text: str) -> int:
        return len(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


class PointwiseRanker:
    """Orders documents by the scores they get on their own; a `rankers.protocols.Ranker`.

    Parameters
    ----------
    scorer
        Any scorer.
    max_pair_tokens
        Longest pair the scorer reads, for estimates.
    """

    def __init__(self, scorer: Scorer, *, max_pair_tokens: int = 512) -> None:
        self._scorer = scorer
        self._max_pair_tokens = max_pair_tokens

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        """Score the documents of all rankings together and sort each ranking.

        Parameters
        ----------
        rankings
            Any number, each for a query of its own.

        Returns
        -------
        list of Ranking
            One per ranking, with the scorer's scores.
        """
        pairs = [(ranking.query, document) for ranking in rankings for document in ranking.documents]
        scored = self._scorer.score(pairs) if pairs else PairScores(np.empty(0), (), ())
        results, start = [], 0
        for ranking in rankings:
            part = slice(start, start + len(ranking))
            readings = dict(zip(ranking.ids, scored.readings[part], strict=True))
            results.append(
                Ranking.from_scores(
                    ranking.query,
                    ranking.documents,
                    scored.scores[part],
                    score_kind=self._scorer.score_kind,
                    previous=ranking,
                    evidence=Evidence(tokens=sum(scored.tokens[part]), readings=readings),
                )
            )
            start += len(ranking)
        return results

    def cost_tokens(self, ranking: Ranking) -> int:
        """Estimate tokens from the lengths of the texts: one per three characters, bounded for each pair.

        Parameters
        ----------
        ranking
            What would be ranked.

        Returns
        -------
        int
            Tokens of all pairs.
        """
        query = len(ranking.query.text)
        return sum(
            min(math.ceil((query + len(document.content)) / CHARACTERS_PER_TOKEN), self._max_pair_tokens)
            for document in ranking.documents
        )
