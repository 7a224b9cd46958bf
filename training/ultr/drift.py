"""Whether people look at lists as they did before: the examination curve of one time against that of another."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from training.ultr.examination import examination_given_scores
from training.ultr.lists import PADDING, ClickLists

DRAWS = 40
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class CurveDrift:
    """How far the curve moved.

    `earlier` and `later` are float64 [K], 1 for the most examined slot, NaN for slots that were not shown then;
    `change` their mean absolute difference over slots that both times showed; `by_chance` what the change would stay
    under in 95 % of logs in which nothing moved.
    """

    earlier: npt.NDArray[np.float64]
    later: npt.NDArray[np.float64]
    change: float
    by_chance: float

    def beyond(self, least: float) -> bool:
        """Whether it moved by more than `least`, and by more than chance."""
        return self.change > max(least, self.by_chance)


def curve_drift(
    earlier: ClickLists, later: ClickLists, scores: npt.NDArray[np.float64], *, draws: int = DRAWS, seed: int = 0
) -> CurveDrift:
    """Compare the curves of two times, with relevance taken from one ranker for both.

    If nothing moved, it does not matter which of a list's sessions came early: clicks of a place are then drawn from
    those of both times together without putting back, and the change of such draws is what chance does (a permutation
    test within lists).

    Parameters
    ----------
    earlier
        Log of one time.
    later
        Log of another, over the same rows of features.
    scores
        float64 [N], of a ranker; it need not be good, as it errs in the same way at both times.
    draws
        Logs to draw without drift.
    seed
        Of the draws.

    Returns
    -------
    CurveDrift
        No change where the times have no slot in common.
    """
    before, after = on_the_same_lists(earlier, later)
    curves = [_curve(lists, scores) for lists in (before, after)]
    rng = np.random.default_rng(seed)
    clicks = before.clicks + after.clicks
    passes = (before.shown + after.shown)[:, None] - clicks
    changes = []
    for _ in range(draws):
        first = rng.hypergeometric(clicks, passes, np.broadcast_to(before.shown[:, None], clicks.shape))
        drawn = replace(before, clicks=first), replace(after, clicks=clicks - first)
        changes.append(_change(*(_curve(lists, scores) for lists in drawn)))
    return CurveDrift(curves[0], curves[1], _change(*curves), float(np.quantile(changes, CONFIDENCE)))


def _curve(lists: ClickLists, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Examination float64 [K]; lists that were not shown at a time say nothing about it."""
    return examination_given_scores(lists.take(np.flatnonzero(lists.shown > 0)), scores)


def _change(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    shared = min(len(one), len(other))
    difference = np.abs(one[:shared] - other[:shared])
    return float(np.nanmean(difference)) if np.isfinite(difference).any() else 0.0


def on_the_same_lists(*times: ClickLists) -> list[ClickLists]:
    """Give logs over the same rows of features the same lists in the same order, counting 0 where one did not show it.

    Parameters
    ----------
    *times
        Logs of different times.

    Returns
    -------
    list of ClickLists
        One for each log, without patterns; features are its own.
    """
    places = max(lists.rows.shape[1] for lists in times)
    padded = [_padded(lists, places) for lists in times]
    keys = np.concatenate([np.concatenate([lists.rows, lists.slots], axis=1) for lists in padded])
    distinct, first, number = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    queries = np.concatenate([lists.queries for lists in padded])[first]
    result, start = [], 0
    for lists in padded:
        at = number.reshape(-1)[start : start + len(lists.rows)]
        start += len(lists.rows)
        shown = np.zeros(len(distinct), dtype=np.int64)
        clicks = np.zeros((len(distinct), places), dtype=np.int64)
        np.add.at(shown, at, lists.shown)
        np.add.at(clicks, at, lists.clicks)
        rows, slots = distinct[:, :places], distinct[:, places:]
        result.append(
            replace(lists, rows=rows, slots=slots, queries=queries, shown=shown, clicks=clicks, patterns=None)
        )
    return result


def _padded(lists: ClickLists, places: int) -> ClickLists:
    more = ((0, 0), (0, places - lists.rows.shape[1]))
    rows = np.pad(lists.rows, more, constant_values=PADDING)
    slots = np.where(rows == PADDING, 0, np.pad(lists.slots, more))
    return replace(lists, rows=rows, slots=slots, clicks=np.pad(lists.clicks, more), patterns=None)
