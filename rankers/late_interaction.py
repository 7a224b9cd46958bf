"""Late interaction: one vector per token, and a document scores by what its best token says to each of the query's.

Khattab and Zaharia, "ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction over BERT",
SIGIR 2020 (arXiv 2004.12832). Sentences: Reddy et al., "AGRaME: Any-Granularity Ranking with Multi-Vector Embeddings",
EMNLP 2024 (arXiv 2405.15028). Fewer vectors: Veneroso et al., "CRISP: Clustering Multi-Vector Representations for
Denoising and Pruning", 2025 (arXiv 2505.11471).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rankers.errors import ConfigError, InvalidInputError
from rankers.types import Document, PairScores, Query, Reading, ScoreKind

LEAST_SIMILARITY = -1.0
"""Score of a document without tokens, or against a query without tokens."""
MAX_ITERATIONS = 25
"""Steps of k-means; a few hundred vectors settle in about ten."""
# What ends a sentence, with closing quotes and brackets after it, or a line break.
_SENTENCE_END = re.compile(r"[.!?\u2026]+[\"'\u201d\u2019)\]]*(?=\s)|[\u3002\uff01\uff1f]|\n+")


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


def cluster_vectors(
    vectors: npt.NDArray[np.float32], *, fraction: float = 1 / 3, seed: int = 0
) -> npt.NDArray[np.float32]:
    """Replace the vectors of a text by fewer: centroids of k-means, k = ceil(fraction * T), scaled to unit length.

    Parameters
    ----------
    vectors
        float32 [T, D], unit length.
    fraction
        Share of the vectors to keep, over 0 and at most 1.
    seed
        Of the choice of the first centroids (k-means++).

    Returns
    -------
    ndarray
        float32 [at most k, D]. Where there are no more than k different vectors, these are given as they are.

    Raises
    ------
    ConfigError
        If the fraction is out of range.

    Examples
    --------
    >>> cluster_vectors(np.array([[1, 0], [0, 1], [1, 0]], dtype=np.float32), fraction=0.5)
    array([[0., 1.],
           [1., 0.]], dtype=float32)
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction of vectors to keep is {fraction}, must be over 0 and at most 1")
    distinct = np.unique(vectors, axis=0)
    size = math.ceil(fraction * len(vectors))
    if len(distinct) <= size:
        return np.asarray(distinct, dtype=np.float32)
    centroids = _first_centroids(vectors, size, np.random.default_rng(seed))
    nearest = np.full(len(vectors), -1)
    for _ in range(MAX_ITERATIONS):
        # Least |x - c|^2 = greatest x . c - |c|^2 / 2.
        found = np.argmax(vectors @ centroids.T - (centroids**2).sum(axis=1) / 2, axis=1)
        if np.array_equal(found, nearest):
            break
        nearest = found
        kept = np.unique(nearest)  # a centroid that is nearest to nothing goes
        centroids = np.stack([vectors[nearest == centre].mean(axis=0) for centre in kept])
        nearest = np.searchsorted(kept, nearest)
    return _unit(centroids)


def _first_centroids(
    vectors: npt.NDArray[np.float32], size: int, random: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Choose vectors far from each other: each next one with a chance that grows with its squared distance."""
    chosen = [int(random.integers(len(vectors)))]
    distances = np.full(len(vectors), np.inf)
    while len(chosen) < size:
        distances = np.minimum(distances, ((vectors - vectors[chosen[-1]]).astype(np.float64) ** 2).sum(axis=1))
        chosen.append(int(random.choice(len(vectors), p=distances / distances.sum())))
    first: npt.NDArray[np.float32] = vectors[chosen]
    return first


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Split a text into sentences by rule.

    A sentence ends with ``.``, ``!``, ``?`` or an ellipsis (and closing quotes or brackets) before white space, with
    the full stops of Chinese and Japanese, or at a line break. So "Dr. No" is two sentences and "3.5" is none.

    Parameters
    ----------
    text
        Any.

    Returns
    -------
    list of tuple of int and int
        Characters from (included) and to (excluded) of each sentence, without white space around it.

    Examples
    --------
    >>> text = 'It cost 3.5. "Why?" she asked'
    >>> [text[start:end] for start, end in split_sentences(text)]
    ['It cost 3.5.', '"Why?"', 'she asked']
    """
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    spans = []
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        words = text[start:end].strip()
        if words:
            first = start + text[start:end].index(words)
            spans.append((first, first + len(words)))
    return spans


@dataclass(frozen=True, slots=True, eq=False)
class TokenVectors:
    """A text as one vector per token.

    `vectors` are float32 [T, D] of unit length; `offsets` int [T, 2] the characters from (included) and to (excluded)
    that each stands for; `reading` how much of the text that is.
    """

    vectors: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.int64]
    reading: Reading


class TokenEncoder(Protocol):
    """Gives each token of a text a vector."""

    def encode_queries(self, texts: Sequence[str]) -> list[TokenVectors]:
        """Encode queries."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> list[TokenVectors]:
        """Encode documents."""
        ...


class SentenceTransformerTokens:
    """The token embeddings of a sentence-transformers model; a `TokenEncoder`.

    Special tokens, and a prompt that the model puts before a text, shape the vectors of the others and get none
    themselves. Not safe for concurrent calls: one caller at a time.

    Parameters
    ----------
    model
        A folder or hub name. Code that comes with a model is never run.
    device
        A torch device; sentence-transformers chooses when not given.
    max_tokens
        Longest text that is read, special tokens included; the model's own limit when not given.
    batch_size
        Texts of one forward pass.

    Raises
    ------
    ConfigError
        If the model cannot be loaded, or its tokenizer does not say where its tokens are.
    """

    def __init__(
        self, model: str, *, device: str | None = None, max_tokens: int | None = None, batch_size: int = 32
    ) -> None:
        from sentence_transformers import SentenceTransformer

        try:
            self._model = SentenceTransformer(model, device=device, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot load {model!r} as a sentence-transformers model: {error}") from error
        self._tokenizer: Any = self._model.tokenizer
        if not getattr(self._tokenizer, "is_fast", False):
            raise ConfigError(f"{model!r} has no fast tokenizer (tokenizer.json), which locating its tokens needs")
        if max_tokens is not None:
            self._model.max_seq_length = max_tokens
        self._batch_size = batch_size
        self._name = model

    def encode_queries(self, texts: Sequence[str]) -> list[TokenVectors]:
        """Encode queries, with the model's prompt for queries if it has one.

        Parameters
        ----------
        texts
            Any number, N.

        Returns
        -------
        list of TokenVectors
            N of them, in order.
        """
        return self._encode(texts, prompt=self._model.prompts.get("query") or "")

    def encode_documents(self, texts: Sequence[str]) -> list[TokenVectors]:
        """Encode documents, with the model's prompt for documents if it has one.

        Parameters
        ----------
        texts
            Any number, N.

        Returns
        -------
        list of TokenVectors
            N of them, in order.
        """
        return self._encode(texts, prompt=self._model.prompts.get("document") or "")

    def _encode(self, texts: Sequence[str], *, prompt: str) -> list[TokenVectors]:
        if not texts:
            return []
        whole = [prompt + text for text in texts]
        encoded = self._model.encode(
            whole, prompt="", output_value="token_embeddings", batch_size=self._batch_size, show_progress_bar=False
        )
        limit = self._model.max_seq_length
        cut = self._tokenizer(whole, truncation=limit is not None, max_length=limit, return_offsets_mapping=True)
        total = self._tokenizer(whole, return_offsets_mapping=True, verbose=False)
        return [
            self._token_vectors(vectors.float().cpu().numpy(), read, every, len(prompt))
            for vectors, read, every in zip(encoded, cut["offset_mapping"], total["offset_mapping"], strict=True)
        ]

    def _token_vectors(
        self,
        vectors: npt.NDArray[np.float32],
        read: Sequence[tuple[int, int]],
        every: Sequence[tuple[int, int]],
        prompt_length: int,
    ) -> TokenVectors:
        if len(vectors) != len(read):
            raise ConfigError(
                f"{self._name!r} gives {len(vectors)} vectors for a text of {len(read)} tokens; use a model whose "
                "first module is a plain transformer that pads on the right"
            )
        # A special token stands for no characters.
        offsets = np.array(read, dtype=np.int64).reshape(-1, 2) - prompt_length
        text = (offsets[:, 0] < offsets[:, 1]) & (offsets[:, 0] >= 0)
        total = sum(prompt_length <= start < end for start, end in every)
        return TokenVectors(_unit(vectors[text]), offsets[text], Reading(int(text.sum()), total))


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
