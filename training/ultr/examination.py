"""How much more one slot is looked at than another, as a learner carries it from step to step.

Letters in shapes: K slots, L places, ``...`` any leading axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.ultr.lists import ClickLists
from training.ultr.losses import inverse_weights

NEGLIGIBLE = 1e-9
CLIP = 10.0
"""Largest weight of a click; without one, a few clicks far down decide everything."""
STEPS = 20
UNEXPLAINED = 5.0
"""How many clicks on a document weigh as much as its score."""
SWAP_STEPS, CLOSE, LOWEST = 200, 1e-5, 30.0


def slot_groups(lists: ClickLists) -> npt.NDArray[np.int64]:
    """Number the groups of slots that lists show together, in one list or through others.

    Only the ratios of slots in one list can be seen in clicks, so each group has a scale of its own.

    Parameters
    ----------
    lists
        The collapsed log.

    Returns
    -------
    array
        int64 [K]: the group of each slot, -1 for a slot that no list shows.
    """
    mask = lists.mask
    count = int(lists.slots[mask].max(initial=-1)) + 1
    group = np.arange(count)
    layouts = np.unique(np.where(mask, lists.slots, -1), axis=0)
    while True:
        before = group.copy()
        for layout in layouts:
            members = layout[layout >= 0]
            group[members] = group[members].min(initial=count)
        if (group == before).all():
            break
    group[~np.isin(np.arange(count), lists.slots[mask])] = -1
    return group.astype(np.int64)


def relative(propensities: Tensor, groups: Tensor) -> Tensor:
    """Scale float [K] so that the most examined slot of each group has 1; NaN, for unknown, stays.

    >>> relative(torch.tensor([0.2, 0.4, 3.0]), torch.tensor([0, 0, 2])).tolist()
    [0.5, 1.0, 1.0]
    """
    highest = torch.zeros_like(propensities)
    known = (groups >= 0) & ~propensities.isnan()
    highest = highest.scatter_reduce(0, groups[known], propensities[known], "amax")
    return propensities / highest[groups.clamp_min(0)].clamp_min(NEGLIGIBLE)


def examination_step(
    current: Tensor, weighted_clicks: Tensor, slots: Tensor, *, where: Tensor
) -> tuple[Tensor, Tensor]:
    """One step to the examination that explains weighted clicks best, in closed form.

    With g the logits of slots, theta = exp(g), and W_si clicks weighted by inverse relevance, the propensity loss of
    DLA -sum_si W_si log softmax(g over the slots of list s)_i is that of Plackett-Luce, whose minorisation-maximisation
    step
    is theta_k <- sum_si W_si [slot of si is k] / sum_s (sum_i W_si) m_sk / sum_{j in s} theta_j, with m_sk how often
    list
    s shows slot k (Hunter, "MM algorithms for generalized Bradley-Terry models", Annals of Statistics 2004, equation
    30). Where all lists show the same slots it lands on the minimum at once: theta is proportional to weighted clicks.

    Parameters
    ----------
    current
        float [K], theta before the step, above 0 for slots of these lists.
    weighted_clicks
        float [..., L], W.
    slots
        int64 [..., L].
    where
        bool [..., L], the places that exist.

    Returns
    -------
    tuple of Tensor
        theta after the step, float [K], up to scale; and which slots these lists have something to say about, bool [K].

    Examples
    --------
    >>> slots, where = torch.tensor([[0, 1]]), torch.tensor([[True, True]])
    >>> step, seen = examination_step(torch.ones(3), torch.tensor([[6.0, 2.0]]), slots, where=where)
    >>> (step / step[0]).tolist(), seen.tolist()
    ([1.0, 0.3333333432674408, 0.0], [True, True, False])
    """
    given = weighted_clicks.masked_fill(~where, 0.0).to(current.dtype)
    shown = current[slots].masked_fill(~where, 0.0).sum(dim=-1, keepdim=True)
    expected = (given.sum(dim=-1, keepdim=True) / shown.clamp_min(NEGLIGIBLE)).expand_as(given).masked_fill(~where, 0.0)
    zeros = torch.zeros_like(current)
    clicks = zeros.scatter_add(0, slots.reshape(-1), given.reshape(-1))
    chances = zeros.scatter_add(0, slots.reshape(-1), expected.reshape(-1))
    return clicks / chances.clamp_min(NEGLIGIBLE), chances > 0


def examination_given_scores(
    lists: ClickLists, scores: npt.NDArray[np.float64], *, clip: float = CLIP
) -> npt.NDArray[np.float64]:
    """Estimate examination from clicks, with relevance taken from scores: the propensity side of DLA, run to its end.

    Parameters
    ----------
    lists
        The collapsed log.
    scores
        float64 [N], one per row of the features, of a ranker that learnt from other clicks of the same users.
    clip
        Largest weight of a click.

    Returns
    -------
    array
        float64 [K], 1 for the most examined slot of each group, NaN for slots that were never shown.
    """
    where, groups = torch.from_numpy(lists.mask), torch.from_numpy(slot_groups(lists))
    slots = torch.from_numpy(np.where(lists.mask, lists.slots, 0))
    of_places = torch.from_numpy(np.where(lists.mask, scores[np.maximum(lists.rows, 0)], 0.0))
    weighted = torch.from_numpy(lists.clicks).double() * inverse_weights(of_places, where=where, clip=clip)
    theta = torch.where(groups >= 0, 1.0, torch.nan).double()
    for _ in range(STEPS):
        step, seen = examination_step(theta.nan_to_num(1.0).clamp_min(NEGLIGIBLE), weighted, slots, where=where)
        theta = relative(torch.where(seen, step, theta), groups)
    found: npt.NDArray[np.float64] = theta.numpy()
    return found


def examination_by_swaps(
    lists: ClickLists, scores: npt.NDArray[np.float64], examination: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Estimate examination from documents that were shown in several slots, with scores for what they have in common.

    Scores leave something unexplained, and where better documents stand higher that passes for examination. A document
    in two slots has it in both. So the clicks on document d of query q, in slot k of a list shown n times, are taken as
    Poisson with mean n theta_k b_q exp(f_d) u_d, where u_d is Gamma with mean 1 and shape `UNEXPLAINED` (Clayton,
    Kaldor, "Empirical Bayes estimates of age-standardized relative risks", Biometrics 1987); b, the posterior means of
    u, and theta are found in turns. Where documents have one slot each, u takes examination for relevance.

    Parameters
    ----------
    lists
        The collapsed log; swaps link all slots that its lists show together.
    scores
        float64 [N], one per row of the features.
    examination
        float64 [K], where to begin; NaN for slots that were never shown.

    Returns
    -------
    array
        float64 [K], 1 for the most examined slot of each group, NaN for slots that were never shown.
    """
    mask, documents, queries = lists.mask, len(lists.features), int(lists.queries.max(initial=-1)) + 1
    rows, slots = lists.rows[mask], lists.slots[mask]
    of_query = np.broadcast_to(lists.queries[:, None], mask.shape)[mask]
    shown, clicks = np.broadcast_to(lists.shown[:, None], mask.shape)[mask], lists.clicks[mask]
    worth = np.exp(np.clip(scores - scores.max(initial=0.0), -LOWEST, 0.0))[rows] * shown
    theta, size = np.nan_to_num(examination, nan=1.0).clip(NEGLIGIBLE), len(examination)
    unexplained = np.ones(documents)

    def summed(numbers: npt.NDArray[np.int64], values: npt.NDArray[Any], count: int) -> npt.NDArray[np.float64]:
        return np.bincount(numbers, values, count).astype(np.float64).clip(NEGLIGIBLE)

    for _ in range(SWAP_STEPS):
        before = theta
        level = summed(of_query, clicks, queries) / summed(of_query, worth * unexplained[rows] * theta[slots], queries)
        expected = worth * level[of_query]
        looked_at = summed(rows, expected * theta[slots], documents)
        unexplained = (summed(rows, clicks, documents) + UNEXPLAINED) / (looked_at + UNEXPLAINED)
        theta = summed(slots, clicks, size) / summed(slots, expected * unexplained[rows], size)
        theta = theta / theta[slots].max(initial=NEGLIGIBLE)
        if np.abs(theta - before)[slots].max(initial=0.0) < CLOSE:
            break
    groups = torch.from_numpy(slot_groups(lists))
    known = torch.where(groups >= 0, torch.from_numpy(theta[: len(groups)]), torch.nan)
    found: npt.NDArray[np.float64] = relative(known, groups).numpy()
    return found
