"""What every run of a trainer of sentence-transformers is told."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainerSettings(BaseModel):
    """Settings that training runs share; what a kind of model adds, and its learning rate, is in a class of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(160, ge=8, le=8192)
    """Of a text, or a pair; no more than the model reads."""
    epochs: int = Field(1, ge=1)
    steps: int | None = Field(None, ge=1)
    """Stop here, if the epochs have not ended before."""
    learning_rate: float = Field(gt=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    precision: Literal["no", "bf16"] = "no"

    dev_lists: int = Field(100, ge=1)
    """Most held-out lists that a measurement looks at."""
    steps_between_checkpoints: int = Field(100, ge=1)
    """Also between measurements, because the best checkpoint is kept."""
    seed: int = Field(0, ge=0)
