"""Language models as scorers of single pairs: is the document relevant, and how likely does it make the query."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError
from rankers.llm_templates import EncodedText, PairPrompt, PromptTemplate
from rankers.protocols import LanguageModel, LikelihoodModel
from rankers.types import Document, PairScores, Query, ScoreKind

RELEVANT, IRRELEVANT = "relevant", "irrelevant"


class YesNoScorer:
    """Asks a language model whether a document is relevant; a `rankers.protocols.Scorer`.

    The score is the log-odds of the answer: log sum exp of the logits of the words for relevant, less the same for
    irrelevant (with one word each, the difference of two logits), at the position where the answer begins. It takes one
    prefill. Sources: Nogueira et al., "Document Ranking with a Pretrained Sequence-to-Sequence Model", 2020 (arXiv
    2003.06713, section 3); Zhang et al., "Qwen3 Embedding", 2025 (arXiv 2506.05176, section 2).

    Parameters
    ----------
    model
        The language model.
    template
        ``mono_t5``, ``qwen3_reranker``, a template, or the path of a YAML file; with the words ``relevant`` and
        ``irrelevant``.
    passage_tokens
        Longest part of a document that is shown, in tokens.

    Raises
    ------
    ConfigError
        If the template does not fit this task or the model.
    """

    score_kind = ScoreKind.LOGIT

    def __init__(
        self, model: LanguageModel, *, template: PromptTemplate | str | Path = "mono_t5", passage_tokens: int = 400
    ) -> None:
        self._model = model
        self._prompts = PairPrompt(
            template,
            model,
            fields=("query", "document"),
            words=(RELEVANT, IRRELEVANT),
            passage_tokens=passage_tokens,
        )

    def score(self, pairs: Sequence[tuple[Query, Document]]) -> PairScores:
        """Score pairs: log-odds of relevance.

        Parameters
        ----------
        pairs
            Any number, n; of any queries. Those of one query share the beginning of their prompts.

        Returns
        -------
        PairScores
            Log-odds float64 [n] in the order given, how much of each document was read, and the tokens of each prompt.

        Raises
        ------
        TooLargeError
            If a query is too long for the model's context.
        """
        queries, documents = _encode(self._prompts, pairs)
        prompts = [
            self._prompts.render({"query": query, "document": document})
            for query, document in zip(queries, documents, strict=True)
        ]
        relevant, irrelevant = (self._prompts.words[word] for word in (RELEVANT, IRRELEVANT))
        logits = self._model.next_token_logits(prompts, [relevant + irrelevant] * len(prompts)) if prompts else []
        rows = np.array(logits, dtype=np.float64).reshape(len(prompts), len(relevant) + len(irrelevant))
        yes, no = np.split(rows, [len(relevant)], axis=1)
        scores = np.logaddexp.reduce(yes, axis=1) - np.logaddexp.reduce(no, axis=1)
        return PairScores(scores, tuple(document.reading for document in documents), tuple(map(len, prompts)))


class QueryLikelihoodScorer:
    """Scores a document by how probable it makes the query; a `rankers.protocols.Scorer`.

    score(q, d) = 1/|q| sum over t of log P(q_t | q_<t, prompt with d), over the tokens of the query only. Source:
    Sachan et al., "Improving Passage Retrieval with Zero-Shot Question Generation", EMNLP 2022 (arXiv 2204.07496,
    equation 1).

    Parameters
    ----------
    model
        The language model.
    template
        ``query_likelihood``, a template, or the path of a YAML file; its answer ends in ``{query}``.
    passage_tokens
        Longest part of a document that is shown, in tokens.

    Raises
    ------
    ConfigError
        If the template does not fit this task or the model.
    """

    score_kind = ScoreKind.LIKELIHOOD

    def __init__(
        self,
        model: LikelihoodModel,
        *,
        template: PromptTemplate | str | Path = "query_likelihood",
        passage_tokens: int = 400,
    ) -> None:
        self._model = model
        self._prompts = PairPrompt(template, model, fields=("document",), passage_tokens=passage_tokens)

    def score(self, pairs: Sequence[tuple[Query, Document]]) -> PairScores:
        """Score pairs: mean log-probability of the query's tokens.

        Parameters
        ----------
        pairs
            Any number, n; of any queries.

        Returns
        -------
        PairScores
            Means float64 [n] in the order given, how much of each document was read, and the tokens of each prompt and
            its query.

        Raises
        ------
        InvalidInputError
            If a query has no tokens.
        TooLargeError
            If a query is too long for the model's context.
        """
        return self.score_with_uncertainty(pairs)[0]

    def score_with_uncertainty(
        self, pairs: Sequence[tuple[Query, Document]]
    ) -> tuple[PairScores, npt.NDArray[np.float64]]:
        """Score pairs, and say how far the tokens of a query agree.

        Parameters
        ----------
        pairs
            Any number, n; of any queries.

        Returns
        -------
        tuple of PairScores and ndarray
            What `score` gives, and float64 [n]: the standard error of each mean, s / sqrt(|q|), with s the sample
            standard deviation over the tokens. It is infinite for a query of one token, which has no spread.

        Raises
        ------
        InvalidInputError
            If a query has no tokens.
        TooLargeError
            If a query is too long for the model's context.
        """
        queries, documents = _encode(self._prompts, pairs)
        continuations = [self._prompts.continuation(query) for query in queries]
        for (query, _), wanted in zip(pairs, continuations, strict=True):
            if not wanted:
                raise InvalidInputError(f"query {query.id!r} is {query.text!r}; it needs some words", field="query")
        prompts = [
            self._prompts.render({"query": query, "document": document})
            for query, document in zip(queries, documents, strict=True)
        ]
        read = self._model.continuation_log_probabilities(prompts, continuations) if prompts else []
        values = [np.asarray(row, dtype=np.float64) for row in read]
        scores = np.array([row.mean() for row in values], dtype=np.float64)
        errors = np.array([standard_error(row) for row in values], dtype=np.float64)
        tokens = tuple(len(prompt) + len(wanted) for prompt, wanted in zip(prompts, continuations, strict=True))
        return PairScores(scores, tuple(document.reading for document in documents), tokens), errors


def standard_error(values: npt.NDArray[np.float64]) -> float:
    """Give the standard error of a mean: sqrt(sum of (x - mean)^2 / (n - 1) / n).

    Parameters
    ----------
    values
        float64 [n], at least one.

    Returns
    -------
    float
        Infinite where n is 1.

    Examples
    --------
    >>> standard_error(np.array([1.0, 3.0]))  # sqrt(2 / 1 / 2)
    1.0
    """
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("inf")


def _encode(
    prompts: PairPrompt, pairs: Sequence[tuple[Query, Document]]
) -> tuple[list[EncodedText], list[EncodedText]]:
    """Encode the queries and the documents of pairs, each text once."""
    queries = {query.text: prompts.encode_query(query.text) for query in dict.fromkeys(query for query, _ in pairs)}
    contents = [document.content for _, document in pairs]
    documents = {content: prompts.encode_document(content) for content in dict.fromkeys(contents)}
    return [queries[query.text] for query, _ in pairs], [documents[content] for content in contents]
