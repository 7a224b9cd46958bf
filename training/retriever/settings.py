"""What a training run of a retriever is told; stored whole beside the model."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class RetrieverSettings(BaseModel):
    """Settings of `training.retriever.run.train_retriever`; the defaults suit MiniLM on one CPU core."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    negatives: int = Field(3, ge=1)
    """Hard negatives of a query, beside the documents of the other queries in the batch."""
    temperature: float = Field(0.05, gt=0)
    """What cosines are divided by in the contrastive loss."""
    distillation_weight: float = Field(1.0, ge=0)
    """Of Margin-MSE, where there are lists of a teacher."""

    max_tokens: int = Field(160, ge=8, le=8192)
    epochs: int = Field(1, ge=1)
    steps: int | None = Field(None, ge=1)
    """Stop here, if the epochs have not ended before."""
    queries_per_step: int = Field(16, ge=2)
    learning_rate: float = Field(2e-5, gt=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    precision: Literal["no", "bf16"] = "no"

    dev_lists: int = Field(100, ge=1)
    """Most held-out lists that a measurement looks at."""
    steps_between_checkpoints: int = Field(100, ge=1)
    """Also between measurements, because the best checkpoint is kept."""
    seed: int = 0
