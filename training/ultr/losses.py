"""Losses of learning to rank from clicks: pure functions over the last axis, a mask in `where`.

Letters in shapes: L places of a list, ``...`` any leading axes. All sums are over the whole batch, so that a batch is
normalised by its own weighted clicks; a batch without clicks has loss 0 and gradient 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

NEGLIGIBLE = 1e-12


def log_softmax(scores: Tensor, *, where: Tensor) -> Tensor:
    """Logarithm of the softmax over the places that exist, 0 at those that do not; float [..., L].

    >>> log_softmax(torch.tensor([0.0, 0.0, 9.0]), where=torch.tensor([True, True, False])).exp()
    tensor([0.5000, 0.5000, 1.0000])
    """
    lowest = torch.finfo(scores.dtype).min
    # A list without places would be NaN, and so would its gradient.
    return F.log_softmax(scores.masked_fill(~where, lowest), dim=-1).masked_fill(~where, 0.0)


def softmax_loss(scores: Tensor, clicks: Tensor, *, where: Tensor, weights: Tensor | None = None) -> Tensor:
    """Softmax cross-entropy of weighted clicks, per weighted click.

    -sum_i w_i c_i log softmax(f)_i / sum_i |w_i c_i|, both sums over all places of the batch (Ai, Bi, Luo, Guo, Croft,
    "Unbiased Learning to Rank with Unbiased Propensity Estimation", SIGIR 2018, equations 5 and 7: with inverse
    propensities as weights it is their unbiased ranking loss, with inverse relevances and the logits of slots as scores
    their propensity loss). Linear in clicks: counts of sessions may stand for sessions.

    Parameters
    ----------
    scores
        float [..., L].
    clicks
        float [..., L]; below 0 only where an estimate of relevance was corrected for clicks of trust.
    where
        bool [..., L], the places that exist.
    weights
        float [..., L], never differentiated; 1 if not given.

    Returns
    -------
    Tensor
        Scalar.

    Examples
    --------
    >>> scores, clicks = torch.tensor([0.0, 0.0]), torch.tensor([3.0, 1.0])
    >>> round(softmax_loss(scores, clicks, where=torch.tensor([True, True])).item(), 4)  # ln 2
    0.6931
    """
    weighted = clicks if weights is None else clicks * weights.detach()
    weighted = weighted.masked_fill(~where, 0.0)
    return -(weighted * log_softmax(scores, where=where)).sum() / weighted.abs().sum().clamp_min(NEGLIGIBLE)


def inverse_weights(scores: Tensor, *, where: Tensor, clip: float) -> Tensor:
    """Weights that undo a softmax within each list: mean_j softmax(f)_j / softmax(f)_i, at most `clip`; no gradient.

    The mean over the list stands where Ai et al. (SIGIR 2018, equation 6) have its first item, whose score is one noisy
    number.

    Parameters
    ----------
    scores
        float [..., L].
    where
        bool [..., L], the places that exist.
    clip
        Largest weight; above 0.

    Returns
    -------
    Tensor
        float [..., L], 0 at places that do not exist.

    Examples
    --------
    >>> inverse_weights(torch.tensor([0.0, 9.0]), where=torch.tensor([True, True]), clip=10.0)
    tensor([10.0000,  0.5001])
    """
    logits = log_softmax(scores.detach(), where=where)
    count = where.sum(dim=-1, keepdim=True).clamp_min(1)
    # In logs, so that a very unlikely place is clipped instead of divided by 0.
    return (-logits - count.log()).clamp_max(torch.tensor(clip).log()).exp().masked_fill(~where, 0.0)


def likelihood_loss(chances: Tensor, clicks: Tensor, shown: Tensor, *, where: Tensor) -> Tensor:
    """Negative log-likelihood of clicks, per place shown in a session.

    -sum_i (c_i ln p_i + (n_i - c_i) ln(1 - p_i)) / sum_i n_i.

    Parameters
    ----------
    chances
        float [..., L], chance p of a click; kept within 1e-6 of 0 and 1.
    clicks
        float [..., L], c.
    shown
        float [..., L], n, sessions that showed the place.
    where
        bool [..., L], the places that exist.

    Returns
    -------
    Tensor
        Scalar.

    Examples
    --------
    >>> given = {"clicks": torch.tensor([1.0]), "shown": torch.tensor([4.0]), "where": torch.tensor([True])}
    >>> round(likelihood_loss(torch.tensor([0.5]), **given).item(), 4)  # ln 2
    0.6931
    """
    kept = chances.clamp(1e-6, 1 - 1e-6)
    logs = clicks * kept.log() + (shown - clicks) * (-kept).log1p()
    return -logs.masked_fill(~where, 0.0).sum() / shown.masked_fill(~where, 0.0).sum().clamp_min(NEGLIGIBLE)


def pair_losses(scores: Tensor) -> Tensor:
    """Logistic loss of ranking the place of the row over that of the column: ln(1 + exp(f_j - f_i)); [..., L, L].

    Burges et al., "Learning to Rank using Gradient Descent", ICML 2005.

    >>> pair_losses(torch.tensor([1.0, 1.0]))[0, 1].item() == torch.tensor(2.0).log().item()
    True
    """
    return F.softplus(scores[..., None, :] - scores[..., :, None])


def pairwise_loss(scores: Tensor, pairs: Tensor, *, where: Tensor, weights: Tensor | None = None) -> Tensor:
    """Logistic loss over pairs of a clicked and an unclicked place, per weighted pair.

    sum_ij w_ij n_ij ln(1 + exp(f_j - f_i)) / sum_ij w_ij n_ij with n_ij the sessions that clicked i and not j; with
    w_ij = 1 / (t+_i t-_j) the loss of pairwise debiasing (Hu, Wang, Peng, Li, "Unbiased LambdaMART", WWW 2019, equation
    16).

    Parameters
    ----------
    scores
        float [..., L].
    pairs
        float [..., L, L], n_ij.
    where
        bool [..., L], the places that exist.
    weights
        float [..., L, L], never differentiated; 1 if not given.

    Returns
    -------
    Tensor
        Scalar.

    Examples
    --------
    >>> pairs = torch.tensor([[0.0, 4.0], [0.0, 0.0]])
    >>> round(pairwise_loss(torch.tensor([0.0, 0.0]), pairs, where=torch.tensor([True, True])).item(), 4)  # ln 2
    0.6931
    """
    both = where[..., :, None] & where[..., None, :]
    weighted = (pairs if weights is None else pairs * weights.detach()).masked_fill(~both, 0.0)
    losses = pair_losses(scores.masked_fill(~where, 0.0))
    return (weighted * losses).sum() / weighted.sum().clamp_min(NEGLIGIBLE)
