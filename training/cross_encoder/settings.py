"""What a training run of a cross-encoder is told; stored whole beside the model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from training.trainer_settings import TrainerSettings


class CrossEncoderSettings(TrainerSettings):
    """Settings of `training.cross_encoder.run.train_cross_encoder`; the defaults suit MiniLM on one CPU core."""

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

    candidates: int = Field(8, ge=2)
    """Candidates of a list that are scored in one step, drawn anew every epoch."""
    positives: int = Field(2, ge=1)
    """At most so many of them are of the better ones."""
    lists_per_step: int = Field(4, ge=1)
    learning_rate: float = Field(5e-5, gt=0)
    head_learning_rate: float = Field(5e-4, gt=0)
    """Of the head that the model did not have before."""
    freeze_embeddings: bool = True
    """Token embeddings stay those of the model it starts from: less to train, and to ship."""
    layers: int | None = Field(None, ge=0)
    """Only so many of the last layers are trained, beside the head; all of them if None."""
