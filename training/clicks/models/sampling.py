"""Sessions drawn from a click model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from training.clicks.models.model import ClickModel


def draw_clicks(
    model: ClickModel,
    rows: npt.NDArray[np.int64],
    slots: npt.NDArray[np.int64],
    generator: np.random.Generator,
) -> npt.NDArray[np.bool_]:
    """Draw the clicks of n sessions, place by place, each given the clicks above.

    Parameters
    ----------
    model
        How users click.
    rows
        int64 [n, L], what each session sees.
    slots
        int64 [n, L], where.
    generator
        Source of chance.

    Returns
    -------
    array
        bool [n, L].
    """
    clicked = np.zeros(rows.shape, dtype=np.bool_)
    dice = generator.random(rows.shape)
    for place in range(rows.shape[1]):
        seen = slice(0, place + 1)
        chances = model.next_chances(rows[:, seen], slots[:, seen], clicked[:, seen])[:, place]
        clicked[:, place] = dice[:, place] < chances
    return clicked
