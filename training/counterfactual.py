"""What a ranker would be worth, from clicks on other rankings, with intervals that know how unsure propensities are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError
from training.clicks.resampling import Unit, resample
from training.policy_values import Valuation, click_weights, place_propensities, places_by_score, policy_value
from training.propensity.curves import Estimator
from training.ultr.lists import ClickLists

REPLICATES = 200
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class PolicyValue:
    """The value of a ranker, the interval it lies in, and what it rests on.

    `effective_clicks` is (sum of w)^2 / sum of w^2 over clicks: as many clicks of equal weight would say as much.
    `clipped` is the share of clicks whose weight was cut.
    """

    value: float
    low: float
    high: float
    effective_clicks: float
    clipped: float


@dataclass(frozen=True, slots=True)
class PolicyDifference:
    """Value of a ranker minus that of a baseline, its interval, and how sure it is that the ranker is better.

    `better` is the share of drawn logs in which it is.
    """

    difference: float
    low: float
    high: float
    better: float


def evaluate_policy(
    lists: ClickLists,
    scores: npt.NDArray[np.float64] | None,
    propensities: Estimator,
    *,
    offsets: Estimator | None = None,
    valuation: Valuation | None = None,
    unit: Unit = Unit.QUERIES,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> PolicyValue:
    """Value a ranker on logged clicks.

    Propensities are estimated again from every drawn log: an interval that takes them for known is far too narrow.

    Parameters
    ----------
    lists
        Clicks that the ranker was not trained on.
    scores
        float64 [N], the ranker's score of every (query, document); None is the order that was shown.
    propensities
        Estimator, a function of click lists.
    offsets
        Estimator of clicks of trust by slot, for `training.policy_values.policy_value`; none if not given.
    valuation
        How to value; the defaults of `Valuation` if not given.
    unit
        What is drawn for the interval.
    replicates
        How often.
    seed
        The same seed gives the same interval.

    Returns
    -------
    PolicyValue
        With a percentile interval of 95 %.

    Raises
    ------
    InvalidInputError
        If a score is NaN, nothing was clicked, or a slot that was shown has no propensity.
    """
    chosen = valuation or Valuation()
    order = places_by_score(lists, scores)
    found = propensities(lists)
    value = policy_value(lists, order, found, chosen, offsets=offsets and offsets(lists))
    drawn = _drawn_values(lists, [order], (propensities, offsets), chosen, (unit, replicates, seed))[:, 0]
    weights, _ = click_weights(lists, order, place_propensities(lists, found), chosen)
    clicked = lists.clicks > 0
    used, counts = np.minimum(weights[clicked], chosen.clip), lists.clicks[clicked]
    effective = (counts @ used) ** 2 / max(counts @ used**2, np.finfo(np.float64).tiny)
    clipped = counts[weights[clicked] > chosen.clip].sum() / counts.sum()
    low, high = _interval(drawn)
    return PolicyValue(value, low, high, float(effective), float(clipped))


def compare_policies(
    lists: ClickLists,
    scores: npt.NDArray[np.float64] | None,
    baseline: npt.NDArray[np.float64] | None,
    propensities: Estimator,
    *,
    offsets: Estimator | None = None,
    valuation: Valuation | None = None,
    unit: Unit = Unit.QUERIES,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> PolicyDifference:
    """Compare two rankers on the same logged clicks, and on the same drawn logs.

    Parameters
    ----------
    lists
        Clicks that neither ranker was trained on.
    scores
        float64 [N], of the ranker; None is the order that was shown.
    baseline
        float64 [N], of the other one; None is the order that was shown.
    propensities
        Estimator, a function of click lists; estimated again from every drawn log.
    offsets
        As for `evaluate_policy`.
    valuation
        How to value; the defaults of `Valuation` if not given.
    unit
        What is drawn for the interval.
    replicates
        How often.
    seed
        The same seed gives the same interval.

    Returns
    -------
    PolicyDifference
        With a percentile interval of 95 %.

    Raises
    ------
    InvalidInputError
        As for `evaluate_policy`.
    """
    orders = [places_by_score(lists, scores), places_by_score(lists, baseline)]
    chosen = valuation or Valuation()
    known = propensities(lists), offsets and offsets(lists)
    ours, theirs = (policy_value(lists, order, known[0], chosen, offsets=known[1]) for order in orders)
    difference = ours - theirs
    values = _drawn_values(lists, orders, (propensities, offsets), chosen, (unit, replicates, seed))
    drawn = values[:, 0] - values[:, 1]
    low, high = _interval(drawn)
    better = float((drawn > 0).mean() + (drawn == 0).mean() / 2)
    return PolicyDifference(difference, low, high, better)


def _drawn_values(
    lists: ClickLists,
    orders: list[npt.NDArray[np.int64]],
    estimators: tuple[Estimator, Estimator | None],
    valuation: Valuation,
    drawing: tuple[Unit, int, int],
) -> npt.NDArray[np.float64]:
    """Values of each order on those drawn logs that could be valued, float64 [R, orders]."""
    unit, replicates, seed = drawing
    propensities, offsets = estimators
    values = []
    for replicate in resample(lists, unit=unit, replicates=replicates, seed=seed):
        try:
            found, taken_off = propensities(replicate), offsets and offsets(replicate)
            values.append([policy_value(replicate, order, found, valuation, offsets=taken_off) for order in orders])
        except InvalidInputError:  # a draw can lack what the log has just enough of
            continue
    if len(values) < replicates / 2 or not values:
        raise InvalidInputError(
            f"only {len(values)} of {replicates} drawn logs could be valued, so there is no interval; collect more "
            "clicks"
        )
    return np.array(values)


def _interval(drawn: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
