"""Propensities from results shown in random order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError
from training.clicks.models.model import summed
from training.ultr.lists import PADDING, ClickLists


def shuffled_propensities(lists: ClickLists) -> npt.NDArray[np.float64]:
    """Take clicks by slot of lists that were shuffled: all slots then held equally good documents on average.

    p_k = (clicks on slot k / times shown in slot k) / (the same for slot 0), each list weighted by its sessions (Wang,
    Bendersky, Metzler, Najork, SIGIR 2016; Joachims, Swaminathan, Schnabel, WSDM 2017, section 5.3). Where
    only swaps of two places were randomised, use `harvesting.pivot_propensities`.

    Parameters
    ----------
    lists
        Only lists in uniformly random order, of one length: take those of the model version that shuffles.

    Returns
    -------
    array
        float64 [K], 1 for slot 0, NaN for slots that were never shown.

    Raises
    ------
    InvalidInputError
        If slot 0 was never clicked.

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
    >>> shuffled_propensities(lists).tolist()  # (10 + 30) / (60 + 20)
    [1.0, 0.5]
    """
    slots = np.where(lists.mask, lists.slots, PADDING)
    slot_count = int(slots.max(initial=-1)) + 1
    clicks = summed(slots, lists.clicks, slot_count)
    shown = summed(slots, np.broadcast_to(lists.shown[:, None], slots.shape), slot_count)
    if not slot_count or not clicks[0]:
        raise InvalidInputError("slot 0 of the shuffled lists was never clicked; shuffle more sessions")
    rates = np.divide(clicks, shown, out=np.full(slot_count, np.nan), where=shown > 0)
    return np.asarray(rates / rates[0], dtype=np.float64)
