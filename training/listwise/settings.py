"""What a training run of a listwise reranker is told; stored whole beside the model."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.listwise.losses import LOSS_WEIGHTS


class ListwiseSettings(BaseModel):
    """Settings of `training.listwise.loop.train`.

    The defaults are those for a small model on a CPU; the recipe of FIRST for 7B (arXiv 2406.15657, section 3) is
    ``learning_rate=5e-6, lists_per_step=128, passage_tokens=300, adapter_rank=0, precision="bf16"``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: str = "first"
    passage_tokens: int = Field(60, ge=1)
    min_candidates: int = Field(2, ge=2)
    max_candidates: int = Field(20, ge=2, le=52)
    """Candidates of a training list, drawn evenly between the two and shown in random order."""

    ranking_loss: Literal["ranknet", "listnet", "lambdarank", "neural-ndcg"] | None = "ranknet"
    ranking_weight: float | None = Field(None, ge=0)
    """lambda of L_LM + lambda L_rank; that of the paper if None."""
    language_model_weight: float = Field(1.0, ge=0)

    adapter_rank: int = Field(16, ge=0)
    """Rank of the LoRA adapters (Hu et al., ICLR 2022) on every linear layer of the body; 0 trains all weights."""
    adapter_scale: int = Field(2, ge=1)
    """alpha / rank."""

    steps: int = Field(500, ge=1)
    lists_per_step: int = Field(4, ge=1)
    lists_per_pass: int = Field(1, ge=1)
    """Lists packed into one forward pass; a divisor of `lists_per_step`."""
    queries_per_list: int = Field(8, ge=1)
    """Most queries that are learned together where several lists hold the same documents; they count as one list."""
    learning_rate: float = Field(3e-4, gt=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the rate rises to `learning_rate`, before it falls along a cosine to a tenth."""
    weight_decay: float = Field(0.0, ge=0)
    max_gradient_norm: float = Field(1.0, gt=0)
    noise: float = Field(5.0, ge=0)
    """alpha of NEFTune (arXiv 2310.05914): uniform noise of alpha / sqrt(T D) on embeddings of a list of T tokens."""
    precision: Literal["no", "bf16"] = "no"
    gradient_checkpointing: bool = False

    dev_lists: int = Field(100, ge=1)
    """Most held-out lists that a measurement looks at."""
    steps_between_measurements: int = Field(50, ge=1)
    steps_between_checkpoints: int = Field(25, ge=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _fits_together(self) -> ListwiseSettings:
        if self.min_candidates > self.max_candidates:
            raise ValueError(f"min_candidates {self.min_candidates} is more than max_candidates {self.max_candidates}")
        if self.lists_per_step % self.lists_per_pass:
            raise ValueError(
                f"lists_per_pass {self.lists_per_pass} does not divide lists_per_step {self.lists_per_step}"
            )
        if self.ranking_loss is None and not self.language_model_weight:
            raise ValueError("nothing to learn from: no ranking_loss, and language_model_weight is 0")
        return self

    @property
    def rank_weight(self) -> float:
        """The weight of the ranking loss, 0 where there is none."""
        if self.ranking_loss is None:
            return 0.0
        return LOSS_WEIGHTS[self.ranking_loss] if self.ranking_weight is None else self.ranking_weight
