"""A learned ranker over numeric features, as a stage; its features travel with the result to the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rankers.errors import ConfigError, WorkerError
from rankers.ltr.feature_kinds import Encode
from rankers.ltr.features import FeatureSet
from rankers.ltr.terms import CollectionStatistics, Part
from rankers.types import Evidence, Ranking, ScoreKind


class NumericModel(Protocol):
    """A model that scores the documents of one list from their features."""

    @property
    def feature_names(self) -> Sequence[str]:
        """Names of the columns it wants, in its order."""
        ...

    def score(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Score one list: float32 [L, F], NaN where a feature is missing, to float64 [L]."""
        ...


def utc_now() -> datetime:
    """Tell the time."""
    return datetime.now(UTC)


class LtrRanker:
    """Orders documents by the scores of a numeric model; a `rankers.protocols.Ranker`.

    Without a model it keeps the order that comes in and makes the features all the same: so there is something to learn
    from before there is a first model.

    Parameters
    ----------
    model
        None where there is none yet.
    feature_set
        Has at least the features of the model. All of them are reported, so that the next model may use more.
    statistics
        Of the collection, for BM25; see `rankers.ltr.features.FeatureSet.collection`.
    encode
        The encoder of the feature set.
    clock
        What time it is, for freshness.
    no_model_note
        What to tell the caller where there is no model.

    Raises
    ------
    ConfigError
        If the model wants features that the set does not have.
    """

    def __init__(
        self,
        model: NumericModel | None,
        feature_set: FeatureSet,
        *,
        statistics: Mapping[Part, CollectionStatistics] | None = None,
        encode: Encode | None = None,
        clock: Callable[[], datetime] = utc_now,
        no_model_note: str = "there is no learned model yet, the order that came in was kept",
    ) -> None:
        names = feature_set.names
        unknown = [name for name in model.feature_names if name not in names] if model is not None else []
        if unknown:
            raise ConfigError(
                f"the model was trained with {', '.join(unknown)}, which feature set {feature_set.id!r} does not have; "
                "use the feature set it was trained with"
            )
        self._model = model
        self._feature_set = feature_set
        self._columns = [names.index(name) for name in model.feature_names] if model is not None else []
        self._statistics = statistics
        self._encode = encode
        self._clock = clock
        self._no_model_note = no_model_note

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        """Make features, score and sort, list by list: a model may look at a list as a whole.

        Parameters
        ----------
        rankings
            Any number, each for a query of its own.

        Returns
        -------
        list of Ranking
            `ScoreKind.PREFERENCE`: the model's scores less their mean, for only their differences mean something.
            Without a model the order as it was. `evidence.features` are those the model saw, bit by bit.

        Raises
        ------
        WorkerError
            If the model does not give a finite number for every document.
        """
        now = self._clock()
        return [self._rank(ranking, now) for ranking in rankings]

    @property
    def is_cheap(self) -> bool:
        """See `rankers.protocols.CheapRanker`: unless texts are encoded, only numbers are computed."""
        return self._encode is None

    def cost_tokens(self, ranking: Ranking) -> int:
        """Count one per document: no token is read, or the encoder's are not known yet."""
        return len(ranking)

    def _rank(self, ranking: Ranking, now: datetime) -> Ranking:
        matrix = self._feature_set.extract(ranking, now=now, statistics=self._statistics, encode=self._encode)
        features = self._feature_set.as_logged(ranking, matrix)
        if self._model is None:
            evidence = Evidence(features=features, feature_set=self._feature_set.id, notes=(self._no_model_note,))
            return Ranking.from_order(ranking.query, ranking.documents, previous=ranking, evidence=evidence)
        scores = self._scores(self._model, matrix)
        return Ranking.from_scores(
            ranking.query,
            ranking.documents,
            scores - scores.mean() if len(scores) else scores,
            score_kind=ScoreKind.PREFERENCE,
            previous=ranking,
            evidence=Evidence(features=features, feature_set=self._feature_set.id),
        )

    def _scores(self, model: NumericModel, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        if not len(matrix):
            return np.empty(0)
        scores = np.asarray(model.score(np.ascontiguousarray(matrix[:, self._columns])), dtype=np.float64)
        if scores.shape != (len(matrix),) or not np.isfinite(scores).all():
            raise WorkerError(
                f"the model gave scores of shape {scores.shape} for {len(matrix)} documents, "
                f"{np.count_nonzero(~np.isfinite(scores))} of them not finite; promote another version"
            )
        return scores
