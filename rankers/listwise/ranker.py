"""The listwise ranker: a strategy chooses windows, a prompt shows them, a reader reads them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from rankers.errors import ConfigError, WorkerError
from rankers.listwise.aggregate import window_scores
from rankers.listwise.labels import LabelSet
from rankers.listwise.prompt import EncodedPassage, PromptBuilder
from rankers.listwise.readers.first_token import FirstTokenReader
from rankers.listwise.scheduler import Scheduler
from rankers.listwise.strategies.sliding import Sliding
from rankers.listwise.template import Template, load_template
from rankers.listwise.windows import (
    Reader,
    Signal,
    Strategy,
    Verdict,
    Window,
    WindowOutcome,
    check_pair,
    planned_windows,
)
from rankers.protocols import LanguageModel, PromptEncoder, TokenIds
from rankers.types import Document, Evidence, Ranking, ScoreKind, WindowEvidence

CHARACTERS_PER_TOKEN = 3
"""Low for English (about 4.5), so that estimates err on the safe side."""

GlobalScores = Literal["bradley-terry", "average"]


class ListwiseRanker:
    """Orders documents with a language model that sees several at once; a `rankers.protocols.Ranker`.

    Documents with the same text are shown once and stay together, in the order they came.

    Parameters
    ----------
    model
        The language model.
    template
        A template, the name of a packaged one, or the path of a YAML file.
    strategy
        Which windows to look at; sliding windows of 20 with stride 10 when not given.
    reader
        How to read one; from the first token when not given, which takes a `LanguageModel`.
    passage_tokens
        Longest part of a document that is shown, in tokens.
    global_scores
        Order by scores made from the logits of all windows (`rankers.listwise.aggregate.window_scores`) instead of by
        the verdict of the strategy.
    scheduler
        Shared by all rankers that use one model; one of its own when not given.

    Raises
    ------
    ConfigError
        If the template does not fit the model, a window does not fit its labels or its context, or the strategy needs
        what the reader does not find out.
    """

    def __init__(
        self,
        model: PromptEncoder,
        *,
        template: Template | str | Path = "first",
        strategy: Strategy | None = None,
        reader: Reader | None = None,
        passage_tokens: int = 100,
        global_scores: GlobalScores | None = None,
        scheduler: Scheduler | None = None,
    ) -> None:
        if not isinstance(template, Template):
            template = load_template(template)
        if reader is None:
            if not isinstance(model, LanguageModel):
                raise ConfigError(f"{type(model).__name__} gives no logits; choose a reader of written answers")
            reader = FirstTokenReader(model)
        self._strategy = strategy or Sliding()
        self._reader = reader
        check_pair(self._strategy, reader)
        if Signal.LOGITS in reader.gives and template.written:
            raise ConfigError(
                f"template {template.name!r} asks for a written answer, {type(reader).__name__} reads the logits of "
                "labels; choose another template or a reader of written answers"
            )
        if global_scores and Signal.LOGITS not in reader.gives:
            raise ConfigError(f"global scores {global_scores!r} need logits, which {type(reader).__name__} lacks")
        self._global_scores = global_scores
        self._scheduler = scheduler or Scheduler()
        self._prompts = PromptBuilder(template, model, passage_tokens=passage_tokens)
        size = self._strategy.window_size
        if size is not None:
            self._prompts.labels.require(size)
            longest = self._prompts.fixed_tokens(size) + size * passage_tokens
            answer = reader.answer_tokens(self._prompts.labels.labels[:size])
            if model.context_tokens is not None and longest + answer >= model.context_tokens:
                writes = f" and an answer may take {answer}" if answer else ""
                raise ConfigError(
                    f"{size} passages of {passage_tokens} tokens make a prompt of {longest} tokens before the query is "
                    f"counted{writes}, the model reads {model.context_tokens}; use a smaller window or fewer "
                    "passage_tokens"
                )
        self._estimated_windows = lru_cache(maxsize=1024)(lambda count: planned_windows(self._strategy, count))

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        """Put each ranking in a new order.

        Windows that are ready, of all rankings and of all callers that share the scheduler, are read together. A
        ranking of fewer than two different documents is given back without asking the model.

        Parameters
        ----------
        rankings
            Any number, each for a query of its own.

        Returns
        -------
        list of Ranking
            One per ranking. The scores are those of the strategy's verdict, or the global scores asked for
            (`ScoreKind.PREFERENCE`); a strategy that only orders gives `ScoreKind.RANK`. `evidence` has what was found
            in every window; one that could not be read kept its order and says why.

        Raises
        ------
        TooLargeError
            If a query, or the number of documents in one window, is too large for the model.
        WorkerError
            If no window of a ranking could be read, or the strategy gives no permutation.
        """
        passages: dict[str, EncodedPassage] = {}
        for ranking in rankings:
            for document in ranking.documents if len(ranking) > 1 else ():
                if document.content not in passages:
                    passages[document.content] = self._prompts.encode_passage(document.content)
        runs = [
            _Run(ranking, self._strategy, self._reader, self._prompts, passages) if len(ranking) > 1 else None
            for ranking in rankings
        ]
        self._scheduler.finish([run for run in runs if run is not None])
        return [
            run.result(self._global_scores) if run else replace(ranking, previous=ranking, evidence=Evidence())
            for ranking, run in zip(rankings, runs, strict=True)
        ]

    @property
    def joins(self) -> Hashable:
        """The scheduler, which merges the windows of all callers."""
        return self._scheduler

    def cost_tokens(self, ranking: Ranking) -> int:
        """Estimate the tokens of all windows from the lengths of the texts; nothing is encoded.

        A text counts one token per three characters, a passage at most `passage_tokens`; windows are those of a
        strategy whose every outcome reverses the order shown. The fixed text of the template is counted exactly, and of
        a written answer its whole budget.

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
            + self._reader.answer_tokens(self._prompts.labels.labels[: len(window)])
            + query
            + sum(lengths[i] for i in window)
            for window in self._estimated_windows(len(ranking))
        )


class _Run:
    """One ranking on its way through a strategy; a `rankers.listwise.scheduler.Run`."""

    def __init__(
        self,
        ranking: Ranking,
        strategy: Strategy,
        reader: Reader,
        prompts: PromptBuilder,
        passages: Mapping[str, EncodedPassage],
    ) -> None:
        self.reader = reader
        self.windows: Sequence[Window] = ()
        self._ranking = ranking
        self._prompts = prompts
        self._query = prompts.encode_query(ranking.query.text)
        # A candidate is a text: documents that say the same are told apart by nothing, so they are shown once.
        self._copies: dict[str, list[Document]] = {}
        for document in ranking.documents:
            self._copies.setdefault(document.content, []).append(document)
        self._shown = [copies[0] for copies in self._copies.values()]
        self._passages = [passages[content] for content in self._copies]
        first_stage = {item.document.id: item.score for item in ranking.origin.items} if prompts.shows_scores else {}
        self._scores = [first_stage.get(document.id, 0.0) for document in self._shown]
        self._seen: list[tuple[Window, WindowOutcome]] = []
        self._prompt_tokens: dict[Window, int] = {}
        self._verdict = Verdict(range(len(self._shown)))
        if len(self._shown) > 1:
            self._plan = strategy.plan(len(self._shown))
            self._step(None)

    @property
    def labels(self) -> LabelSet:
        """What its prompts call the candidates."""
        return self._prompts.labels

    def prompt(self, window: Window) -> TokenIds:
        """Show the candidates of a window."""
        scores = [self._scores[i] for i in window]
        prompt = self._prompts.render(self._query, [self._passages[i] for i in window], scores)
        self._prompt_tokens[window] = len(prompt)
        return prompt

    def advance(self, outcomes: Sequence[WindowOutcome]) -> None:
        """Take the outcomes of the current windows and move to the next ones, or to the end."""
        self._seen.extend(zip(self.windows, outcomes, strict=True))
        self._step(outcomes)

    def _step(self, outcomes: Sequence[WindowOutcome] | None) -> None:
        try:
            self.windows = next(self._plan) if outcomes is None else self._plan.send(outcomes)
            while not self.windows:
                self.windows = self._plan.send(())
        except StopIteration as stop:
            self.windows, self._verdict = (), stop.value
            if sorted(self._verdict.order) != list(range(len(self._shown))):
                raise WorkerError(f"the strategy gave an order of {len(self._shown)} candidates that is none") from None

    def result(self, global_scores: GlobalScores | None) -> Ranking:
        """Build the new ranking."""
        failures = [outcome.failure for _, outcome in self._seen if outcome.failure]
        if failures and len(failures) == len(self._seen):
            raise WorkerError(f"none of {len(failures)} windows could be read: {failures[0]}")
        order, scores, kind = self._verdict.order, self._verdict.scores, self._verdict.score_kind
        if global_scores and self._seen:
            readable = [(window, outcome.logits) for window, outcome in self._seen if outcome.logits]
            values = window_scores(
                [window for window, _ in readable],
                [logits for _, logits in readable],
                len(self._shown),
                method=global_scores,
            )
            order, scores, kind = range(len(values)), tuple(map(float, values)), ScoreKind.PREFERENCE
        groups = list(self._copies.values())
        documents = [document for i in order for document in groups[i]]
        query, previous, evidence = self._ranking.query, self._ranking, self._evidence()
        if not scores:
            return Ranking.from_order(query, documents, previous=previous, evidence=evidence)
        repeated = [score for i, score in zip(order, scores, strict=True) for _ in groups[i]]
        return Ranking.from_scores(query, documents, repeated, score_kind=kind, previous=previous, evidence=evidence)

    def _evidence(self) -> Evidence:
        pairs = zip(self._copies.values(), self._passages, strict=True)
        return Evidence(
            tokens=sum(self._prompt_tokens[window] for window, _ in self._seen),
            generated_tokens=sum(outcome.generated_tokens for _, outcome in self._seen),
            readings={document.id: passage.reading for copies, passage in pairs for document in copies},
            windows=tuple(
                WindowEvidence(
                    tuple(self._shown[i].id for i in window),
                    outcome.logits,
                    outcome.repairs,
                    outcome.trace,
                    outcome.failure,
                )
                for window, outcome in self._seen
            ),
        )


def _estimated_tokens(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)
