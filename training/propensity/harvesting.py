"""Propensities harvested from rankers that disagree: the same document in different places, with nothing randomised.

Agarwal, Zaitsev, Wang, Li, Najork, Joachims, "Estimating position bias without intrusive interventions", WSDM 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError
from training.ultr.lists import ClickLists

NEWTON_STEPS = 100
CONVERGED = 1e-10
LONGEST_STEP = 2.0
RIDGE = 1e-9
"""Keeps slots that were never clicked at a small propensity, and the equations solvable."""


@dataclass(frozen=True, slots=True)
class _Interventions:
    """For every pair of slots (k, l), float64 [K, K]: weighted clicks on k, and weighted times shown there, of what was
    shown in both. A document's weight is that of the evidence it has in both."""

    clicks: npt.NDArray[np.float64]
    shown: npt.NDArray[np.float64]


def all_pairs_propensities(lists: ClickLists) -> npt.NDArray[np.float64]:
    """Estimate propensities from every (query, document) that was shown in more than one slot (AllPairs).

    Clicks on slot k of documents seen in both k and l have the mean n_kl p_k r_kl, those on slot l n_kl p_l r_kl with
    the same relevance r_kl. The estimate maximises their Poisson likelihood, in which r_kl cancels: what remains is
    that of Bradley and Terry, the sum over pairs of c_kl log(p_k / (p_k + p_l)), concave in log p.

    What decides where a document is shown must not know its clicks: take the lists of model versions that ran side by
    side, or in turns, and not those of a model that was retrained on the others' clicks for the same queries.

    Parameters
    ----------
    lists
        Of several model versions, or with randomised swaps.

    Returns
    -------
    array
        float64 [K], 1 for slot 0; NaN for slots no chain of documents connects to it.

    Raises
    ------
    InvalidInputError
        If no document was shown in slot 0 and another one and clicked: this log cannot tell position from relevance.

    Examples
    --------
    >>> lists = ClickLists(
    ...     features=np.zeros((2, 1), dtype=np.float32),
    ...     feature_names=("x",),
    ...     rows=np.array([[0, 1], [1, 0]]),
    ...     queries=np.array([0, 0]),
    ...     slots=np.array([[0, 1], [0, 1]]),
    ...     shown=np.array([100, 100]),
    ...     clicks=np.array([[60, 10], [20, 30]]),
    ... )
    >>> all_pairs_propensities(lists).round(6).tolist()  # 30 instead of 60, 10 instead of 20
    [1.0, 0.5]
    """
    return _bradley_terry(_interventions(lists))


def pivot_propensities(lists: ClickLists) -> npt.NDArray[np.float64]:
    """Estimate propensities from documents that were shown in slot 0 and another one (PivotOne).

    p_k is the clicks on slot k of documents seen in 0 and k, over those on slot 0. It needs no more than that, and so
    suits logs in which the first place was swapped with a random one; where slots were exchanged in any way,
    `all_pairs_propensities` knows more.

    Parameters
    ----------
    lists
        With swaps.

    Returns
    -------
    array
        float64 [K], 1 for slot 0; NaN for slots that were not exchanged with it.

    Raises
    ------
    InvalidInputError
        If no document was shown in slot 0 and another one and clicked.
    """
    found = _interventions(lists)
    known = (found.clicks[0] > 0) & (found.shown[0] > 0)
    if not known[1:].any():
        raise InvalidInputError(_NO_INTERVENTION)
    propensities = np.divide(found.clicks[:, 0], found.clicks[0], out=np.full(len(known), np.nan), where=known)
    propensities[0] = 1.0
    return np.asarray(propensities, dtype=np.float64)


_NO_INTERVENTION = (
    "no document was clicked in slot 0 and shown in another slot too, so this log cannot tell position from relevance; "
    "log a second model version, or swap some results"
)


def _interventions(lists: ClickLists) -> _Interventions:
    mask = lists.mask & (lists.shown[:, None] > 0)
    slot_count = int(lists.slots[mask].max(initial=0)) + 1
    rows, of_row = np.unique(lists.rows[mask], return_inverse=True)
    cells, size = of_row * slot_count + lists.slots[mask], len(rows) * slot_count
    sessions = np.broadcast_to(lists.shown[:, None], mask.shape)[mask]
    shown = np.bincount(cells, weights=sessions, minlength=size).reshape(len(rows), slot_count)
    clicks = np.bincount(cells, weights=lists.clicks[mask], minlength=size).reshape(len(rows), slot_count)
    moved = (shown > 0).sum(axis=1) > 1
    shown, clicks = shown[moved], clicks[moved]
    rates = np.divide(clicks, shown, out=np.zeros_like(clicks), where=shown > 0)
    totals, weights = np.zeros((slot_count, slot_count)), np.zeros((slot_count, slot_count))
    for slot in range(slot_count):
        # Harmonic: the smaller of two samples bounds what they say together. Weights are the same for both slots.
        both = shown[:, [slot]] + shown
        evidence = np.divide(shown[:, [slot]] * shown, both, out=np.zeros_like(shown), where=both > 0)
        weights[slot], totals[slot] = evidence.sum(axis=0), rates[:, slot] @ evidence
    np.fill_diagonal(totals, 0.0)
    np.fill_diagonal(weights, 0.0)
    return _Interventions(totals, weights)


def _bradley_terry(found: _Interventions) -> npt.NDArray[np.float64]:
    """Newton's method on log p, with p_0 = 1, over the slots connected to slot 0."""
    clicks = found.clicks
    known = _connected(clicks + clicks.T > 0)
    if known.sum() < 2:
        raise InvalidInputError(_NO_INTERVENTION)
    clicks = clicks[np.ix_(known, known)]
    together = clicks + clicks.T
    log_p = np.zeros(len(clicks))
    for _ in range(NEWTON_STEPS):
        share = 1 / (1 + np.exp(log_p[None, :] - log_p[:, None]))
        gradient = (clicks - together * share).sum(axis=1) - RIDGE * together.sum() * log_p
        curvature = together * share * share.T
        hessian = np.diag(curvature.sum(axis=1) + RIDGE * together.sum()) - curvature
        step = np.clip(np.linalg.solve(hessian[1:, 1:], gradient[1:]), -LONGEST_STEP, LONGEST_STEP)
        log_p[1:] += step
        if np.abs(step).max() < CONVERGED:
            break
    propensities = np.full(len(known), np.nan)
    propensities[known] = np.exp(log_p)
    return propensities


def _connected(linked: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    reached: npt.NDArray[np.bool_] = np.zeros(len(linked), dtype=np.bool_)
    reached[0] = True
    for _ in range(len(linked)):
        reached |= linked[reached].any(axis=0)
    return reached
