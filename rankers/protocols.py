"""What the parts of a pipeline must be able to do. Everything works on batches: a single item is a batch of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from rankers.types import Document, PairScores, Query, Ranking, ScoreKind

TokenIds = Sequence[int]
"""Token ids of one text, in the vocabulary of the model at hand."""


@runtime_checkable
class Retriever(Protocol):
    """The first stage: finds candidates."""

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Ranking]:
        """Find at most `k` candidates per query; one ranking per query, in the order of the queries."""
        ...


@runtime_checkable
class Ranker(Protocol):
    """Orders candidates it is given."""

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        """Put each ranking in a new order.

        Every result holds exactly the documents of its input, and its `previous` is that input: scores that came in
        are never overwritten.
        """
        ...

    def cost_tokens(self, ranking: Ranking) -> int:
        """Estimate how many tokens ordering this ranking takes, without doing it; for admission and batching."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """Scores each (query, document) pair on its own; `rankers.pointwise.PointwiseRanker` makes it a `Ranker`."""

    score_kind: ScoreKind

    def score(self, pairs: Sequence[tuple[Query, Document]]) -> PairScores:
        """Score n pairs; pairs of several queries may be mixed."""
        ...


class LanguageModel(Protocol):
    """Turns token ids into logits. Prompts may have any mix of lengths; the model batches them itself."""

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` as it may occur inside a prompt: no special token is added, none is recognised."""
        ...

    def next_token_logits(
        self, prompts: Sequence[TokenIds], candidates: Sequence[TokenIds]
    ) -> list[npt.NDArray[np.float32]]:
        """Logits of `candidates[i]` at the position after `prompts[i]`: float32 [len(candidates[i])] each."""
        ...
