"""How well a click model predicts clicks: perplexity and likelihood.

Definitions as in PyClick: Dupret, Piwowarski, SIGIR 2008, and Chuklin, Markov, de Rijke, "Click Models for Web Search",
2015, section 5.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError
from training.clicks.models.model import ClickModel, patterns_of
from training.ultr.lists import ClickLists

LEAST_CHANCE = 1e-6
"""A model that says "never" is not punished without end (PROB_MIN in PyClick)."""


@dataclass(frozen=True, slots=True)
class Perplexity:
    """1 for a model that knows every click, 2 for a coin; `mean` over the places, and `by_place`."""

    mean: float
    by_place: tuple[float, ...]


def perplexity(model: ClickModel, lists: ClickLists) -> Perplexity:
    """Measure how surprised a model is by clicks, place by place, not knowing the clicks above.

    2 ** -(1/n sum over the n sessions that have place k of log2 P(what happened on place k)).

    Parameters
    ----------
    model
        Fitted on other sessions.
    lists
        What was shown and clicked; rows have to be those of the model.

    Returns
    -------
    Perplexity
        The lower the better.

    Raises
    ------
    InvalidInputError
        If there are no sessions.
    """
    sessions = (lists.mask * lists.shown[:, None]).sum(axis=0)
    if not sessions.size or not sessions[0]:
        raise InvalidInputError("there are no sessions to predict; read a longer period")
    chances = np.clip(model.click_chances(lists.rows, lists.slots), LEAST_CHANCE, 1 - LEAST_CHANCE)
    unclicked = lists.shown[:, None] - lists.clicks
    logs = ((lists.clicks * np.log2(chances) + unclicked * np.log2(1 - chances)) * lists.mask).sum(axis=0)
    by_place = 2 ** -(logs / np.maximum(sessions, 1))[sessions > 0]
    return Perplexity(float(by_place.mean()), tuple(by_place.tolist()))


def log_likelihood(model: ClickModel, lists: ClickLists) -> float:
    """Measure how likely a model takes whole sessions to be, each place given the clicks above it.

    The mean over sessions of the mean over places of log P(what happened | clicks above), in nats.

    Parameters
    ----------
    model
        Fitted on other sessions.
    lists
        With patterns.

    Returns
    -------
    float
        At most 0; the higher the better.

    Raises
    ------
    InvalidInputError
        If there are no sessions, or no patterns.
    """
    if not lists.sessions:
        raise InvalidInputError("there are no sessions to predict; read a longer period")
    patterns = patterns_of(lists)
    rows, slots, mask = lists.rows[patterns.lists], lists.slots[patterns.lists], lists.mask[patterns.lists]
    chances = np.clip(model.next_chances(rows, slots, patterns.clicked), LEAST_CHANCE, 1 - LEAST_CHANCE)
    logs: npt.NDArray[np.float64] = np.log(np.where(patterns.clicked, chances, 1 - chances)) * mask
    means = logs.sum(axis=1) / np.maximum(mask.sum(axis=1), 1)
    return float(means @ patterns.sessions / patterns.sessions.sum())
