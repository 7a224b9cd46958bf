"""Pairwise ranking prompting: a language model says which of two documents is better, a strategy chooses the pairs.

Qin et al., "Large Language Models are Effective Text Rankers with Pairwise Ranking Prompting", NAACL 2024 (arXiv
2306.17563). With examples it is the few-shot form: preferences of similar queries come before the question.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from rankers.errors import ConfigError
from rankers.listwise.windows import Verdict
from rankers.llm_templates import EncodedText, PairPrompt, PromptTemplate, Values
from rankers.pair_strategies import Comparisons, Pair, PairStrategy, SlidingK, planned_pairs
from rankers.pointwise import CHARACTERS_PER_TOKEN
from rankers.preferences import Preference
from rankers.protocols import LanguageModel, TokenIds
from rankers.types import Document, Evidence, Query, Ranking, WindowEvidence

A, B = "a", "b"


class PairwiseRanker:
    """Orders documents by asking a language model which of two is better; a `rankers.protocols.Ranker`.

    Every pair is asked in both orders, one prefill each, and read from the logits of the two words. If both answers
    name the same document it wins 1, otherwise each wins 1/2.

    Parameters
    ----------
    model
        The language model.
    template
        ``prp``, a template, or the path of a YAML file; with the words ``a`` and ``b``.
    strategy
        Which pairs to ask; 10 sliding passes when not given.
    passage_tokens
        Longest part of a document that is shown, in tokens.
    examples
        Preferences of other queries to show first, the same for all or chosen for each query; the preferred document
        is passage A and passage B in turn.

    Raises
    ------
    ConfigError
        If the template does not fit this task or the model, or has no place for examples.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        template: PromptTemplate | str | Path = "prp",
        strategy: PairStrategy | None = None,
        passage_tokens: int = 200,
        examples: Sequence[Preference] | Callable[[Query], Sequence[Preference]] = (),
    ) -> None:
        self._model = model
        self._strategy = strategy or SlidingK()
        self._prompts = PairPrompt(
            template,
            model,
            fields=("query", "document_a", "document_b"),
            words=(A, B),
            passage_tokens=passage_tokens,
        )
        self._examples = examples if callable(examples) else lambda _: examples
        if examples and not self._prompts.takes_examples:
            raise ConfigError("the template has no {examples}; add it and an example, or give no examples")
        self._estimated_pairs = lru_cache(maxsize=32)(lambda count: planned_pairs(self._strategy, count))

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        """Put each ranking in a new order.

        Pairs of all rankings that are ready at the same time are asked in one call of the model. A ranking of fewer
        than two documents is given back without asking. Documents of the same content tie and keep their order.

        Parameters
        ----------
        rankings
            Any number, each for a query of its own.

        Returns
        -------
        list of Ranking
            One per ranking, scored as the strategy says. `evidence` has the raw logits of every pair in both orders.

        Raises
        ------
        TooLargeError
            If a query or its examples are too long for the model's context.
        """
        documents: dict[str, EncodedText] = {}
        for ranking in rankings:
            for document in ranking.documents if len(ranking) > 1 else ():
                if document.content not in documents:
                    documents[document.content] = self._prompts.encode_document(document.content)
        runs = [self._start(ranking, documents) for ranking in rankings if len(ranking) > 1]
        while ready := [run for run in runs if run.verdict is None]:
            prompts = [prompt for run in ready for prompt in run.prompts()]
            words = [*self._prompts.words[A], *self._prompts.words[B]]
            logits = self._model.next_token_logits(prompts, [words] * len(prompts))
            rows = np.array(logits, dtype=np.float64).reshape(len(prompts), len(words))
            first, second = np.split(rows, [len(self._prompts.words[A])], axis=1)
            answers = np.stack([np.logaddexp.reduce(part, axis=1) for part in (first, second)], axis=1)  # [prompts, 2]
            start = 0
            for run in ready:
                stop = start + 2 * len(run.asked)
                run.advance(answers[start:stop], tokens=sum(map(len, prompts[start:stop])))
                start = stop
        finished = iter(runs)
        return [
            next(finished).result() if len(ranking) > 1 else replace(ranking, previous=ranking, evidence=Evidence())
            for ranking in rankings
        ]

    def cost_tokens(self, ranking: Ranking) -> int:
        """Estimate the tokens of all pairs from the lengths of the texts; nothing is encoded.

        A text counts one token per three characters, a document at most `passage_tokens`; pairs are those of a
        strategy that finds every document where it belongs. Examples are looked up, to be counted.

        Parameters
        ----------
        ranking
            What would be ranked.

        Returns
        -------
        int
            Tokens of both orders; 0 for fewer than two documents.
        """
        if len(ranking) < 2:
            return 0
        shown = sum(
            self._prompts.fixed_tokens
            + _estimated_tokens(example.query.text)
            + self._estimated_document_tokens(example.preferred)
            + self._estimated_document_tokens(example.other)
            for example in self._examples(ranking.query)
        )
        lengths = [self._estimated_document_tokens(document) for document in ranking.documents]
        beside = self._prompts.fixed_tokens + _estimated_tokens(ranking.query.text) + shown
        return 2 * sum(beside + lengths[i] + lengths[j] for i, j in self._estimated_pairs(len(ranking)))

    def _estimated_document_tokens(self, document: Document) -> int:
        return min(_estimated_tokens(document.content), self._prompts.passage_tokens)

    def _start(self, ranking: Ranking, documents: Values) -> _Run:
        encoded = [documents[document.content] for document in ranking.documents]
        examples = [self._example(i, example) for i, example in enumerate(self._examples(ranking.query))]
        return _Run(ranking, self._strategy.plan(len(ranking)), self._prompts, encoded, examples)

    def _example(self, i: int, example: Preference) -> tuple[Values, str]:
        preferred, other = (
            self._prompts.encode_document(document.content) for document in (example.preferred, example.other)
        )
        query = self._prompts.encode_query(example.query.text)
        if i % 2 == 0:
            return {"query": query, "document_a": preferred, "document_b": other}, A
        return {"query": query, "document_a": other, "document_b": preferred}, B


class _Run:
    """One ranking on its way through a strategy; what is known about a pair is not asked again."""

    def __init__(
        self,
        ranking: Ranking,
        plan: Comparisons,
        prompts: PairPrompt,
        documents: Sequence[EncodedText],
        examples: Sequence[tuple[Values, str]],
    ) -> None:
        self._ranking = ranking
        self._plan = plan
        self._prompts = prompts
        self._documents = documents
        self._examples = examples
        self._query = prompts.encode_query(ranking.query.text)
        # The first candidate of each content stands for all of that content.
        first: dict[str, int] = {}
        self._stands_for = [first.setdefault(document.content, i) for i, document in enumerate(ranking.documents)]
        self._shares: dict[Pair, float] = {}
        self._seen: list[WindowEvidence] = []
        self._tokens = 0
        self._wanted: Sequence[Pair] = ()
        self.asked: list[Pair] = []
        self.verdict: Verdict | None = None
        self._step(None)

    def prompts(self) -> list[TokenIds]:
        """Show the pairs that are asked now: each in its order, then the other way round."""
        shown = [pair for i, j in self.asked for pair in ((i, j), (j, i))]
        return [
            self._prompts.render(
                {"query": self._query, "document_a": self._documents[i], "document_b": self._documents[j]},
                examples=self._examples,
            )
            for i, j in shown
        ]

    def advance(self, answers: np.ndarray[tuple[int, int], np.dtype[np.float64]], *, tokens: int) -> None:
        """Take the logits of A and B for each prompt and move to the next pairs, or to the end."""
        self._tokens += tokens
        documents = self._ranking.documents
        for (i, j), forth, back in zip(self.asked, answers[::2].tolist(), answers[1::2].tolist(), strict=True):
            self._shares[i, j] = won_share(forth[0] - forth[1], back[0] - back[1])
            self._seen += [
                WindowEvidence((documents[i].id, documents[j].id), tuple(forth)),
                WindowEvidence((documents[j].id, documents[i].id), tuple(back)),
            ]
        self._step([self._share(pair) for pair in self._wanted])

    def _step(self, outcomes: Sequence[float] | None) -> None:
        """Advance the plan up to where something has to be asked, or to its end."""
        try:
            while True:
                self._wanted = next(self._plan) if outcomes is None else self._plan.send(outcomes)
                found = (self._canonical(pair) for pair in self._wanted)
                self.asked = [p for p in dict.fromkeys(found) if p[0] != p[1] and p not in self._shares]
                if self.asked:
                    return
                outcomes = [self._share(pair) for pair in self._wanted]
        except StopIteration as stop:
            self.asked, self.verdict = [], stop.value

    def _canonical(self, pair: Pair) -> Pair:
        i, j = (self._stands_for[candidate] for candidate in pair)
        return min(i, j), max(i, j)

    def _share(self, pair: Pair) -> float:
        i, j = self._canonical(pair)
        if i == j:
            return 0.5
        return self._shares[i, j] if i == self._stands_for[pair[0]] else 1 - self._shares[i, j]

    def result(self) -> Ranking:
        """Build the new ranking."""
        verdict = self.verdict or Verdict(range(len(self._ranking)))
        # Places that documents of one content have won are theirs in the order they came in.
        members: dict[int, list[int]] = {}
        for i in sorted(verdict.order, reverse=True):
            members.setdefault(self._stands_for[i], []).append(i)
        documents = [self._ranking.documents[members[self._stands_for[i]].pop()] for i in verdict.order]
        evidence = Evidence(
            tokens=self._tokens,
            readings={
                document.id: encoded.reading
                for document, encoded in zip(self._ranking.documents, self._documents, strict=True)
            },
            windows=tuple(self._seen),
        )
        if not verdict.scores:
            return Ranking.from_order(self._ranking.query, documents, previous=self._ranking, evidence=evidence)
        return Ranking.from_scores(
            self._ranking.query,
            documents,
            verdict.scores,
            score_kind=verdict.score_kind,
            previous=self._ranking,
            evidence=evidence,
        )


def won_share(forth: float, back: float) -> float:
    """Give what the first of two documents wins.

    Parameters
    ----------
    forth
        Logit of A less logit of B where the first document is passage A.
    back
        The same where the first document is passage B.

    Returns
    -------
    float
        1 or 0 if both answers agree, otherwise 1/2.

    Examples
    --------
    >>> won_share(2.0, -1.0), won_share(-2.0, 1.0), won_share(2.0, 1.0)
    (1.0, 0.0, 0.5)
    """
    if forth > 0 > back:
        return 1.0
    return 0.0 if forth < 0 < back else 0.5


def _estimated_tokens(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)
