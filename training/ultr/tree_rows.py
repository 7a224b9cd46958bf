"""Collapsed lists as the rows and groups that libraries of boosted trees take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError
from training.ultr.lists import ClickLists


@dataclass(frozen=True, slots=True)
class TreeRows:
    """Groups of documents with labels and weights, one row for each place of a list; G groups, R rows.

    `features` float32 [R, F], `labels` float64 [R], `slots` int64 [R], `sizes` int64 [G] rows per group, `weights`
    float64 [G] sessions of a group.
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float64]
    slots: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]


def count_rows(lists: ClickLists, chosen: npt.NDArray[np.int64]) -> TreeRows:
    """Make one group of each list: labels are clicks, weights the sessions that showed it."""
    return _rows(lists, chosen, lists.clicks[chosen], lists.shown[chosen])


def session_rows(lists: ClickLists) -> TreeRows:
    """Make one group of each click pattern, weighted by its sessions: labels are 0 or 1, as in a single session.

    For libraries that learn the bias of positions from pairs of a clicked and an unclicked place. Sessions without
    clicks have no such pair and are left out. Lists without patterns are taken as sessions of one click each.

    Parameters
    ----------
    lists
        The collapsed log.

    Returns
    -------
    TreeRows
        At most as many groups as there are patterns; places in the order of their slots.
    """
    if lists.patterns is None:
        numbers, places = np.nonzero(lists.clicks)
        clicked = np.zeros((len(numbers), lists.rows.shape[1]), dtype=np.bool_)
        clicked[np.arange(len(numbers)), places] = True
        return _rows(lists, numbers.astype(np.int64), clicked, lists.clicks[numbers, places])
    some = lists.patterns.clicked.any(axis=1)
    return _rows(lists, lists.patterns.lists[some], lists.patterns.clicked[some], lists.patterns.sessions[some])


def _rows(
    lists: ClickLists,
    chosen: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64] | npt.NDArray[np.bool_],
    weights: npt.NDArray[np.int64],
) -> TreeRows:
    mask = lists.mask[chosen]
    if not labels.any():
        raise InvalidInputError(f"none of {lists.sessions} sessions has a click; there is nothing to learn from")
    # XGBoost takes the position from the order of rows.
    order = np.argsort(np.where(mask, lists.slots[chosen], np.iinfo(np.int64).max), axis=1, kind="stable")
    mask = np.take_along_axis(mask, order, axis=1)
    rows = np.take_along_axis(lists.rows[chosen], order, axis=1)[mask]
    return TreeRows(
        features=lists.features[rows],
        labels=np.take_along_axis(labels, order, axis=1)[mask].astype(np.float64),
        slots=np.take_along_axis(lists.slots[chosen], order, axis=1)[mask],
        sizes=mask.sum(axis=1).astype(np.int64),
        weights=weights.astype(np.float64),
    )
