"""What a training run of a cross-encoder is told; stored whole beside the model."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class CrossEncoderSettings(BaseModel):
    """Settings of `training.cross_encoder.run.train_cross_encoder`; the defaults suit MiniLM on one CPU core."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    loss: Literal["listnet", "binary", "margin-mse"] = "listnet"
    sharpness: float = Field(5.0, gt=0)
    """ListNet's targets run from 0 to this within a list, used as logits: greater is surer of the best."""
    rank_regularisation: float = Field(0.0, ge=0)
    """Weight of the squared distance between the logits and the first stage's (xMEN)."""
    curriculum: float = Field(0.0, ge=0, le=1)
    """Share of the steps in which hard lists count less, their weights rising linearly to 1; 0 for none."""

    head: Literal["similarity", "classifier"] = "similarity"
    """What an encoder gets on top: `rankers.pair_similarity`, or the plain classifier that any program can load."""
    cross_attention: float = Field(-2.5, le=0)
    """What is added to attention between query and document at the start; only for the similarity head."""

    max_tokens: int = Field(160, ge=8, le=8192)
    candidates: int = Field(8, ge=2)
    """Candidates of a list that are scored in one step, drawn anew every epoch."""
    positives: int = Field(2, ge=1)
    """At most so many of them are of the better ones."""
    epochs: int = Field(1, ge=1)
    steps: int | None = Field(None, ge=1)
    """Stop here, if the epochs have not ended before."""
    lists_per_step: int = Field(4, ge=1)
    learning_rate: float = Field(5e-5, gt=0)
    head_learning_rate: float = Field(5e-4, gt=0)
    """Of the head that the model did not have before."""
    warmup: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    freeze_embeddings: bool = True
    """Token embeddings stay those of the model it starts from: less to train, and to ship."""
    layers: int | None = Field(None, ge=0)
    """Only so many of the last layers are trained, beside the head; all of them if None."""
    precision: Literal["no", "bf16"] = "no"

    dev_lists: int = Field(100, ge=1)
    """Most held-out lists that a measurement looks at."""
    steps_between_checkpoints: int = Field(100, ge=1)
    """Also between measurements, because the best checkpoint is kept."""
    seed: int = 0
