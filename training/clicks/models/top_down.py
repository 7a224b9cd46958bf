"""Models in which people read from the top down and stop: cascade, dependent click, dynamic Bayesian network.

All: Chuklin, Markov, de Rijke, "Click Models for Web Search", 2015, sections 3.4 to 3.8 and 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.clicks.models.model import COUNTED, INFERRED, Prior, look_up, patterns_of, summed
from training.clicks.models.position import ROUNDS
from training.ultr.lists import PADDING, ClickLists


@dataclass(frozen=True, slots=True)
class TopDown:
    """The first place is looked at; what is looked at is clicked with the chance of its attraction.

    After a click people go on with the chance `on_by_row` * `on_by_slot`, without one with the chance `onward`.

    Parameters
    ----------
    attraction
        float64 [N].
    on_by_row
        float64 [N]; 1 - satisfaction in the dynamic Bayesian network.
    on_by_slot
        float64 [K].
    onward
        The persistence of people who did not click.
    unknown
        Attraction, `on_by_row` and `on_by_slot` of what the model was not fitted on.
    """

    attraction: npt.NDArray[np.float64]
    on_by_row: npt.NDArray[np.float64]
    on_by_slot: npt.NDArray[np.float64]
    onward: float
    unknown: tuple[float, float, float]

    def click_chances(self, rows: npt.NDArray[np.int64], slots: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """See `ClickModel`."""
        attraction, on = self._chances(rows, slots)
        chances = np.empty(rows.shape)
        looking = np.ones(len(rows))
        for place in range(rows.shape[1]):
            a = attraction[:, place]
            chances[:, place] = looking * a
            looking = looking * (a * on[:, place] + (1 - a) * self.onward)
        return chances

    def next_chances(
        self, rows: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], clicked: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        """See `ClickModel`: no click makes it less likely that the place was looked at at all."""
        attraction, on = self._chances(rows, slots)
        chances = np.empty(rows.shape)
        looking = np.ones(len(rows))
        for place in range(rows.shape[1]):
            a = attraction[:, place]
            chances[:, place] = looking * a
            unclicked = np.maximum(1 - looking * a, np.finfo(np.float64).tiny)
            passed = looking * (1 - a) / unclicked * self.onward
            looking = np.where(clicked[:, place], on[:, place], passed)
        return chances

    def _chances(
        self, rows: npt.NDArray[np.int64], slots: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        attraction, by_row, by_slot = self.unknown
        on = look_up(self.on_by_row, rows, by_row) * look_up(self.on_by_slot, slots, by_slot)
        return look_up(self.attraction, rows, attraction), on


@dataclass(frozen=True, slots=True)
class _Sessions:
    """Patterns laid out place by place: rows, slots, clicked [P, L], sessions float64 [P], last place clicked or -1."""

    rows: npt.NDArray[np.int64]
    slots: npt.NDArray[np.int64]
    clicked: npt.NDArray[np.bool_]
    sessions: npt.NDArray[np.float64]
    last: npt.NDArray[np.int64]

    @classmethod
    def of(cls, lists: ClickLists) -> _Sessions:
        patterns = patterns_of(lists)
        rows, slots = lists.rows[patterns.lists], lists.slots[patterns.lists]
        places = np.arange(rows.shape[1])
        last = np.where(patterns.clicked, places, -1).max(axis=1, initial=-1)
        return cls(rows, slots, patterns.clicked, patterns.sessions.astype(np.float64), last)

    def count(self, where: npt.NDArray[np.bool_], size: int, *, by_slot: bool = False) -> npt.NDArray[np.float64]:
        """Sessions in which `where` [P, L] holds, by row, or by slot."""
        numbers = np.where(where & (self.rows != PADDING), self.slots if by_slot else self.rows, PADDING)
        return summed(numbers, np.broadcast_to(self.sessions[:, None], where.shape), size)


def fit_cascade(lists: ClickLists, *, prior: Prior = COUNTED) -> TopDown:
    """Count the cascade model: people go down until they click, and stop (Craswell et al., WSDM 2008).

    Parameters
    ----------
    lists
        With patterns. Clicks after the first cannot happen in this model and are not used.
    prior
        Trials seen before.

    Returns
    -------
    TopDown
        Attraction is the click-through rate among sessions without a click above.

    Raises
    ------
    InvalidInputError
        If the lists have no patterns.
    """
    sessions, pairs = _Sessions.of(lists), len(lists.features)
    first = np.where(sessions.last >= 0, sessions.clicked.argmax(axis=1), sessions.rows.shape[1])
    seen = np.arange(sessions.rows.shape[1]) <= first[:, None]
    attraction = prior.shrunk(sessions.count(seen & sessions.clicked, pairs), sessions.count(seen, pairs))
    return TopDown(attraction, np.empty(0), np.empty(0), 1.0, (prior.mean, 1.0, 0.0))


def fit_dependent_click(lists: ClickLists, *, prior: Prior = COUNTED) -> TopDown:
    """Count the dependent click model: people go on after a click with a chance of the slot.

    Guo, Liu, Wang, "Efficient multiple-click models in web search", WSDM 2009.

    Parameters
    ----------
    lists
        With patterns. All places down to the last click count as looked at, all of them where there is none.
    prior
        Trials seen before.

    Returns
    -------
    TopDown
        Fitted.

    Raises
    ------
    InvalidInputError
        If the lists have no patterns.
    """
    sessions, pairs = _Sessions.of(lists), len(lists.features)
    slot_count = int(lists.slots.max(initial=-1)) + 1
    clicked, not_last = sessions.clicked, np.arange(sessions.rows.shape[1]) < sessions.last[:, None]
    on = prior.shrunk(
        sessions.count(clicked & not_last, slot_count, by_slot=True), sessions.count(clicked, slot_count, by_slot=True)
    )
    return TopDown(
        _attraction_down_to_last(sessions, pairs, prior), np.empty(0), on, 1.0, (prior.mean, 1.0, prior.mean)
    )


def fit_simplified_bayesian(lists: ClickLists, *, prior: Prior = COUNTED) -> TopDown:
    """Count the simplified dynamic Bayesian network: people go on until a document satisfies them.

    Chapelle, Zhang, "A dynamic Bayesian network click model for web search ranking", WWW 2009, algorithm 1.

    Parameters
    ----------
    lists
        With patterns.
    prior
        Trials seen before.

    Returns
    -------
    TopDown
        Satisfaction, 1 - `on_by_row`, is the share of a document's clicks that were the last.

    Raises
    ------
    InvalidInputError
        If the lists have no patterns.
    """
    sessions, pairs = _Sessions.of(lists), len(lists.features)
    not_last = np.arange(sessions.rows.shape[1]) < sessions.last[:, None]
    on = prior.shrunk(sessions.count(sessions.clicked & not_last, pairs), sessions.count(sessions.clicked, pairs))
    return TopDown(
        _attraction_down_to_last(sessions, pairs, prior), on, np.empty(0), 1.0, (prior.mean, 1 - prior.mean, 1.0)
    )


def fit_dynamic_bayesian(lists: ClickLists, *, rounds: int = ROUNDS, prior: Prior = INFERRED) -> TopDown:
    """Fit the dynamic Bayesian network by expectation maximisation (Chapelle, Zhang, WWW 2009).

    What is not seen is how far people read after their last click, and whether it was satisfaction that ended it.

    Parameters
    ----------
    lists
        With patterns.
    rounds
        Steps of expectation and maximisation.
    prior
        Trials seen before, of attraction and satisfaction.

    Returns
    -------
    TopDown
        `onward` is the persistence g, `on_by_row` is 1 - satisfaction and `on_by_slot` is g.

    Raises
    ------
    InvalidInputError
        If the lists have no patterns.
    """
    sessions, pairs = _Sessions.of(lists), len(lists.features)
    slot_count = int(lists.slots.max(initial=-1)) + 1
    weights, exists = sessions.sessions[:, None], np.not_equal(sessions.rows, PADDING)
    follows = np.concatenate([exists[:, 1:], np.zeros((len(exists), 1), dtype=np.bool_)], axis=1)
    above = np.arange(exists.shape[1]) < sessions.last[:, None]
    at_last = np.arange(exists.shape[1]) == sessions.last[:, None]
    clicks = sessions.count(sessions.clicked, pairs)
    attraction, satisfaction, onward = np.full(pairs, 0.5), np.full(pairs, 0.5), 0.9
    for _ in range(rounds):
        a, s = look_up(attraction, sessions.rows, 0.5), look_up(satisfaction, sessions.rows, 0.5)
        looked, satisfied = _tail(a, s, onward, sessions.last, at_last)
        seen = np.where(above | at_last, 1.0, looked) * exists
        attraction = prior.shrunk(clicks, summed(sessions.rows, seen * weights, pairs))
        satisfaction = prior.shrunk(summed(sessions.rows, satisfied * weights, pairs), clicks)
        trials = (seen - satisfied) * follows
        onward = float((np.concatenate([seen[:, 1:], seen[:, :1]], axis=1) * follows * weights).sum() + 1) / float(
            (trials * weights).sum() + 2
        )
    on_by_slot = np.full(slot_count, onward)
    return TopDown(attraction, 1 - satisfaction, on_by_slot, onward, (prior.mean, 1 - prior.mean, onward))


def _attraction_down_to_last(sessions: _Sessions, pairs: int, prior: Prior) -> npt.NDArray[np.float64]:
    bottom = np.where(sessions.last >= 0, sessions.last, sessions.rows.shape[1])
    seen = np.arange(sessions.rows.shape[1]) <= bottom[:, None]
    return prior.shrunk(sessions.count(sessions.clicked, pairs), sessions.count(seen, pairs))


def _tail(
    a: npt.NDArray[np.float64],
    s: npt.NDArray[np.float64],
    onward: float,
    last: npt.NDArray[np.int64],
    at_last: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Chances [P, L] that places below the last click were looked at, and that the last click satisfied."""
    places = a.shape[1]
    # Chances of no click from a place on: silent if the place is looked at, past once it was passed without one.
    silent = np.ones((len(a), places + 1))
    past = np.ones((len(a), places))
    for place in reversed(range(places)):
        past[:, place] = 1 - onward + onward * silent[:, place + 1]
        silent[:, place] = (1 - a[:, place]) * past[:, place]
    satisfied = np.where(at_last, s / (s + (1 - s) * past), 0.0)
    looked = np.zeros(a.shape)
    looking = np.where(last < 0, 1.0, 0.0)
    for place in range(places):
        looked[:, place] = looking
        going = np.where(at_last[:, place], 1 - satisfied[:, place], looking)
        looking = going * onward * silent[:, place + 1] / past[:, place]
    return looked, satisfied
