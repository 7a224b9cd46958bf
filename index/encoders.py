"""Text to vectors, on sentence-transformers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sentence_transformers import SentenceTransformer

from rankers.errors import NotFoundError
from rankers.llm.precision import use_avx512_products


class Encoder:
    """A bi-encoder: queries and documents become vectors whose inner product is their similarity.

    Where a model defines prompts for queries and for documents, they are used. Calls from several threads take turns.

    Parameters
    ----------
    model
        A folder, or a hub name such as ``sentence-transformers/all-MiniLM-L6-v2``.
    device
        A torch device such as ``cpu`` or ``cuda:1``; the best one there is if not given.
    max_tokens
        Where longer texts are cut; the model's own limit if not given.
    batch_size
        Texts of one forward pass.

    Raises
    ------
    NotFoundError
        If the model cannot be loaded from there.
    """

    def __init__(
        self, model: str, *, device: str | None = None, max_tokens: int | None = None, batch_size: int = 32
    ) -> None:
        try:
            self._model = SentenceTransformer(model, device=device)
        except OSError as error:
            raise NotFoundError(
                f"no embedding model at {model!r}: give a folder, or a hub name where there is a network ({error})"
            ) from error
        if max_tokens is not None:
            self._model.max_seq_length = max_tokens
        if self._model.device.type == "cpu":
            use_avx512_products()
        self._batch_size = batch_size
        self._lock = threading.Lock()  # a tokenizer's truncation is state that two threads must not share
        self.dimensions = int(self._encode(self._model.encode_query, ["measure"]).shape[1])

    def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed queries: float32 [N, D], unit length."""
        return self._encode_all(self._model.encode_query, texts)

    def encode_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed documents: float32 [N, D], unit length."""
        return self._encode_all(self._model.encode_document, texts)

    def _encode_all(self, encode: Callable[..., Any], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return self._encode(encode, texts) if texts else np.empty((0, self.dimensions), dtype=np.float32)

    def _encode(self, encode: Callable[..., Any], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        with self._lock:
            vectors = encode(
                list(texts), batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
            )
        return np.asarray(vectors, dtype=np.float32)
