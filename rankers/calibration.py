"""Scores turned into probabilities of relevance, learnt from judged documents.

Isotonic calibration on top of a ranker: Borisyuk et al., "LiRank: Industrial Large Scale Ranking Models at LinkedIn",
KDD 2024 (arXiv 2402.06859). Pool adjacent violators: Zadrozny, Elkan, "Transforming Classifier Scores into Accurate
Multiclass Probability Estimates", KDD 2002.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rankers.errors import ConfigError, InvalidInputError, NotFoundError
from rankers.protocols import Ranker, joins_of
from rankers.types import Ranking, ScoreKind

CALIBRATION_FILE = "calibration.json"
"""Name of a calibration in the folder of the model version it was fitted for."""

FOLDS = 5
BINS = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """A non-decreasing map from scores of one kind to probabilities, and how it was found.

    It goes through the points (`knots[i]`, `values[i]`) in straight lines and is flat outside them. `data` names the
    judged data, `judged` and `relevant` count its documents. `error_before` is the expected calibration error of the
    scores read as probabilities, None where they cannot be; `error_after` that of calibrated scores of documents held
    out by cross-validation (`FOLDS` folds); both with `BINS` bins. `model` names the version of the registry whose
    scores they were, ``name@version``; empty where they were of another model or none.

    Raises
    ------
    ConfigError
        If the points are no such map.
    """

    score_kind: ScoreKind
    knots: tuple[float, ...]
    values: tuple[float, ...]
    data: str
    judged: int
    relevant: int
    error_before: float | None
    error_after: float
    model: str = ""

    def __post_init__(self) -> None:
        if (
            len(self.knots) != len(self.values)
            or not self.knots
            or not np.isfinite(self.knots).all()
            or not all(a < b for a, b in itertools.pairwise(self.knots))
            or not all(a <= b for a, b in itertools.pairwise((0.0, *self.values, 1.0)))
        ):
            raise ConfigError(
                f"a calibration needs rising knots and as many values in [0, 1] that never fall, got {len(self.knots)} "
                f"knots and {len(self.values)} values that are not; fit it again"
            )

    def probabilities(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Map scores to probabilities.

        Parameters
        ----------
        scores
            float [...], of `score_kind`; infinities are allowed, NaN is not.

        Returns
        -------
        array
            float64 [...] in [0, 1]; a higher score never has a lower probability.

        Raises
        ------
        InvalidInputError
            If a score is NaN.

        Examples
        --------
        >>> calibration = Calibration(ScoreKind.LOGIT, (0.0, 2.0), (0.2, 0.6), "doc", 5, 2, None, 0.0)
        >>> calibration.probabilities([-9.0, 0.5, 9.0]).round(6).tolist()  # 0.2 + (0.6 - 0.2) * 0.5 / 2 = 0.3
        [0.2, 0.3, 0.6]
        """
        given = np.asarray(scores, dtype=np.float64)
        if np.isnan(given).any():
            raise InvalidInputError(f"score {int(np.isnan(given).argmax())} is NaN; only numbers have a probability")
        values = np.array(self.values)
        above = np.searchsorted(self.knots, given, side="right")
        # Rounding may carry a line past its ends, and with it one document past another.
        low, high = values[np.maximum(above - 1, 0)], values[np.minimum(above, len(values) - 1)]
        return np.asarray(np.clip(np.interp(given, self.knots, values), low, high), dtype=np.float64)

    def save(self, path: str | Path) -> None:
        """Write it as JSON, exactly, and whole: a service may read the file at any time.

        Parameters
        ----------
        path
            File to write, by custom `CALIBRATION_FILE` in the folder of a model version.
        """
        path = Path(path)
        staged = path.with_name(f".{path.name}")
        staged.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        staged.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read what `save` wrote.

        Parameters
        ----------
        path
            The file.

        Returns
        -------
        Calibration
            Equal to the one saved.

        Raises
        ------
        NotFoundError
            If there is no such file.
        ConfigError
            If it holds no calibration.
        """
        try:
            stored = json.loads(Path(path).read_text(encoding="utf-8"))
            stored |= {name: tuple(map(float, stored[name])) for name in ("knots", "values")}
            return cls(**stored | {"score_kind": ScoreKind(stored["score_kind"])})
        except FileNotFoundError as error:
            raise NotFoundError(f"no calibration at {path}; fit one on judged data: shortlist calibrate") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} holds no calibration ({error}); fit it again") from error


class CalibratedRanker:
    """A ranker whose scores are probabilities; a `rankers.protocols.Ranker`.

    The order is the ranker's: documents of equal probability stay as the ranker put them. A list of fewer than two
    documents that the ranker gave back unscored is passed on as it is.

    Parameters
    ----------
    ranker
        Gives scores of the kind the calibration was fitted for.
    calibration
        Fitted on scores of this ranker.
    """

    def __init__(self, ranker: Ranker, calibration: Calibration) -> None:
        self._ranker = ranker
        self._calibration = calibration

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        """Rank and calibrate.

        Parameters
        ----------
        rankings
            Any number, each for a query of its own.

        Returns
        -------
        list of Ranking
            `ScoreKind.PROBABILITY`, with `previous` and `evidence` as the ranker gave them.

        Raises
        ------
        ConfigError
            If the ranker gives scores of another kind.
        """
        return [self._calibrated(ranking) for ranking in self._ranker.rank(rankings)]

    def cost_tokens(self, ranking: Ranking) -> int:
        """Estimate tokens: those of the ranker."""
        return self._ranker.cost_tokens(ranking)

    @property
    def joins(self) -> Hashable | None:
        """What the ranker's work is merged with."""
        return joins_of(self._ranker)

    def _calibrated(self, ranking: Ranking) -> Ranking:
        if ranking.score_kind is not self._calibration.score_kind:
            if len(ranking) < 2:
                return ranking
            raise ConfigError(
                f"the calibration on {self._calibration.data!r} is for scores of kind "
                f"{self._calibration.score_kind.value!r}, the ranker gives {ranking.score_kind.value!r}; fit one for it"
            )
        return Ranking.from_scores(
            ranking.query,
            ranking.documents,
            self._calibration.probabilities(ranking.scores),
            score_kind=ScoreKind.PROBABILITY,
            previous=ranking.previous,
            evidence=ranking.evidence,
        )


def fit_calibration(
    scores: npt.ArrayLike, relevant: npt.ArrayLike, *, score_kind: ScoreKind, data: str, model: str = ""
) -> Calibration:
    """Fit the non-decreasing map with the least squared error from scores to relevance (pool adjacent violators).

    Documents in the order of their scores, those of one score together, are blocks; as long as a block has no higher
    share of relevant documents than the one before it, the two become one. The map is the share of each block,
    straight lines between blocks.

    Parameters
    ----------
    scores
        float [n], finite, n at least 2; of one ranker, documents of one query in a row: folds are cut from the rows.
    relevant
        bool or 0/1 [n]; at least one of each.
    score_kind
        What the scores mean.
    data
        Name of the judged data, to be kept.
    model
        Version of the registry whose scores they are, ``name@version``, to be kept; empty if there is none.

    Returns
    -------
    Calibration
        Its mean over `scores` is the share of relevant documents.

    Raises
    ------
    InvalidInputError
        If lengths differ, a score is not finite, or the documents are too few or all alike.

    Examples
    --------
    >>> fitted = fit_calibration([1, 2, 3, 4], [0, 1, 0, 1], score_kind=ScoreKind.LOGIT, data="example")
    >>> fitted.knots, fitted.values  # 2 and 3 violate the order and share (1 + 0) / 2
    ((1.0, 2.0, 3.0, 4.0), (0.0, 0.5, 0.5, 1.0))
    """
    found, labels = _checked(scores, relevant)
    if not np.isfinite(found).all():
        at = int(np.flatnonzero(~np.isfinite(found))[0])
        raise InvalidInputError(f"score {at} is {found[at]}; a calibration is fitted on finite scores", field="scores")
    positives = int(labels.sum())
    if positives in {0, len(labels)}:
        raise InvalidInputError(
            f"{positives} of {len(labels)} judged documents are relevant; a calibration needs some that are and some "
            "that are not",
            field="relevant",
        )
    held_out = np.empty_like(found)
    for part in np.array_split(np.arange(len(found)), min(FOLDS, len(found))):
        held_out[part] = np.interp(found[part], *_pool(np.delete(found, part), np.delete(labels, part)))
    raw = _as_probabilities(found, score_kind)
    knots, values = _pool(found, labels)
    return Calibration(
        score_kind=score_kind,
        knots=tuple(knots),
        values=tuple(values),
        data=data,
        judged=len(labels),
        relevant=positives,
        error_before=None if raw is None else expected_calibration_error(raw, labels, bins=BINS),
        error_after=expected_calibration_error(held_out, labels, bins=BINS),
        model=model,
    )


def expected_calibration_error(probabilities: npt.ArrayLike, relevant: npt.ArrayLike, *, bins: int = BINS) -> float:
    """Measure how far probabilities are from shares of relevant documents, on average.

    ECE = sum over bins B of |B| / n * |mean of p in B - share of relevant documents in B|, bins of equal width (Guo et
    al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv 1706.04599, equation 3).

    Parameters
    ----------
    probabilities
        float [n] in [0, 1], n at least 2.
    relevant
        bool or 0/1 [n].
    bins
        Number of bins, at least 1; bin b holds [b / bins, (b + 1) / bins), the last one 1 too.

    Returns
    -------
    float
        In [0, 1]; 0 is perfect.

    Raises
    ------
    InvalidInputError
        If lengths differ or a value is out of range.

    Examples
    --------
    >>> round(expected_calibration_error([0.1, 0.3, 0.8, 0.8], [0, 1, 1, 1], bins=2), 3)  # |0.2 - 0.5|/2 + |0.8 - 1|/2
    0.25
    """
    values, labels = _checked(probabilities, relevant)
    if not ((values >= 0) & (values <= 1)).all():
        at = int(np.flatnonzero(~((values >= 0) & (values <= 1)))[0])
        raise InvalidInputError(f"probability {at} is {values[at]}, must be in [0, 1]", field="probabilities")
    if bins < 1:
        raise InvalidInputError(f"bins is {bins}, must be at least 1", field="bins")
    places = np.minimum((values * bins).astype(np.int64), bins - 1)
    return float(np.abs(np.bincount(places, weights=values - labels)).sum() / len(values))


def _checked(scores: npt.ArrayLike, relevant: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    found, labels = np.asarray(scores, dtype=np.float64), np.asarray(relevant, dtype=np.float64)
    if found.ndim != 1 or found.shape != labels.shape:
        raise InvalidInputError(f"every score needs one judgement, got shapes {found.shape} and {labels.shape}")
    if len(found) < 2:
        raise InvalidInputError(f"{len(found)} judged documents are too few; give at least 2")
    if not np.isin(labels, (0.0, 1.0)).all():
        at = int(np.flatnonzero(~np.isin(labels, (0.0, 1.0)))[0])
        raise InvalidInputError(
            f"judgement {at} is {labels[at]}, must be 0 or 1; say from which grade on a document is relevant",
            field="relevant",
        )
    return found, labels


def _pool(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """Give the ends of every block of the isotonic fit, and its share of relevant documents at each."""
    levels, members = np.unique(scores, return_inverse=True)
    counts, positives = np.bincount(members), np.bincount(members, weights=labels)
    blocks: list[tuple[float, float, int, int]] = []  # lowest score, highest score, documents, relevant ones
    for level, count, positive in zip(levels.tolist(), counts.tolist(), positives.tolist(), strict=True):
        block = (level, level, count, int(positive))
        while blocks and blocks[-1][3] * block[2] >= block[3] * blocks[-1][2]:
            low, _, before, before_positive = blocks.pop()
            block = (low, block[1], before + block[2], before_positive + block[3])
        blocks.append(block)
    ends = {end: positive / count for low, high, count, positive in blocks for end in (low, high)}
    return list(ends), list(ends.values())


def _as_probabilities(scores: npt.NDArray[np.float64], kind: ScoreKind) -> npt.NDArray[np.float64] | None:
    """Read scores as probabilities of relevance where their kind says that they are."""
    if kind is ScoreKind.LOGIT:
        return np.exp(-np.logaddexp(0.0, -scores))
    return scores if kind is ScoreKind.PROBABILITY else None
