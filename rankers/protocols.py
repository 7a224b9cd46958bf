"""What the parts of a pipeline must be able to do. Everything works on batches: a single item is a batch of one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from rankers.types import Document, PairScores, Query, Ranking, ScoreKind

TokenIds = Sequence[int]
"""Token ids of one text, in the vocabulary of the model at hand."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What a model wrote: the text without special tokens, a stop string at its end included, and the tokens it took.

    `complete` is False where the budget ended it.
    """

    text: str
    tokens: int
    complete: bool


@runtime_checkable
class Retriever(Protocol):
    """The first stage: finds candidates."""

    def retrieve(self, queries: Sequence[Query], k: int) -> list[Ranking]:
        """Find at most `k` candidates per query; one ranking per query, in the order of the queries."""
        ...


@runtime_checkable
class TaughtRetriever(Retriever, Protocol):
    """A retriever that has rerankers of its own."""

    @property
    def models(self) -> dict[str, str]:
        """Versions of the registry they run, ``name@version`` by role."""
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
class JoiningRanker(Ranker, Protocol):
    """A ranker that several threads may call at a time: what they ask for is merged with what is under way."""

    @property
    def joins(self) -> Hashable | None:
        """Equal for rankers whose work is merged with each other's; None if it is not merged after all."""
        ...


def joins_of(ranker: Ranker) -> Hashable | None:
    """What a ranker's work is merged with; None where it is not. What wraps a ranker passes it on."""
    return ranker.joins if isinstance(ranker, JoiningRanker) else None


@runtime_checkable
class CheapRanker(Ranker, Protocol):
    """A ranker that computes in milliseconds and shares no model with others: it need not wait for their turn."""

    @property
    def is_cheap(self) -> bool:
        """Whether that is so; as it is set up, it may use a model after all."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """Scores each (query, document) pair on its own; `rankers.pointwise.PointwiseRanker` makes it a `Ranker`."""

    score_kind: ScoreKind

    def score(self, pairs: Sequence[tuple[Query, Document]]) -> PairScores:
        """Score n pairs; pairs of several queries may be mixed."""
        ...


class PromptEncoder(Protocol):
    """Text to token ids in the vocabulary of a model, and the form of conversation it was trained with."""

    @property
    def context_tokens(self) -> int | None:
        """Longest prompt the model can read; None where there is no bound."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` as it may occur inside a prompt: no special token is added, none is recognised."""
        ...

    def encode_template(self, text: str, *, at_start: bool = False) -> list[int]:
        """Token ids of trusted template text; special tokens written in it are recognised."""
        ...

    def chat_text(self, system: str, user: str) -> str:
        """Write a conversation as the model expects it, up to where the answer begins."""
        ...


@runtime_checkable
class LanguageModel(PromptEncoder, Protocol):
    """Turns token ids into logits. Prompts may have any mix of lengths; the model batches them itself."""

    def next_token_logits(
        self, prompts: Sequence[TokenIds], candidates: Sequence[TokenIds]
    ) -> list[npt.NDArray[np.float32]]:
        """Logits of `candidates[i]` at the position after `prompts[i]`: float32 [len(candidates[i])] each.

        A model that only gives log-probabilities may return those: they differ from logits by a constant per prompt.
        """
        ...


class LikelihoodModel(PromptEncoder, Protocol):
    """Says how probable a text is after another."""

    def continuation_log_probabilities(
        self, prompts: Sequence[TokenIds], continuations: Sequence[TokenIds]
    ) -> list[npt.NDArray[np.float32]]:
        """Log-probability of each token of `continuations[i]` after `prompts[i]` and the tokens before it.

        float32 [len(continuations[i])] each.
        """
        ...


class GenerativeModel(PromptEncoder, Protocol):
    """Writes text, greedily."""

    def generate(
        self, prompts: Sequence[TokenIds], *, max_new_tokens: int, stop: Sequence[str] = ()
    ) -> list[Generation]:
        """Continue each prompt until the model ends it, a stop string has been written or the budget is used up."""
        ...
