"""The embedding model, loaded once for all tests of this package."""

from __future__ import annotations

import pytest

from index.encoders import Encoder


@pytest.fixture(scope="session")
def encoder(minilm: str) -> Encoder:
    """all-MiniLM-L6-v2, 384 dimensions, on the processor."""
    return Encoder(minilm, device="cpu")
