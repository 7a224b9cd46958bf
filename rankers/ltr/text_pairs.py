"""Query and document texts as numeric features: how two vectors of a bi-encoder agree, dimension by dimension.

[q * d, |q - d|, q . d] of unit vectors q and d: products and distances of sentence encodings, as in Tai, Socher, Manning,
ACL 2015 (section 4.2), and Conneau et al., EMNLP 2017. A linear scorer over them is a diagonal bilinear form; a network
can do more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rankers.errors import ConfigError
from rankers.ltr.models import NumericRanker
from rankers.types import Document, PairScores, Query, Reading, ScoreKind


class TextEncoder(Protocol):
    """Texts to unit vectors; `index.encoders.Encoder` is one."""

    @property
    def dimensions(self) -> int:
        """D."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed queries: float32 [n, D]."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed documents: float32 [n, D]."""
        ...


def pair_encodings(queries: npt.NDArray[np.float32], documents: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Encode pairs of vectors.

    Parameters
    ----------
    queries
        float32 [n, D].
    documents
        float32 [n, D].

    Returns
    -------
    array
        float32 [n, 2 D + 1]: products, distances, and the inner product.

    Examples
    --------
    >>> q, d = np.array([[0.6, 0.8]], np.float32), np.array([[1.0, 0.0]], np.float32)
    >>> pair_encodings(q, d).round(4).tolist() == np.float32([[0.6, 0.0, 0.4, 0.8, 0.6]]).tolist()
    True
    """
    products = queries * documents
    return np.concatenate([products, np.abs(queries - documents), products.sum(axis=1, keepdims=True)], axis=1)


def pair_feature_names(dimensions: int) -> tuple[str, ...]:
    """Name the 2 D + 1 columns of `pair_encodings`."""
    each = range(dimensions)
    return (*(f"text_product_{i}" for i in each), *(f"text_distance_{i}" for i in each), "text_similarity")


def encode_text_pairs(encoder: TextEncoder, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
    """Encode pairs of query and document text; every distinct text is read once.

    Parameters
    ----------
    encoder
        Any bi-encoder.
    pairs
        n of them.

    Returns
    -------
    array
        float32 [n, 2 D + 1], columns as `pair_feature_names`.
    """
    queries = {text: i for i, text in enumerate(dict.fromkeys(query for query, _ in pairs))}
    documents = {text: i for i, text in enumerate(dict.fromkeys(document for _, document in pairs))}
    query_vectors, document_vectors = encoder.encode_queries([*queries]), encoder.encode_documents([*documents])
    return pair_encodings(
        query_vectors[[queries[query] for query, _ in pairs]],
        document_vectors[[documents[document] for _, document in pairs]],
    )


class TextPairScorer:
    """A learnt ranker over pair encodings, as a `rankers.protocols.Scorer` of texts.

    Parameters
    ----------
    encoder
        The one it was trained with.
    model
        Trained on columns of `pair_feature_names`.
    """

    score_kind = ScoreKind.PREFERENCE

    def __init__(self, encoder: TextEncoder, model: NumericRanker) -> None:
        expected = pair_feature_names(encoder.dimensions)
        if model.feature_names != expected:
            raise ConfigError(
                f"the model reads {len(model.feature_names)} features, first {model.feature_names[:1]}; a vector of "
                f"{encoder.dimensions} dimensions makes {len(expected)}, first {expected[:1]}: give the encoder it was "
                "trained with"
            )
        self._encoder, self._model = encoder, model

    def score(self, pairs: Sequence[tuple[Query, Document]]) -> PairScores:
        """Score pairs: only differences between documents of one query mean something.

        Parameters
        ----------
        pairs
            Any number, of any queries.

        Returns
        -------
        PairScores
            Scores float64 [n]. How much of a text the encoder read is not known: tokens are 0.
        """
        if not pairs:
            return PairScores(np.empty(0), (), ())
        encodings = encode_text_pairs(self._encoder, [(query.text, document.content) for query, document in pairs])
        unread = Reading(tokens_used=0, tokens_total=0)
        return PairScores(self._model.score(encodings), (unread,) * len(pairs), (0,) * len(pairs))
