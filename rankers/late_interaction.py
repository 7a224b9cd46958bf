"""Late interaction: one vector per token, and a document scores by what its best token says to each of the query's.

Khattab and Zaharia, "ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction over BERT",
SIGIR 2020 (arXiv 2004.12832). Sentences: Reddy et al., "AGRaME: Any-Granularity Ranking with Multi-Vector Embeddings",
EMNLP 2024 (arXiv 2405.15028). Fewer vectors: Veneroso et al., "CRISP: Clustering Multi-Vector Representations for
Denoising and Pruning", 2025 (arXiv 2505.11471).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankers.errors import ConfigError, InvalidInputError
from rankers.sentences import split_sentences
from rankers.token_vectors import TokenEncoder, cluster_vectors
from rankers.types import Document, PairScores, Query, ScoreKind

LEAST_SIMILARITY = -1.0
"""Score of a document without tokens, or against a query without tokens."""


def token_maxima(
    query_vectors: npt.ArrayLike, document_vectors: npt.ArrayLike, *, where: npt.ArrayLike | None = None
) -> npt.NDArray[np.float64]:
    """Give for each token of a query the inner product with the token of a document that is nearest to it.

    Parameters
    ----------
    query_vectors
        float [..., Q, D].
    document_vectors
        float [..., T, D].
    where
        bool [..., T]: the tokens that count; all when not given. Padding is left out, and so can never be the nearest.

    Returns
    -------
    ndarray
        float64 [..., Q]; minus infinity where no token counts.

    Examples
    --------
    >>> token_maxima([[1.0, 0.0], [0.0, 1.0]], [[-0.6, 0.8], [0.0, 0.0]], where=[True, False])
    array([-0.6,  0.8])
    """
    queries, documents = np.asarray(query_vectors), np.asarray(document_vectors)
    similarities = (queries @ np.swapaxes(documents, -1, -2)).astype(np.float64)  # [..., Q, T]
    counts = True if where is None else np.asarray(where, dtype=bool)[..., None, :]
    maxima: npt.NDArray[np.float64] = np.max(similarities, axis=-1, where=counts, initial=-np.inf)
    return maxima


def maxsim(
    query_vectors: npt.ArrayLike,
    document_vectors: npt.ArrayLike,
    *,
    query_where: npt.ArrayLike | None = None,
    document_where: npt.ArrayLike | None = None,
) -> npt.NDArray[np.float64]:
    """Sum over the tokens of a query what the nearest token of the document says to each.

    S(q, d) = sum over i of max over j of q_i . d_j (arXiv 2004.12832, equation 3).

    Parameters
    ----------
    query_vectors
        float [..., Q, D].
    document_vectors
        float [..., T, D].
    query_where
        bool [..., Q]: the tokens that count; all when not given.
    document_where
        bool [..., T]: the tokens that count; all when not given.

    Returns
    -------
    ndarray
        float64 [...]; minus infinity where no token of the document counts.

    Examples
    --------
    >>> float(maxsim([[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [1.0, 0.0]]))  # 1 + 0.8
    1.8
    """
    maxima = token_maxima(query_vectors, document_vectors, where=document_where)
    counts = True if query_where is None else np.asarray(query_where, dtype=bool)
    total: npt.NDArray[np.float64] = np.sum(maxima, axis=-1, where=counts)
    return total


@dataclass(frozen=True, slots=True)
class SentenceScore:
    """How well one sentence answers a query.

    Characters `start` (included) to `end` (excluded) of the document's content; `maxima`, one for each token of the
    query, and their mean, `score`.
    """

    start: int
    end: int
    score: float
    maxima: tuple[float, ...]


class LateInteractionScorer:
    """Scores pairs by late interaction; a `rankers.protocols.Scorer`.

    The score is MaxSim divided by the number of the query's tokens, so that it lies in [-1, 1]. Nothing is kept from
    one call to the next.

    Parameters
    ----------
    encoder
        Gives each token its vector.
    prune
        Share of a document's vectors to keep, by clustering; all when not given. About 1/3 keeps most of the quality.
    seed
        Of the clustering.

    Raises
    ------
    ConfigError
        If the share is out of range.
    """

    score_kind = ScoreKind.SIMILARITY

    def __init__(self, encoder: TokenEncoder, *, prune: float | None = None, seed: int = 0) -> None:
        if prune is not None and not 0 < prune <= 1:
            raise ConfigError(f"prune is {prune}, must be over 0 and at most 1; leave it out to keep every vector")
        self._encoder = encoder
        self._prune = prune
        self._seed = seed

    def score(self, pairs: Sequence[tuple[Query, Document]]) -> PairScores:
        """Score pairs: mean over the query's tokens of the similarity of the nearest token of the document.

        Parameters
        ----------
        pairs
            Any number, n; of any queries. Each text is encoded once.

        Returns
        -------
        PairScores
            Scores float64 [n] in the order given, -1 where a text has no tokens; how much of each document was read;
            and the tokens of both texts.
        """
        query_texts = list(dict.fromkeys(query.text for query, _ in pairs))
        contents = list(dict.fromkeys(document.content for _, document in pairs))
        queries = dict(zip(query_texts, self._encoder.encode_queries(query_texts), strict=True))
        documents = dict(zip(contents, self._encoder.encode_documents(contents), strict=True))
        vectors = {content: self._pruned(document.vectors) for content, document in documents.items()}
        scores = np.empty(len(pairs), dtype=np.float64)
        readings, tokens = [], []
        for i, (query, document) in enumerate(pairs):
            asked = queries[query.text]
            scores[i] = _mean(token_maxima(asked.vectors, vectors[document.content]))
            readings.append(documents[document.content].reading)
            tokens.append(asked.reading.tokens_used + readings[i].tokens_used)
        return PairScores(scores, tuple(readings), tuple(tokens))

    def sentence_scores(self, query: Query, document: Document) -> list[SentenceScore]:
        """Score each sentence of a document by its own tokens, from vectors that have seen the whole document.

        For every token of the query, the greatest of the sentences' maxima is that of the document without pruning.

        Parameters
        ----------
        query
            What was asked.
        document
            Split by `split_sentences`.

        Returns
        -------
        list of SentenceScore
            In the order of the text; sentences of which nothing was read are left out.

        Raises
        ------
        InvalidInputError
            If the query has no tokens.
        """
        (asked,), (read,) = (
            self._encoder.encode_queries([query.text]),
            self._encoder.encode_documents([document.content]),
        )
        if not len(asked.vectors):
            raise InvalidInputError(f"query {query.id!r} is {query.text!r}; it needs some words", field="query")
        sentences = split_sentences(document.content)
        # By the last character of a token, as some tokenizers count the space before a word as part of it.
        starts = [start for start, _ in sentences]
        owner = np.maximum(np.searchsorted(starts, read.offsets[:, 1] - 1, side="right") - 1, 0)
        found = []
        for i, (start, end) in enumerate(sentences):
            inside = owner == i
            if inside.any():
                maxima = token_maxima(asked.vectors, read.vectors, where=inside)
                found.append(SentenceScore(start, end, _mean(maxima), tuple(maxima.tolist())))
        return found

    def _pruned(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self._prune is None:
            return vectors
        return cluster_vectors(vectors, fraction=self._prune, seed=self._seed)


def _mean(maxima: npt.NDArray[np.float64]) -> float:
    if not maxima.size:
        return LEAST_SIMILARITY
    # Rounding takes the product of two unit vectors over 1.
    return float(np.clip(maxima.mean(), LEAST_SIMILARITY, 1.0))
