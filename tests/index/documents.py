"""Documents that several tests of this package search."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rankers.types import Document

ANIMALS = (
    Document("fox", "The quick brown fox jumps over the lazy dog.", "Foxes"),
    Document("dog", "Dogs are loyal animals that guard a house."),
    Document(
        "cat", "A cat sleeps most of the day.", features={"age": 3.0}, metadata={"tags": ["pet", {"rare": False}]}
    ),
    Document("bird", "Birds sing in the early morning."),
)


def unit_vectors(count: int, dimensions: int, *, clusters: int, seed: int) -> npt.NDArray[np.float32]:
    """Draw unit vectors around random centres: float32 [count, dimensions]."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(clusters, dimensions))
    vectors = centres[random.integers(clusters, size=count)] + 0.5 * random.normal(size=(count, dimensions))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)
