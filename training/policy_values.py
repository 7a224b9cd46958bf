"""The value of an order under the position-based model: IPS, SNIPS and doubly robust.

A place is examined with a propensity p that depends on its slot, and then clicked with the attraction of the document.
Rankers reorder what was shown: documents nobody saw have no clicks to judge them by.

Letters in shapes: N (query, document) pairs, S lists, L places, K slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError
from training.clicks.models.model import look_up, summed
from training.propensity.curves import relative
from training.ultr.lists import ClickLists

CLIP = 10.0


class Gain(StrEnum):
    """What an attractive document in place r, from 1, is worth."""

    CLICKS = "clicks"
    """The propensity of the place: the value is clicks per session."""
    DCG = "dcg"
    """1 / log2(1 + r): the value is DCG with the chance of a click in the first slot as the relevance."""


class Method(StrEnum):
    """How clicks become a value; w = min(gain / p, clip) is the weight of a click."""

    IPS = "ips"
    """Sum of w c per session (Joachims, Swaminathan, Schnabel, WSDM 2017). Unbiased but for clipping."""
    SNIPS = "snips"
    """Sum of w c over sum of min(1 / p, clip) c: the mean gain of an attractive document, in [0, 1]. How attractive
    documents are, which all rankings share, cancels (Wang, Bendersky, Metzler, Najork, SIGIR 2016: weighted MRR)."""
    DOUBLY_ROBUST = "dr"
    """Sum of gain r + w (c - p r) per session, where r is the attraction of the document over the whole log: clipping
    costs less, as only what r does not explain is weighted (Oosterhuis, TOIS 2023, arXiv 2203.17118)."""


@dataclass(frozen=True, slots=True)
class Valuation:
    """How to value rankings.

    Parameters
    ----------
    method
        Estimator.
    gain
        What places are worth.
    top_k
        Places that are worth anything.
    clip
        Highest weight of a click, at least 1. Lower is less variance and more bias towards the order that was shown.

    Raises
    ------
    InvalidInputError
        If a value is out of range.
    """

    method: Method = Method.DOUBLY_ROBUST
    gain: Gain = Gain.CLICKS
    top_k: int = 10
    clip: float = CLIP

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise InvalidInputError(f"top_k is {self.top_k}, must be at least 1", field="top_k")
        if not self.clip >= 1:
            raise InvalidInputError(f"clip is {self.clip}, must be at least 1", field="clip")


def places_by_score(lists: ClickLists, scores: npt.NDArray[np.float64] | None) -> npt.NDArray[np.int64]:
    """Find where a ranker would put each document of each list: score descending, ties as shown, padding last.

    Parameters
    ----------
    lists
        Lists as shown.
    scores
        float64 [N]; None keeps the order.

    Returns
    -------
    array
        int64 [S, L], the new place of each shown place, from 0.

    Raises
    ------
    InvalidInputError
        If there is not one score per (query, document), or one is NaN.
    """
    shown = np.broadcast_to(np.arange(lists.rows.shape[1]), lists.rows.shape)
    if scores is None:
        return np.array(shown)
    if scores.shape != (len(lists.features),) or np.isnan(scores).any():
        raise InvalidInputError(
            f"scores have shape {scores.shape} and {int(np.isnan(scores).sum())} NaN; give a number for each of the "
            f"{len(lists.features)} (query, document) pairs"
        )
    order = np.argsort(np.where(lists.mask, -look_up(scores, lists.rows, 0.0), np.inf), axis=1, kind="stable")
    places = np.empty(order.shape, dtype=np.int64)
    np.put_along_axis(places, order, shown, axis=1)
    return places


def policy_value(
    lists: ClickLists,
    order: npt.NDArray[np.int64],
    propensities: npt.NDArray[np.float64],
    valuation: Valuation,
    *,
    offsets: npt.NDArray[np.float64] | None = None,
) -> float:
    """Value an order from clicks and propensities.

    Clicks of trust, offset per session and slot, are taken off before anything else: P(click) = propensity * attraction
    + offset (Vardasbi, Oosterhuis, de Rijke, "When inverse propensity scoring does not work", CIKM 2020).

    Parameters
    ----------
    lists
        What was shown and clicked.
    order
        int64 [S, L], from `places_by_score`.
    propensities
        float64 [K], by slot, on any scale.
    valuation
        How.
    offsets
        float64 [K], by slot; none if not given.

    Returns
    -------
    float
        See `Method`.

    Raises
    ------
    InvalidInputError
        If nothing was clicked, or a slot that was shown has no propensity.
    """
    p = place_propensities(lists, propensities)
    weights, gains = click_weights(lists, order, p, valuation)
    weights = np.minimum(weights, valuation.clip)
    clicks = lists.clicks.astype(np.float64)
    if offsets is not None:
        clicks -= np.where(lists.mask, look_up(offsets, lists.slots, 0.0), 0.0) * lists.shown[:, None]
    weighted = (weights * clicks).sum()
    if valuation.method is Method.SNIPS:
        attractive = (np.minimum(1 / p, valuation.clip) * clicks).sum()
        return float(weighted / attractive)
    if valuation.method is Method.IPS:
        return float(weighted / lists.sessions)
    attraction = _attraction(lists, clicks, p)
    shown = lists.shown[:, None] * lists.mask
    explained = (gains * attraction * shown).sum() - (weights * p * attraction * shown).sum()
    return float((explained + weighted) / lists.sessions)


def click_weights(
    lists: ClickLists, order: npt.NDArray[np.int64], p: npt.NDArray[np.float64], valuation: Valuation
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Unclipped weight of a click on each place, and what the document there gains, float64 [S, L] both."""
    gains = np.take_along_axis(p, order, axis=1) if valuation.gain is Gain.CLICKS else 1 / np.log2(order + 2.0)
    gains = np.where((order < valuation.top_k) & lists.mask, gains, 0.0)
    return gains / p, gains


def _attraction(
    lists: ClickLists, of_places: npt.NDArray[np.float64], p: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Clicks over examinations of each document in the whole log, shrunk by one examination to the mean; [S, L]."""
    pairs = len(lists.features)
    clicks, looks = summed(lists.rows, of_places, pairs), summed(lists.rows, lists.shown[:, None] * p, pairs)
    return look_up((clicks + clicks.sum() / looks.sum()) / (looks + 1.0), lists.rows, 0.0)


def place_propensities(lists: ClickLists, propensities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Propensities of each place, float64 [S, L], relative to slot 0; 1 for padding."""
    if not lists.clicks.any():
        raise InvalidInputError("nothing was clicked in these lists, so rankings cannot be told apart; collect clicks")
    found = np.where(lists.mask, look_up(relative(propensities), lists.slots, np.nan), 1.0)
    shown = lists.mask & (lists.shown[:, None] > 0)
    if not (found[shown] > 0).all():
        slot = int(lists.slots[shown & ~(found > 0)].min())
        raise InvalidInputError(
            f"slot {slot} has no propensity above 0, but was shown; leave out lists that reach it, or estimate "
            "propensities in another way"
        )
    return np.where(found > 0, found, 1.0)
