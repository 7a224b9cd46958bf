"""Losses of a cross-encoder over the candidates of a query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.util import batch_to_device
from torch import Tensor, nn
from torch.nn import functional as F

from rankers.batching import CPU_PASS_TOKENS, token_batches
from training.cross_encoder.settings import CrossEncoderSettings
from training.listwise.losses import listnet

MAX_BATCH_TOKENS = 4096


class ListLoss(nn.Module):
    """The mean loss of a batch of lists; what `sentence_transformers.CrossEncoderTrainer` calls.

    The library's own losses run the model themselves and give one scalar, so neither a weight per list nor a
    regulariser over the same logits could be added to them; and they pad short documents to the longest of the batch.

    Parameters
    ----------
    model
        With one output per pair.
    settings
        Which loss, and what is added to it.

    Attributes
    ----------
    progress
        Share of the training that is done, in [0, 1], for the curriculum; set from outside.
    """

    def __init__(self, model: CrossEncoder, settings: CrossEncoderSettings) -> None:
        super().__init__()
        self.model = model
        self.progress = 0.0
        self._settings = settings
        # A trainer that shares work among processes puts something around `self.model` that has neither.
        self._tokenizer, self._preprocess = model.tokenizer, model.preprocess

    def forward(
        self,
        inputs: tuple[list[str], list[list[str]], list[list[int]], list[float]],
        labels: Sequence[Tensor],
        **_context: Any,
    ) -> Tensor:
        """Compute the loss of B lists.

        Parameters
        ----------
        inputs
            Query, documents, ranks of the first stage and easiness of each list, as `training.cross_encoder.rows` has
            them.
        labels
            Targets of each list, float [L].
        **_context
            What the trainer passes to any loss; not used.

        Returns
        -------
        Tensor
            Scalar.
        """
        queries, documents, ranks, easiness = inputs
        pairs = [(query, text) for query, texts in zip(queries, documents, strict=True) for text in texts]
        scores = self._score(pairs).split([len(texts) for texts in documents])
        settings = self._settings
        losses = []
        for i, target in enumerate(labels):
            loss = LIST_LOSSES[settings.loss](scores[i], target.to(scores[i]), settings.sharpness)
            if settings.rank_regularisation:
                loss = loss + settings.rank_regularisation * rank_distance(scores[i], ranks[i])
            losses.append(loss * list_weight(easiness[i], self.progress, settings.curriculum))
        return torch.stack(losses).mean()

    def _score(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Score pairs, those of similar length together: float32 [P], in the order given."""
        encoded = self._tokenizer(
            [query for query, _ in pairs], [text for _, text in pairs], truncation="longest_first", verbose=False
        )
        lengths = [len(ids) for ids in encoded["input_ids"]]
        pass_tokens = CPU_PASS_TOKENS if self.model.device.type == "cpu" else None
        batches = token_batches(lengths, max_batch_tokens=MAX_BATCH_TOKENS, pass_tokens=pass_tokens)
        parts = []
        for batch in batches:
            # A plain dictionary, because what shares the work among processes looks for tensors in nothing else.
            features = batch_to_device(dict(self._preprocess([pairs[i] for i in batch])), self.model.device)
            parts.append(self.model(features)["scores"].view(-1).float())
        order = torch.tensor([i for batch in batches for i in batch], device=parts[0].device)
        return torch.cat(parts)[order.argsort()]


def listnet_loss(scores: Tensor, targets: Tensor, sharpness: float) -> Tensor:
    """ListNet with targets stretched to [0, sharpness]; float [L] both.

    >>> round(listnet_loss(torch.tensor([0.0, 0.0]), torch.tensor([2.0, 1.0]), 5.0).item(), 4)  # ln 2
    0.6931
    """
    return listnet(scores, sharpness * _unit(targets), where=torch.ones_like(scores, dtype=torch.bool))


def binary_loss(scores: Tensor, targets: Tensor, _sharpness: float) -> Tensor:
    """Cross-entropy of each candidate by itself, targets stretched to [0, 1]; float [L] both.

    >>> round(binary_loss(torch.tensor([0.0, 0.0]), torch.tensor([2.0, 1.0]), 5.0).item(), 4)  # ln 2
    0.6931
    """
    return F.binary_cross_entropy_with_logits(scores, _unit(targets))


def margin_mse_loss(scores: Tensor, targets: Tensor, _sharpness: float) -> Tensor:
    """Mean over pairs i < j of ((s_i - s_j) - (t_i - t_j))^2; float [L] both.

    Targets are the teacher's scores, as they are (Hofstätter et al., "Improving Efficient Neural Ranking Models with
    Cross-Architecture Knowledge Distillation", arXiv 2010.02666, over all pairs of the list).

    >>> margin_mse_loss(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0]), 5.0)
    tensor(1.)
    """
    # The sum over pairs of (e_i - e_j)^2 is L times the sum of squares around the mean.
    errors = scores - targets
    return 2 * len(errors) / (len(errors) - 1) * ((errors - errors.mean()) ** 2).mean()


LIST_LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "listnet": listnet_loss,
    "binary": binary_loss,
    "margin-mse": margin_mse_loss,
}
"""Losses of one list by the name that settings give them: scores [L], targets [L], sharpness -> scalar."""


def rank_distance(scores: Tensor, ranks: Sequence[int]) -> Tensor:
    """Squared distance of logits to the scores of the first stage, both around their means: rank regularisation.

    xMEN (arXiv 2310.11275) adds this distance to keep a reranker near its candidate generator. Training lists keep
    the order of the first stage and not its scores, so -ln rank stands for them, about how BM25's fall. A logit that
    is the same for all candidates orders nothing, hence the means.

    >>> rank_distance(7 - torch.tensor([1.0, 2.0]).log(), [1, 2]).item() < 1e-6
    True
    """
    wanted = -torch.log(torch.tensor(ranks, dtype=scores.dtype, device=scores.device))
    return (((scores - scores.mean()) - (wanted - wanted.mean())) ** 2).mean()


def list_weight(easiness: float, progress: float, curriculum: float) -> float:
    """How much a list counts: its easiness at the start, rising linearly to 1 when `curriculum` of the steps are done.

    MacAvaney et al., "Training Curricula for Open Domain Answer Re-Ranking", SIGIR 2020, with the share of well-ordered
    pairs as how easy a list is.

    >>> list_weight(0.25, 0.0, 0.5), list_weight(0.25, 0.25, 0.5), list_weight(0.25, 0.5, 0.5)
    (0.25, 0.625, 1.0)
    """
    done = min(progress / curriculum, 1.0) if curriculum else 1.0
    return easiness + (1.0 - easiness) * done


def _unit(targets: Tensor) -> Tensor:
    """Stretch to [0, 1]; 0 where what differed in a list is the same in float32."""
    return (targets - targets.min()) / (targets.max() - targets.min()).clamp_min(torch.finfo(targets.dtype).tiny)
