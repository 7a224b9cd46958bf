"""A vector for every token of a text: where they come from, and how to do with fewer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rankers.errors import ConfigError
from rankers.llm.precision import use_avx512_products
from rankers.types import Reading

MAX_ITERATIONS = 25
"""Steps of k-means; a few hundred vectors settle in about ten."""


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
        if self._model.device.type == "cpu":
            use_avx512_products()
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
