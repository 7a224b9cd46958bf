"""Losses of listwise ranking: pure functions over the last axis, a mask in `where`.

Letters in shapes: L candidates of a list, ``...`` any leading axes. Targets are compared within a list only: greater is
better, equal ones are not to be told apart. Every loss is the mean over the lists in which something can be learned;
without any it is 0 and so is its gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.ultr.losses import log_softmax

SINKHORN_ITERATIONS = 50
LOWEST = -1e9


def teacher_ranks(targets: Tensor, *, where: Tensor) -> Tensor:
    """Ranks from 1, equal targets sharing their mean rank; float [..., L].

    >>> teacher_ranks(torch.tensor([0.0, 2.0, 0.0, 5.0]), where=torch.tensor([True] * 4))
    tensor([3.5000, 2.0000, 3.5000, 1.0000])
    """
    greater = (targets[..., None, :] > targets[..., :, None]) & where[..., None, :]
    equal = (targets[..., None, :] == targets[..., :, None]) & where[..., None, :]
    return greater.sum(-1) + (equal.sum(-1) + 1) / 2


def ranknet(scores: Tensor, targets: Tensor, *, where: Tensor) -> Tensor:
    """RankNet weighted by rank, the ranking loss of FIRST.

    The mean over pairs with teacher ranks i < j of 1 / (i + j) * log(1 + exp(s_j - s_i)) (Reddy et al., "FIRST: Faster
    Improved Listwise Reranking with Single Token Decoding", arXiv 2406.15657, equation 3).

    Parameters
    ----------
    scores
        float [..., L].
    targets
        float [..., L].
    where
        bool [..., L], the candidates that exist.

    Returns
    -------
    Tensor
        Scalar.

    Examples
    --------
    >>> loss = ranknet(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]), where=torch.tensor([True, True]))
    >>> round(loss.item(), 4)  # ln 2 / 3
    0.231
    """
    ranks = teacher_ranks(targets, where=where)
    weights = _ordered_pairs(targets, where=where) / (ranks[..., :, None] + ranks[..., None, :])
    return _mean_over_pairs(scores, weights, targets, where=where)


def lambdarank(scores: Tensor, targets: Tensor, *, where: Tensor) -> Tensor:
    """RankNet with every pair weighted by how much swapping it would change nDCG, with gain 2^target - 1.

    The mean over pairs with t_i > t_j of |dG_ij * dD_ij| / maxDCG * log(1 + exp(s_j - s_i)), where D is the discount
    1 / log2(1 + rank) at the current ranks (Burges, "From RankNet to LambdaRank to LambdaMART", MSR-TR-2010-82, section
    4; as a loss with fixed weights, Wang et al., CIKM 2018, equation 13).

    Parameters
    ----------
    scores
        float [..., L].
    targets
        float [..., L], grades: at least 0, and few, as gains grow as 2^target.
    where
        bool [..., L], the candidates that exist.

    Returns
    -------
    Tensor
        Scalar.
    """
    gains = _gains(targets, where=where)
    current = scores.detach().masked_fill(~where, LOWEST).argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    discounts = 1 / torch.log2(current.to(gains.dtype) + 2)
    change = (gains[..., :, None] - gains[..., None, :]).abs()
    change = change * (discounts[..., :, None] - discounts[..., None, :]).abs()
    change = change / _ideal_dcg(gains)[..., None, None]
    return _mean_over_pairs(scores, change * _ordered_pairs(targets, where=where), targets, where=where)


def listnet(scores: Tensor, targets: Tensor, *, where: Tensor) -> Tensor:
    """Cross-entropy of the top-one probabilities: -sum_i softmax(t)_i log softmax(s)_i.

    Cao, Qin, Liu, Tsai, Li, "Learning to Rank: From Pairwise Approach to Listwise Approach", ICML 2007, equation 4.

    Parameters
    ----------
    scores
        float [..., L].
    targets
        float [..., L], used as logits; scale them to say how sure the teacher is.
    where
        bool [..., L], the candidates that exist.

    Returns
    -------
    Tensor
        Scalar.

    Examples
    --------
    >>> both = torch.tensor([True, True])
    >>> round(listnet(torch.tensor([0.0, 0.0]), torch.tensor([4.0, 1.0]), where=both).item(), 4)  # ln 2
    0.6931
    """
    loss = -(log_softmax(targets, where=where).exp() * log_softmax(scores, where=where)).sum(-1)
    return _mean_over_lists(loss, targets, where=where)


def neural_ndcg(scores: Tensor, targets: Tensor, *, where: Tensor, temperature: float = 1.0) -> Tensor:
    """One minus nDCG with a relaxed sort, gain 2^target - 1.

    NeuralSort's permutation matrix, rows softmax(((n + 1 - 2i) s - A_s 1) / temperature) with A_s[j, k] = |s_j - s_k|,
    made doubly stochastic by Sinkhorn's iteration, spreads the gains over the discounts (Pobrotyn and Białobrzeski,
    "NeuralNDCG", arXiv 2102.07831, equations 5 and 8).

    Parameters
    ----------
    scores
        float [..., L].
    targets
        float [..., L], grades: at least 0, and few.
    where
        bool [..., L], the candidates that exist.
    temperature
        Above 0; near 0 the sort is exact and its gradient vanishes.

    Returns
    -------
    Tensor
        Scalar in [0, 1].
    """
    length = scores.shape[-1]
    sizes = where.sum(-1, keepdim=True)  # [..., 1]
    pairs = where[..., :, None] & where[..., None, :]
    distance = ((scores[..., :, None] - scores[..., None, :]).abs() * pairs).sum(-1)  # [..., L]
    places = torch.arange(1, length + 1, device=scores.device)
    slopes = (sizes + 1 - 2 * places).to(scores.dtype)  # [..., L]
    logits = (slopes[..., :, None] * scores[..., None, :] - distance[..., None, :]) / temperature  # [..., place, item]
    exists = (places <= sizes)[..., :, None] & where[..., None, :]
    matrix = logits.masked_fill(~exists, LOWEST).softmax(dim=-1) * exists
    for _ in range(SINKHORN_ITERATIONS):
        matrix = _normalised(_normalised(matrix, dim=-2), dim=-1)
    gains = _gains(targets, where=where)
    discounts = 1 / torch.log2(places.to(scores.dtype) + 1)
    dcg = ((matrix @ gains[..., None])[..., 0] * discounts).sum(-1)
    return _mean_over_lists(1 - dcg / _ideal_dcg(gains), targets, where=where)


LOSSES = {"ranknet": ranknet, "listnet": listnet, "lambdarank": lambdarank, "neural-ndcg": neural_ndcg}
"""Ranking losses by the name that a configuration gives them."""
LOSS_WEIGHTS = {"ranknet": 10.0, "listnet": 0.1, "lambdarank": 10.0, "neural-ndcg": 1.0}
"""lambda in L_LM + lambda * L_rank: the paper's for RankNet and ListNet, of the same magnitude for the others."""
GRADED_LOSSES = frozenset({"lambdarank", "neural-ndcg"})
"""Losses whose targets are grades, whose gains grow as 2^target."""


def _ordered_pairs(targets: Tensor, *, where: Tensor) -> Tensor:
    """1 where the first candidate is better than the second and both exist, else 0; float [..., L, L]."""
    better = targets[..., :, None] > targets[..., None, :]
    return (better & where[..., :, None] & where[..., None, :]).to(targets.dtype)


def _mean_over_pairs(scores: Tensor, weights: Tensor, targets: Tensor, *, where: Tensor) -> Tensor:
    pairs = _ordered_pairs(targets, where=where).sum((-2, -1))
    scores = scores.masked_fill(~where, 0.0)
    costs = F.softplus(scores[..., None, :] - scores[..., :, None])
    return _mean_over_lists((weights * costs).sum((-2, -1)) / pairs.clamp_min(1), targets, where=where)


def _mean_over_lists(losses: Tensor, targets: Tensor, *, where: Tensor) -> Tensor:
    teaches = _ordered_pairs(targets, where=where).sum((-2, -1)) > 0
    return losses.masked_fill(~teaches, 0.0).sum() / teaches.sum().clamp_min(1)


def _normalised(matrix: Tensor, *, dim: int) -> Tensor:
    """Divide by the sums along an axis; sums of nothing count as 1, or gradients of padding would explode."""
    sums = matrix.sum(dim=dim, keepdim=True)
    return matrix / sums.masked_fill(sums == 0, 1.0)


def _gains(targets: Tensor, *, where: Tensor) -> Tensor:
    return (torch.exp2(targets) - 1).masked_fill(~where, 0.0)


def _ideal_dcg(gains: Tensor) -> Tensor:
    ordered = gains.sort(dim=-1, descending=True).values
    discounts = 1 / torch.log2(torch.arange(2, gains.shape[-1] + 2, device=gains.device, dtype=gains.dtype))
    return (ordered * discounts).sum(-1).clamp_min(1e-10)
