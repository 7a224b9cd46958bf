"""Models that several tests of this package share; loading one takes seconds."""

from __future__ import annotations

import pytest

from rankers.llm.transformers_engine import TransformersEngine


@pytest.fixture(scope="session")
def smollm2_engine(smollm2: str) -> TransformersEngine:
    """SmolLM2-135M in float32 on the CPU."""
    return TransformersEngine.load(smollm2, device="cpu", dtype="float32")
