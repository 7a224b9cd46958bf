"""When to leave a log alone: where debiasing is known to lose, no candidate is made."""

from __future__ import annotations

import numpy as np

from training.ultr.lists import ClickLists

LEAST_SESSIONS_PER_LIST = 10
"""With fewer, clicks as they are beat debiased ones in simulations."""


def reasons_to_abstain(lists: ClickLists) -> list[str]:
    """Say why a log should not be learned from; nothing if it can be.

    Parameters
    ----------
    lists
        The collapsed log.

    Returns
    -------
    list of str
        For people to read.
    """
    reasons = []
    per_list = float(np.mean(lists.shown)) if len(lists.shown) else 0.0
    if per_list < LEAST_SESSIONS_PER_LIST:
        reasons.append(f"{per_list:.1f} sessions for each list, fewer than {LEAST_SESSIONS_PER_LIST}")
    clicked = int(np.count_nonzero(lists.clicks.sum(axis=0)))
    if clicked == 1 and lists.rows.shape[1] > 1:
        reasons.append("all clicks are on one place, so documents cannot be told apart")
    return reasons
