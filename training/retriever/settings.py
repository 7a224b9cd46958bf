"""What a training run of a retriever is told; stored whole beside the model."""

from __future__ import annotations

from pydantic import Field

from training.trainer_settings import TrainerSettings


class RetrieverSettings(TrainerSettings):
    """Settings of `training.retriever.run.train_retriever`; the defaults suit MiniLM on one CPU core."""

    negatives: int = Field(3, ge=1)
    """Hard negatives of a query, beside the documents of the other queries in the batch."""
    temperature: float = Field(0.05, gt=0)
    """What cosines are divided by in the contrastive loss."""
    distillation_weight: float = Field(1.0, ge=0)
    """Of Margin-MSE, where there are lists of a teacher."""

    queries_per_step: int = Field(16, ge=2)
    learning_rate: float = Field(2e-5, gt=0)
