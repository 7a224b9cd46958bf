"""Propensity curves with confidence bands, and all of them in one plot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rankers.errors import InvalidInputError, MissingExtraError
from training.clicks.resampling import Unit, resample
from training.ultr.lists import ClickLists

Estimator = Callable[[ClickLists], npt.NDArray[np.float64]]
"""Propensities by slot, float64 [K], relative to slot 0; NaN where the log cannot tell."""


@dataclass(frozen=True, slots=True)
class PropensityCurve:
    """What one estimator says, `estimate` float64 [K], and the band from `low` to `high` it lies in.

    `failures` of the replicates had no estimate at all; NaN is a slot the log cannot tell.
    """

    name: str
    estimate: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    failures: int = 0


def propensity_curve(
    name: str,
    lists: ClickLists,
    estimate: Estimator,
    *,
    unit: Unit = Unit.QUERIES,
    replicates: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> PropensityCurve:
    """Estimate propensities, and again from logs drawn from this one (percentile bootstrap, pointwise).

    Parameters
    ----------
    name
        What the plot calls it.
    lists
        What the estimator is to see.
    estimate
        Gives propensities by slot.
    unit
        What is drawn.
    replicates
        How often; few will do for a slow estimator.
    confidence
        Between 0 and 1.
    seed
        The same seed gives the same band.

    Returns
    -------
    PropensityCurve
        With the band.

    Raises
    ------
    InvalidInputError
        If the log is too small for the estimator, or no replicate could be estimated.
    """
    found = relative(estimate(lists))
    drawn = np.full((replicates, len(found)), np.nan)
    failures = 0
    for number, replicate in enumerate(resample(lists, unit=unit, replicates=replicates, seed=seed)):
        try:
            again = relative(estimate(replicate))
        except InvalidInputError:  # a draw can lack what the log has just enough of
            failures += 1
            continue
        drawn[number, : len(again)] = again[: len(found)]
    if failures == replicates:
        raise InvalidInputError(f"{name}: none of {replicates} drawn logs could be estimated; collect more clicks")
    low, high = np.full(len(found), np.nan), np.full(len(found), np.nan)
    told = np.isfinite(found) & np.isfinite(drawn).any(axis=0)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low[told], high[told] = np.nanquantile(drawn[:, told], tails, axis=0)
    return PropensityCurve(name, found, low, high, failures)


def relative(propensities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Divide by the propensity of slot 0.

    Parameters
    ----------
    propensities
        float64 [K].

    Returns
    -------
    array
        float64 [K], 1 at slot 0.

    Raises
    ------
    InvalidInputError
        If that of slot 0 is not above 0.
    """
    if not len(propensities) or not propensities[0] > 0:
        raise InvalidInputError(f"propensities {propensities.tolist()} have no first slot to compare with")
    return np.asarray(propensities / propensities[0], dtype=np.float64)


def plot_curves(
    curves: Sequence[PropensityCurve], path: str | Path, *, truth: npt.NDArray[np.float64] | None = None
) -> None:
    """Draw curves with their bands into one picture.

    Parameters
    ----------
    curves
        In the order of the legend.
    path
        File to write; its ending says what kind, for example ``.svg``.
    truth
        float64 [K], drawn as a dashed line, where clicks were simulated.

    Raises
    ------
    InvalidInputError
        If there is no curve.
    MissingExtraError
        If matplotlib is not installed.
    """
    if not curves:
        raise InvalidInputError("there is no curve to draw; give at least one")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", extra="evaluate") from error
    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    if truth is not None:
        axes.plot(np.arange(1, len(truth) + 1), relative(truth), "k--", label="truth", zorder=3)
    for number, curve in enumerate(curves):
        # Beside each other, or bands of methods that agree would hide one another.
        slots = np.arange(1, len(curve.estimate) + 1) + 0.08 * (number - (len(curves) - 1) / 2)
        (line,) = axes.plot(slots, curve.estimate, marker="o", markersize=3, label=curve.name)
        axes.fill_between(slots, curve.low, curve.high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set_xlabel("slot")
    axes.set_ylabel("propensity relative to slot 1")
    axes.set_ylim(bottom=0)
    axes.legend()
    # Without salt and date the same curves would give another file every time.
    with rc_context({"svg.hashsalt": "shortlist"}):
        figure.savefig(path, metadata={"Date": None} if str(path).endswith(".svg") else None)
