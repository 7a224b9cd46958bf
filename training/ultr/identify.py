"""Whether clicks of a log can tell position and relevance apart, and what that rests on.

Two things can. A document shown in two slots compares them by itself: slots that such swaps link have propensities that
need no model of relevance (Agarwal, Zaitsev, Wang, Li, Najork, Joachims, "Estimating position bias without intrusive
interventions", WSDM 2019). Otherwise it is left to features: they explain clicks, and what they do not explain is
position; which fails where features say in which slot a document stands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from rankers.ltr.networks import Normaliser
from training.ultr.examination import slot_groups
from training.ultr.lists import ClickLists

MOST_LISTS = 5000
"""Lists that the share of the slot that features tell is found from."""
RIDGE = 1e-2
DRAWS = 200
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Identifiability:
    """What can tell position and relevance apart.

    Parameters
    ----------
    swapped
        Share of the (query, document) pairs that were shown in more than one slot, 0 to 1: how much rankers overlap.
    linked
        Whether swaps link all slots that lists show together, so that they alone identify examination.
    told_by_features
        Share of the variance of slots within lists that features explain in other queries, up to 1; 0 where there are
        too few queries to say.
    """

    swapped: float
    linked: bool
    told_by_features: float


def identifiability(lists: ClickLists) -> Identifiability:
    """Look at what was shown where.

    Parameters
    ----------
    lists
        The collapsed log; lists that were never shown do not count.

    Returns
    -------
    Identifiability
        Clicks play no part in it.

    Examples
    --------
    >>> one, two = np.array([[0, 1]]), np.array([[0, 1], [1, 0]])
    >>> def shown(rows):
    ...     many = np.full(len(rows), 9)
    ...     slots = np.tile([0, 1], (len(rows), 1))
    ...     return ClickLists(np.zeros((2, 1), "f"), ("f",), rows, 0 * many, slots, many, 0 * rows)
    >>> identifiability(shown(one)).linked, identifiability(shown(two)).linked
    (False, True)
    """
    swapped, linked = swaps(lists)
    was_shown = lists.take(np.flatnonzero(lists.shown > 0))
    return Identifiability(swapped, linked, told_by_features=_told_by_features(was_shown))


def swaps(lists: ClickLists) -> tuple[float, bool]:
    """Look for documents that were shown in several slots.

    Parameters
    ----------
    lists
        The collapsed log; lists that were never shown do not count.

    Returns
    -------
    tuple
        `swapped` and `linked` of `Identifiability`.
    """
    was_shown = lists.take(np.flatnonzero(lists.shown > 0))
    mask = was_shown.mask
    pairs = np.unique(np.stack([was_shown.rows[mask], was_shown.slots[mask]]), axis=1)
    documents, counts = np.unique(pairs[0], return_counts=True)
    together = np.unique(np.stack([slot_groups(was_shown)[np.unique(pairs[1])], _parts(pairs)]), axis=1)
    linked = bool(together.shape[1] == len(np.unique(together[0])))
    return float((counts > 1).sum() / max(len(documents), 1)), linked


def _parts(pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which part of the graph of documents and slots, int64 [2, pairs], each slot that occurs is in; rising slots."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    documents, rows = np.unique(pairs[0], return_inverse=True)
    slots, columns = np.unique(pairs[1], return_inverse=True)
    size = len(documents) + len(slots)
    graph = coo_matrix((np.ones(len(rows)), (rows, len(documents) + columns)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    return np.asarray(labels[len(documents) :], dtype=np.int64)


def _told_by_features(lists: ClickLists) -> float:
    """Ridge regression of slots on features and their squares, within lists, fitted and scored on other queries."""
    queries = np.unique(lists.queries)
    if len(queries) < 4:
        return 0.0
    step = -(-len(lists.rows) // MOST_LISTS)
    chosen = lists.take(np.arange(0, len(lists.rows), step))
    features = torch.from_numpy(lists.features)
    normaliser = Normaliser.fit(lists.features[np.unique(chosen.rows[chosen.mask])])
    values = normaliser(features[torch.from_numpy(np.maximum(chosen.rows, 0))]).double().numpy()
    values = _centred(np.concatenate([values, values**2], axis=-1), chosen.mask)
    slots = _centred(chosen.slots[:, :, None].astype(np.float64), chosen.mask)[:, 0]
    is_learnt_from = np.broadcast_to((chosen.queries % 2 == queries[0] % 2)[:, None], chosen.mask.shape)[chosen.mask]
    learn, test = values[is_learnt_from], values[~is_learnt_from]
    if not len(learn) or not len(test) or not np.any(slots[~is_learnt_from]):
        return 0.0
    gram = learn.T @ learn + RIDGE * len(learn) * np.eye(learn.shape[1])
    weights = np.linalg.solve(gram, learn.T @ slots[is_learnt_from])
    residual, whole = slots[~is_learnt_from] - test @ weights, slots[~is_learnt_from]
    return float(max(0.0, 1 - (residual @ residual) / (whole @ whole)))


def _centred(values: npt.NDArray[np.float64], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Take the mean over the places of a list from float64 [S, L, F]; float64 [places that exist, F]."""
    kept = np.where(mask[:, :, None], values, 0.0)
    means = kept.sum(axis=1) / np.maximum(mask.sum(axis=1), 1)[:, None]
    return np.asarray((kept - means[:, None])[mask], dtype=np.float64)


def shown_order_share(
    lists: ClickLists, scores: npt.NDArray[np.float64], propensities: npt.NDArray[np.float64], *, clip: float = 10.0
) -> float:
    """Say how much of what a ranker gains over a random order the order that was shown has already.

    The value of an order is the sum over places of examination times relevance, relevance being clicks by examination,
    c / (n max(theta, 1 / clip)). Near 0 production was no better than chance; from about a half on it knew relevance so
    well that position stands for it: what debiasing takes away then is what production knew, and it loses to clicks as
    they are. Users who trust high places look the same.

    Parameters
    ----------
    lists
        The collapsed log.
    scores
        float64 [N], of the ranker that was learnt from it.
    propensities
        float64 [K], what was learnt about slots; NaN counts as unseen.
    clip
        Largest weight of a click.

    Returns
    -------
    float
        0 for a random order, 1 for one as good as that of the ranker; 1 too where the ranker is no better than chance.
    """
    theta = np.where(lists.mask, np.nan_to_num(propensities)[np.where(lists.mask, lists.slots, 0)], 0.0)
    rates = lists.clicks / np.maximum(lists.shown, 1)[:, None]
    relevance = np.where(lists.mask, rates / np.maximum(theta, 1 / clip), 0.0)
    ranked = np.argsort(-np.where(lists.mask, scores[np.maximum(lists.rows, 0)], -np.inf), axis=1, kind="stable")
    best_first = np.argsort(-theta, axis=1, kind="stable")
    chance = relevance.sum(axis=1) * theta.sum(axis=1) / np.maximum(lists.mask.sum(axis=1), 1)
    theirs = (relevance * theta).sum(axis=1)
    ours = (np.take_along_axis(relevance, ranked, axis=1) * np.take_along_axis(theta, best_first, axis=1)).sum(axis=1)
    gain = float(lists.shown @ (ours - chance))
    return float(lists.shown @ (theirs - chance)) / gain if gain > 0 else 1.0


def clicked_alike(lists: ClickLists, *, draws: int = DRAWS, seed: int = 0) -> float:
    """Say how much click rates differ between documents at the place that is clicked most, at most.

    The spread is the variance of click rates between lists, less that of chance, as a share of their squared mean.
    Under the position-based model a rate is examination times relevance, and examination is the same in all lists: so
    the spread is that of relevance, however well the lists were ranked, and queries differ in how relevant their best
    documents are. Where people click what stands on top because it stands there (Agarwal, Wang, Li, Bendersky, Najork,
    "Addressing trust bias for unbiased learning-to-rank", WWW 2019) it is close to 0.

    Parameters
    ----------
    lists
        The collapsed log.
    draws
        How often queries are drawn for the bound.
    seed
        Of the draws.

    Returns
    -------
    float
        What the spread stays under in 95 % of the drawn logs; infinite where no list was shown twice.

    Examples
    --------
    >>> shown = np.full(50, 1000)
    >>> rates = np.tile([[100, 50], [500, 50]], (25, 1))
    >>> def clicked(clicks):
    ...     rows = np.arange(100).reshape(50, 2)
    ...     slots = np.tile([0, 1], (50, 1))
    ...     return ClickLists(np.zeros((100, 1), "f"), ("f",), rows, np.arange(50), slots, shown, clicks)
    >>> clicked_alike(clicked(rates)) > 0.4, clicked_alike(clicked(np.maximum(rates, 490))) < 0.01
    (True, True)
    """
    several = lists.take(np.flatnonzero(lists.shown > 1))
    if not len(several.rows):
        return float("inf")
    slots, mask = np.where(several.mask, several.slots, 0), several.mask
    shown = np.broadcast_to(several.shown[:, None], mask.shape)
    rates = np.where(mask, several.clicks / shown, 0.0)
    size = int(slots.max()) + 1
    overall = np.bincount(slots[mask], several.clicks[mask], size) / np.bincount(slots[mask], shown[mask], size).clip(1)
    on_top = mask & (slots == overall.argmax())
    rate, count, query = rates[on_top], shown[on_top], np.broadcast_to(several.queries[:, None], mask.shape)[on_top]
    chance = rate * (1 - rate) / (count - 1)
    queries, of_rate = np.unique(query, return_inverse=True)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        times = np.bincount(rng.integers(len(queries), size=len(queries)), minlength=len(queries))[of_rate]
        mean = times @ rate / times.sum()
        variance = times @ (rate - mean) ** 2 / max(times.sum() - 1, 1) - times @ chance / times.sum()
        found.append(max(variance, 0.0) / max(mean, np.finfo(np.float64).tiny) ** 2)
    return float(np.quantile(found, CONFIDENCE))
