"""What the log gives a loop: lists to learn from, later lists to decide by, and what the curves of both say."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import torch

from rankers.errors import InvalidInputError
from rankers.ltr.features import FeatureSet
from rankers.ltr.models import NumericRanker
from training.clicks.filters import FilterReport
from training.clicks.keys import ListKeys
from training.clicks.reader import log_files, read_click_lists
from training.ultr.drift import on_the_same_lists
from training.ultr.examination import NEGLIGIBLE, examination_step, relative, slot_groups
from training.ultr.lists import ClickLists
from training.ultr.losses import inverse_weights

CLIP = 10.0
STEPS = 10
LEAST_SLOPE = 0.01


@dataclass(frozen=True, slots=True)
class Evidence:
    """`learn` was shown before `split_at`, `decide` from then on; their rows, queries and slots are the same."""

    learn: ClickLists
    decide: ClickLists
    keys: ListKeys
    report: FilterReport
    decide_report: FilterReport
    split_at: datetime

    @property
    def data_hash(self) -> str:
        """SHA-256 of what is learned from."""
        digest = hashlib.sha256()
        for array in (self.learn.features, self.learn.rows, self.learn.slots, self.learn.shown, self.learn.clicks):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def split_moment(
    folder: Path, held_out: float, *, since: datetime | None = None, feature_set: str | None = None
) -> datetime:
    """Find the moment after which a share of the impressions was shown.

    Parameters
    ----------
    folder
        An exported log.
    held_out
        The share, between 0 and 1.
    since
        Impressions shown before do not count.
    feature_set
        Nor do those that were logged without it, ``name@version``; all count if not given.

    Returns
    -------
    datetime
        In UTC.

    Raises
    ------
    InvalidInputError
        If there is no impression.
    """
    impressions, _ = log_files(folder)
    ((moment, shown),) = duckdb.execute(
        "SELECT quantile_disc(epoch_us(shown_at), ?) FILTER (shown_at >= coalesce(?, '-infinity'::TIMESTAMPTZ) "
        "AND feature_set = coalesce(?, feature_set)), count(*) FROM read_parquet(?)",
        [1 - held_out, since, feature_set, list(map(str, impressions))],
    ).fetchall()
    if moment is None and not shown:
        raise InvalidInputError("the click log has no impressions yet; serve searches first")
    if moment is None:
        logged = f" with feature set {feature_set!r}" if feature_set is not None else ""
        later = f" since {since.isoformat(timespec='seconds')}" if since is not None else ""
        raise InvalidInputError(
            f"none of {shown:,} impressions was logged{logged}{later}; serve searches with the stage that is learned"
        )
    return datetime.fromtimestamp(moment / 1e6, UTC)


def last_event(folder: Path) -> int:
    """Find the highest sequence number of an exported event; 0 if there is none."""
    _, events = log_files(folder)
    ((found,),) = duckdb.execute("SELECT max(seq) FROM read_parquet(?)", [list(map(str, events))]).fetchall()
    return int(found or 0)


def read_evidence(
    folder: Path, split_at: datetime, feature_set: FeatureSet, *, since: datetime | None = None
) -> Evidence:
    """Read both parts of an exported log, with the features that the stage makes.

    Parameters
    ----------
    folder
        The export.
    split_at
        Where the parts meet.
    feature_set
        Of the stage; impressions that were logged with another, or with none, are left out and counted.
    since
        Nothing before.

    Returns
    -------
    Evidence
        Both parts.
    """
    impressions, events = log_files(folder)
    read = partial(read_click_lists, impressions, events, feature_set=feature_set.id)
    learn = read(since=since, until=split_at)
    decide = read(onto=learn.keys, since=split_at)
    return Evidence(
        _with_columns(learn.lists, feature_set.names),
        _with_columns(decide.lists, feature_set.names),
        decide.keys,
        learn.report,
        decide.report,
        split_at,
    )


def _with_columns(lists: ClickLists, names: tuple[str, ...]) -> ClickLists:
    features = np.full((len(lists.features), len(names)), np.nan, dtype=np.float32)
    for column, name in enumerate(names):
        if name in lists.feature_names:
            features[:, column] = lists.features[:, lists.feature_names.index(name)]
    return replace(lists, features=features, feature_names=names)


def scores_of(model: NumericRanker, lists: ClickLists) -> npt.NDArray[np.float64]:
    """Score every (query, document) of a log, float64 [N]."""
    columns = [lists.feature_names.index(name) for name in model.feature_names]
    return np.asarray(model.score(np.ascontiguousarray(lists.features[:, columns])), dtype=np.float64)


def examination_given(scores: npt.NDArray[np.float64]) -> Callable[[ClickLists], npt.NDArray[np.float64]]:
    """Make an estimator of propensities that takes relevance as known: the propensity side of DLA, run to its end.

    It is cheap enough to be run again on every drawn log, which intervals need.

    Parameters
    ----------
    scores
        float64 [N], of a model learned from other clicks.

    Returns
    -------
    callable
        Click lists -> float64 [K], relative to the most examined slot; NaN for slots that were never shown.
    """

    def estimate(lists: ClickLists) -> npt.NDArray[np.float64]:
        where = torch.from_numpy(lists.mask)
        slots = torch.from_numpy(lists.slots)
        groups = torch.from_numpy(slot_groups(lists))
        shown = torch.from_numpy(np.where(lists.mask, scores[np.maximum(lists.rows, 0)], 0.0))
        weighted = torch.from_numpy(lists.clicks).double() * inverse_weights(shown, where=where, clip=CLIP)
        theta = relative(torch.ones(len(groups), dtype=torch.float64), groups)
        for _ in range(STEPS):
            step, seen = examination_step(theta.clamp_min(NEGLIGIBLE), weighted, slots, where=where)
            theta = relative(torch.where(seen, step, theta), groups)
        return torch.where(groups >= 0, theta, torch.nan).numpy()

    return estimate


def trust_given(
    scores: npt.NDArray[np.float64],
) -> tuple[Callable[[ClickLists], npt.NDArray[np.float64]], Callable[[ClickLists], npt.NDArray[np.float64]]]:
    """Make estimators of both parts of clicks by people who trust, with relevance taken as known.

    Of each slot, least squares of click rates on relevance over its documents: P(click) = slope * relevance + offset
    (Vardasbi, Oosterhuis, de Rijke, CIKM 2020). Relevance counts up to scale and shift, which change no comparison.

    Parameters
    ----------
    scores
        float64 [N], log-odds of relevance by a ranker learned from clicks of trust.

    Returns
    -------
    tuple of callable
        Click lists -> float64 [K]: slopes, at least `LEAST_SLOPE` of the steepest; and offsets, chances of a click. NaN
        for slots that were never shown.
    """
    relevance = 1 / (1 + np.exp(-scores))

    def lines(lists: ClickLists) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        mask = lists.mask & (lists.shown[:, None] > 0)
        slots, size = lists.slots[mask], int(lists.slots[lists.mask].max(initial=-1)) + 1
        shown, clicks = np.broadcast_to(lists.shown[:, None], mask.shape)[mask], lists.clicks[mask]
        values = relevance[lists.rows[mask]]

        def summed(weights: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
            return np.bincount(slots, weights, size).astype(np.float64)

        count = np.where(summed(shown) > 0, summed(shown), np.nan)
        mean, rate = summed(shown * values) / count, summed(clicks) / count
        spread = summed(shown * values**2) / count - mean**2
        together = summed(clicks * values) / count - mean * rate
        slope = together / np.maximum(spread, NEGLIGIBLE)
        slope = np.maximum(slope, LEAST_SLOPE * np.nanmax(slope, initial=0.0))
        return slope, rate - slope * mean

    return lambda lists: lines(lists)[0], lambda lists: lines(lists)[1]


def whole_log(evidence: Evidence) -> ClickLists:
    """Put both parts of a log together.

    Parameters
    ----------
    evidence
        The parts.

    Returns
    -------
    ClickLists
        Without patterns. Rows and queries keep their numbers; features are those that were learned from, if any.
    """
    earlier, later = on_the_same_lists(evidence.learn, evidence.decide)
    features = later.features.copy()
    features[: len(earlier.features)] = earlier.features
    return replace(later, features=features, shown=earlier.shown + later.shown, clicks=earlier.clicks + later.clicks)
