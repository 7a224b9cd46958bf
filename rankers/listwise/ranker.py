"""The listwise ranker: a strategy chooses windows, a prompt shows them, a reader reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from rankers.errors import ConfigError, WorkerError
from rankers.listwise.prompt import ChatLanguageModel, EncodedPassage, PromptBuilder
from rankers.listwise.readers.first_token import FirstTokenReader
from rankers.listwise.strategies.sliding import Sliding
from rankers.listwise.template import Template, load_template
from rankers.listwise.windows import Order, Reader, Strategy, Window, WindowOutcome, planned_windows
from rankers.protocols import TokenIds
from rankers.types import Evidence, Ranking, ScoreKind, WindowLogits

CHARACTERS_PER_TOKEN = 3
"""Low for English (about 4.5), so that estimates err on the safe side."""


class ListwiseRanker:
    """Orders documents with a language model that sees several at once; a `rankers.protocols.Ranker`.

    Parameters
    ----------
    model
        The language model.
    template
        A template, the name of a packaged one, or the path of a YAML file.
    strategy
        Which windows to look at; sliding windows of 20 with stride 10 when not given.
    reader
        How to read one; from the first token when not given.
    passage_tokens
        Longest part of a document that is shown, in tokens.

    Raises
    ------
    ConfigError
        If the template does not fit the model, or a window does not fit its labels or its context.
    """

    def __init__(
        self,
        model: ChatLanguageModel,
        *,
        template: Template | str | Path = "first",
        strategy: Strategy | None = None,
        reader: Reader | None = None,
        passage_tokens: int = 100,
    ) -> None:
        if not isinstance(template, Template):
            template = load_template(template)
        self._strategy = strategy or Sliding()
        self._reader = reader or FirstTokenReader(model)
        self._prompts = PromptBuilder(template, model, passage_tokens=passage_tokens)
        size = self._strategy.window_size
        if size is not None:
            self._prompts.labels.require(size)
            longest = self._prompts.fixed_tokens(size) + size * passage_tokens
            if model.context_tokens is not None and longest >= model.context_tokens:
                raise ConfigError(
                    f"{size} passages of {passage_tokens} tokens make a prompt of {longest} tokens before the query is "
                    f"counted, the model reads {model.context_tokens}; use a smaller window or fewer passage_tokens"
                )
        self._estimated_windows = lru_cache(maxsize=1024)(lambda count: planned_windows(self._strategy, count))

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        """Put each ranking in a new order.

        Windows of all rankings that are ready at the same time are read together. A ranking of fewer than two
        documents is given back without asking the model.

        Parameters
        ----------
        rankings
            Any number, each for a query of its own.

        Returns
        -------
        list of Ranking
            One per ranking. Where one window showed everything, the score is the log of the softmax of its logits;
            otherwise logits of different windows cannot be compared and only the order is given (`ScoreKind.RANK`).
            `evidence` has the raw logits of every window.

        Raises
        ------
        TooLargeError
            If a query, or the number of documents in one window, is too large for the model.
        """
        passages: dict[str, EncodedPassage] = {}
        for ranking in rankings:
            for document in ranking.documents if len(ranking) > 1 else ():
                if document.content not in passages:
                    passages[document.content] = self._prompts.encode_passage(document.content)
        runs = [_Run(ranking, self._strategy, self._prompts, passages) for ranking in rankings if len(ranking) > 1]
        while ready := [run for run in runs if run.order is None]:
            self._read_together(ready)
        finished = iter(runs)
        return [
            next(finished).result() if len(ranking) > 1 else replace(ranking, previous=ranking, evidence=Evidence())
            for ranking in rankings
        ]

    def cost_tokens(self, ranking: Ranking) -> int:
        """Estimate the tokens of all windows from the lengths of the texts; nothing is encoded.

        A text counts one token per three characters, a passage at most `passage_tokens`; windows are those of a
        strategy whose every outcome keeps the order shown. The fixed text of the template is counted exactly.

        Parameters
        ----------
        ranking
            What would be ranked.

        Returns
        -------
        int
            Tokens; 0 for fewer than two documents.
        """
        limit = self._prompts.passage_tokens
        lengths = [min(_estimated_tokens(document.content), limit) for document in ranking.documents]
        query = _estimated_tokens(ranking.query.text) * self._prompts.query_places
        return sum(
            self._prompts.fixed_tokens(min(len(window), len(self._prompts.labels)))
            + query
            + sum(lengths[i] for i in window)
            for window in self._estimated_windows(len(ranking))
        )

    def _read_together(self, ready: Sequence[_Run]) -> None:
        windows = [window for run in ready for window in run.windows]
        prompts = [run.prompt(window) for run in ready for window in run.windows]
        outcomes = iter(self._reader.read(prompts, windows, labels=self._prompts.labels) if windows else ())
        lengths = iter(map(len, prompts))
        for run in ready:
            run.advance([next(outcomes) for _ in run.windows], tokens=sum(next(lengths) for _ in run.windows))


class _Run:
    """One ranking on its way through a strategy."""

    def __init__(
        self, ranking: Ranking, strategy: Strategy, prompts: PromptBuilder, passages: Mapping[str, EncodedPassage]
    ) -> None:
        self._ranking = ranking
        self._prompts = prompts
        self._query = prompts.encode_query(ranking.query.text)
        self._passages = [passages[document.content] for document in ranking.documents]
        self._plan = strategy.plan(len(ranking))
        self._seen: list[tuple[Window, WindowOutcome]] = []
        self._tokens = 0
        self.order: Order | None = None
        self.windows: Sequence[Window] = ()
        self._step(None)

    def prompt(self, window: Window) -> TokenIds:
        """Show the candidates of a window."""
        return self._prompts.render(self._query, [self._passages[i] for i in window])

    def advance(self, outcomes: Sequence[WindowOutcome], *, tokens: int) -> None:
        """Take the outcomes of the current windows and move to the next ones, or to the end."""
        self._seen.extend(zip(self.windows, outcomes, strict=True))
        self._tokens += tokens
        self._step(outcomes)

    def _step(self, outcomes: Sequence[WindowOutcome] | None) -> None:
        try:
            self.windows = next(self._plan) if outcomes is None else self._plan.send(outcomes)
        except StopIteration as stop:
            self.windows, self.order = (), stop.value
            if sorted(stop.value) != list(range(len(self._ranking))):
                raise WorkerError(
                    f"the strategy gave an order of {len(self._ranking)} candidates that is none"
                ) from None

    def result(self) -> Ranking:
        """Build the new ranking."""
        documents = self._ranking.documents
        evidence = Evidence(
            tokens=self._tokens,
            readings={d.id: passage.reading for d, passage in zip(documents, self._passages, strict=True)},
            windows=tuple(
                WindowLogits(tuple(documents[i].id for i in window), outcome.logits) for window, outcome in self._seen
            ),
        )
        query, window, outcome = self._ranking.query, *self._seen[-1]
        if len(self._seen) == 1 and len(window) == len(documents) == len(outcome.logits):
            logits = np.array(outcome.logits, dtype=np.float64)
            return Ranking.from_scores(
                query,
                [documents[i] for i in window],
                logits - np.logaddexp.reduce(logits),
                score_kind=ScoreKind.LOG_PROBABILITY,
                previous=self._ranking,
                evidence=evidence,
            )
        order = self.order if self.order is not None else range(len(documents))
        return Ranking.from_order(query, [documents[i] for i in order], previous=self._ranking, evidence=evidence)


def _estimated_tokens(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)
