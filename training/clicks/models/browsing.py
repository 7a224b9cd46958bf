"""The user browsing model: whether a place is looked at depends on how far it is from the last click."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.clicks.models.model import INFERRED, Prior, look_up, patterns_of, summed
from training.clicks.models.position import ROUNDS, fit_examination
from training.ultr.lists import ClickLists


@dataclass(frozen=True, slots=True)
class UserBrowsing:
    """P(click | clicks above) = attraction of the (query, document) * examination of (slot, last place clicked).

    Dupret, Piwowarski, "A user browsing model to predict search engine click data from past observations", SIGIR 2008.

    Parameters
    ----------
    attraction
        float64 [N].
    examination
        float64 [K, L]; column 0 while nothing was clicked, column j after a click on place j, counted from 1.
    unknown_attraction
        For pairs from N on.
    unknown_examination
        For slots and places not in `examination`.
    """

    attraction: npt.NDArray[np.float64]
    examination: npt.NDArray[np.float64]
    unknown_attraction: float
    unknown_examination: float

    def click_chances(self, rows: npt.NDArray[np.int64], slots: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """See `ClickModel`: the sum over where the last click may be."""
        attraction = look_up(self.attraction, rows, self.unknown_attraction)
        chances = np.empty(rows.shape)
        last = np.zeros((len(rows), rows.shape[1] + 1))
        last[:, 0] = 1.0  # chance of each last place clicked, 0 for none
        for place in range(rows.shape[1]):
            earlier = np.arange(place + 1)
            clicks = attraction[:, [place]] * self._examined(slots[:, [place]], earlier[None, :])
            now = last[:, : place + 1] * clicks
            chances[:, place] = now.sum(axis=1)
            last[:, : place + 1] -= now
            last[:, place + 1] = chances[:, place]
        return chances

    def next_chances(
        self, rows: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], clicked: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        """See `ClickModel`."""
        return look_up(self.attraction, rows, self.unknown_attraction) * self._examined(slots, last_clicked(clicked))

    def _examined(self, slots: npt.NDArray[np.int64], last: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        columns = self.examination.shape[1]
        cells = np.where(
            (last < columns) & (slots < len(self.examination)), slots * columns + last, self.examination.size
        )
        return look_up(self.examination.reshape(-1), cells, self.unknown_examination)


def fit_user_browsing(lists: ClickLists, *, rounds: int = ROUNDS, prior: Prior = INFERRED) -> UserBrowsing:
    """Fit the user browsing model by expectation maximisation.

    Parameters
    ----------
    lists
        With patterns.
    rounds
        Steps of expectation and maximisation.
    prior
        Trials seen before, of attraction and of examination.

    Returns
    -------
    UserBrowsing
        Fitted.

    Raises
    ------
    InvalidInputError
        If the lists have no patterns.
    """
    patterns = patterns_of(lists)
    mask, places = lists.mask[patterns.lists], lists.rows.shape[1]
    slot_count = int(lists.slots.max(initial=-1)) + 1
    width = slot_count * places
    looks = lists.slots[patterns.lists] * places + last_clicked(patterns.clicked)
    cells, at = np.unique((lists.rows[patterns.lists] * width + looks)[mask], return_inverse=True)
    sessions = np.broadcast_to(patterns.sessions[:, None], mask.shape)
    attraction, examination = fit_examination(
        cells // max(width, 1),
        cells % max(width, 1),
        summed(at, (sessions * patterns.clicked)[mask], len(cells)),
        summed(at, sessions[mask], len(cells)),
        sizes=(len(lists.features), width),
        rounds=rounds,
        prior=prior,
    )
    return UserBrowsing(attraction, examination.reshape(slot_count, places), prior.mean, prior.mean)


def last_clicked(clicked: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Last place clicked above each place, from 1, and 0 where there is none.

    Parameters
    ----------
    clicked
        bool [n, L].

    Returns
    -------
    array
        int64 [n, L].

    Examples
    --------
    >>> last_clicked(np.array([[True, False, True, False]])).tolist()
    [[0, 1, 1, 3]]
    """
    places = np.arange(1, clicked.shape[1] + 1)
    until = np.maximum.accumulate(np.where(clicked, places, 0), axis=1)
    return np.concatenate([np.zeros((len(clicked), 1), dtype=np.int64), until], axis=1)[:, :-1]
