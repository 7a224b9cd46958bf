"""Models in which the chance of a click is a property of the document times one of the place.

Definitions of the click-through rates as in PyClick (GCTR, RCTR, DCTR). All models: Chuklin, Markov, de Rijke, "Click
Models for Web Search", 2015, chapters 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.clicks.models.model import COUNTED, INFERRED, Prior, look_up, summed
from training.ultr.lists import PADDING, ClickLists

ROUNDS = 50


@dataclass(frozen=True, slots=True)
class PositionBased:
    """P(click) = attraction of the (query, document) * examination of the slot.

    Richardson, Dominowska, Ragno, "Predicting clicks", WWW 2007; Craswell et al., WSDM 2008. With only one of the two
    it is a table of click-through rates.

    Parameters
    ----------
    attraction
        float64 [N], chance of a click once examined.
    examination
        float64 [K], chance that a slot is examined; only ratios mean something, the product is what was fitted.
    unknown_attraction
        For pairs from N on.
    unknown_examination
        For slots from K on.
    """

    attraction: npt.NDArray[np.float64]
    examination: npt.NDArray[np.float64]
    unknown_attraction: float
    unknown_examination: float

    def click_chances(self, rows: npt.NDArray[np.int64], slots: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """See `ClickModel`."""
        examined = look_up(self.examination, slots, self.unknown_examination)
        return look_up(self.attraction, rows, self.unknown_attraction) * examined

    def next_chances(
        self, rows: npt.NDArray[np.int64], slots: npt.NDArray[np.int64], clicked: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float64]:
        """See `ClickModel`: clicks above change nothing."""
        del clicked
        return self.click_chances(rows, slots)


def fit_global_rate(lists: ClickLists, *, prior: Prior = COUNTED) -> PositionBased:
    """Count one click-through rate for all places (GCTR, the random click model).

    Parameters
    ----------
    lists
        What was shown and clicked.
    prior
        Trials seen before.

    Returns
    -------
    PositionBased
        The same chance everywhere.
    """
    shown = (lists.mask * lists.shown[:, None]).sum(dtype=np.float64)
    rate = prior.shrunk(np.array(lists.clicks.sum(dtype=np.float64)), np.array(shown))
    return PositionBased(np.empty(0), np.empty(0), float(rate), 1.0)


def fit_rank_rates(lists: ClickLists, *, prior: Prior = COUNTED) -> PositionBased:
    """Count a click-through rate per slot (RCTR).

    Parameters
    ----------
    lists
        What was shown and clicked.
    prior
        Trials seen before.

    Returns
    -------
    PositionBased
        Of every document the same attraction, 1.
    """
    slots = np.where(lists.mask, lists.slots, PADDING)
    clicks, shown = _counts(slots, lists, int(slots.max(initial=-1)) + 1)
    return PositionBased(np.empty(0), prior.shrunk(clicks, shown), 1.0, prior.mean)


def fit_document_rates(lists: ClickLists, *, prior: Prior = COUNTED) -> PositionBased:
    """Count a click-through rate per (query, document) (DCTR).

    Parameters
    ----------
    lists
        What was shown and clicked.
    prior
        Trials seen before.

    Returns
    -------
    PositionBased
        Every slot examined alike, 1.
    """
    clicks, shown = _counts(lists.rows, lists, len(lists.features))
    return PositionBased(prior.shrunk(clicks, shown), np.empty(0), prior.mean, 1.0)


def fit_position_based(lists: ClickLists, *, rounds: int = ROUNDS, prior: Prior = INFERRED) -> PositionBased:
    """Fit the position-based model by expectation maximisation.

    Parameters
    ----------
    lists
        What was shown and clicked; patterns are not needed.
    rounds
        Steps of expectation and maximisation.
    prior
        Trials seen before, of attraction and of examination.

    Returns
    -------
    PositionBased
        Its examination, divided by that of the first slot, estimates propensities.
    """
    slot_count = int(lists.slots.max(initial=-1)) + 1
    rows, slots = lists.rows[lists.mask], lists.slots[lists.mask]
    cells, at = np.unique(rows * slot_count + slots, return_inverse=True)
    clicks = summed(at, lists.clicks[lists.mask], len(cells))
    shown = summed(at, np.broadcast_to(lists.shown[:, None], lists.rows.shape)[lists.mask], len(cells))
    attraction, examination = fit_examination(
        cells // max(slot_count, 1),
        cells % max(slot_count, 1),
        clicks,
        shown,
        sizes=(len(lists.features), slot_count),
        rounds=rounds,
        prior=prior,
    )
    return PositionBased(attraction, examination, prior.mean, prior.mean)


def fit_examination(
    rows: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
    clicks: npt.NDArray[np.float64],
    shown: npt.NDArray[np.float64],
    *,
    sizes: tuple[int, int],
    rounds: int,
    prior: Prior,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Fit P(click) = a[row] e[place] to counts by expectation maximisation.

    Whether a place was looked at is what is not seen. It was if it was clicked, and else with the chance
    e (1 - a) / (1 - a e); then e is the share of sessions that looked, and a the share of those that clicked.

    Parameters
    ----------
    rows
        int64 [C], the row of each cell of the table of counts.
    places
        int64 [C], its place.
    clicks
        float64 [C].
    shown
        float64 [C].
    sizes
        How many rows and places there are.
    rounds
        Steps.
    prior
        Trials seen before.

    Returns
    -------
    tuple
        a float64 [rows] and e float64 [places].
    """
    attraction, examination = np.full(sizes[0], 0.5), np.full(sizes[1], 0.5)
    clicked_rows, shown_places = summed(rows, clicks, sizes[0]), summed(places, shown, sizes[1])
    for _ in range(rounds):
        a, e = attraction[rows], examination[places]
        looked = clicks + (shown - clicks) * e * (1 - a) / (1 - a * e)
        examination = prior.shrunk(summed(places, looked, sizes[1]), shown_places)
        attraction = prior.shrunk(clicked_rows, summed(rows, looked, sizes[0]))
    return attraction, examination


def _counts(
    numbers: npt.NDArray[np.int64], lists: ClickLists, size: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    shown = np.broadcast_to(lists.shown[:, None], lists.rows.shape)
    return summed(numbers, lists.clicks, size), summed(numbers, shown, size)
