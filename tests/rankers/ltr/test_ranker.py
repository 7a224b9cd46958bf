"""The learned ranker: what the model sees is what is reported, and nothing that it gives is trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pytest

from rankers.errors import ConfigError, WorkerError
from rankers.ltr.features import FeatureSet, load_feature_set
from rankers.ltr.ranker import LtrRanker
from rankers.protocols import Ranker
from rankers.types import Document, Query, Ranking, ScoreKind

NOW = datetime(2024, 6, 1, tzinfo=UTC)
DEFAULT = load_feature_set("default")
RANKING = Ranking.from_scores(
    Query("q", "red fox"),
    [Document("cat", "a cat"), Document("fox", "a red fox", title="Fox"), Document("red", "red")],
    [3.0, 2.0, 1.0],
    score_kind=ScoreKind.LEXICAL,
)


@dataclass
class Watched:
    """Scores by a function of its columns, and remembers what it was shown."""

    feature_names: Sequence[str]
    formula: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]
    seen: list[npt.NDArray[np.float32]] = field(default_factory=list)

    def score(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        self.seen.append(features.copy())
        return self.formula(features)


def by_coverage() -> Watched:
    return Watched(("coverage", "dense_score"), lambda features: features[:, 0].astype(np.float64))


def ranker_of(model: Watched | None, feature_set: FeatureSet = DEFAULT) -> LtrRanker:
    return LtrRanker(model, feature_set, clock=lambda: NOW)


def test_documents_are_ordered_by_the_models_scores() -> None:
    ranker = ranker_of(by_coverage())
    assert isinstance(ranker, Ranker)
    (result,) = ranker.rank([RANKING])
    assert result.ids == ("fox", "red", "cat")
    assert result.scores == (0.5, 0.0, -0.5)
    assert result.score_kind is ScoreKind.PREFERENCE
    assert result.previous is RANKING
    assert ranker.cost_tokens(RANKING) == 3


def test_what_is_reported_is_what_the_model_saw() -> None:
    model = by_coverage()
    (result,) = ranker_of(model).rank([RANKING])
    evidence = result.evidence
    assert evidence.feature_set == "default@1"
    assert set(evidence.features) == set(RANKING.ids)
    assert all(tuple(features) == DEFAULT.names for features in evidence.features.values())
    for row, document_id in zip(model.seen[0], RANKING.ids, strict=True):
        reported = [evidence.features[document_id][name] for name in model.feature_names]
        assert np.array_equal(np.array(reported, dtype=np.float32), row, equal_nan=True)
    assert evidence.features["cat"]["dense_score"] is None
    assert np.isnan(model.seen[0][:, 1]).all()


def test_lists_are_scored_one_by_one() -> None:
    model = by_coverage()
    other = Ranking.from_order(Query("q2", "cat"), RANKING.documents[:2])
    empty = Ranking.from_order(Query("q3", "cat"), [])
    together = ranker_of(model).rank([RANKING, other, empty])
    assert [len(shown) for shown in model.seen] == [3, 2]
    assert together == [ranker_of(by_coverage()).rank([one])[0] for one in (RANKING, other, empty)]
    assert together[1].ids == ("cat", "fox")


def test_without_a_model_the_order_is_kept_and_features_are_reported() -> None:
    (result,) = ranker_of(None).rank([RANKING])
    assert result.ids == RANKING.ids
    assert result.previous is RANKING
    assert result.evidence.features == ranker_of(by_coverage()).rank([RANKING])[0].evidence.features
    assert result.evidence.notes == ("there is no learned model yet, the order that came in was kept",)


@pytest.mark.parametrize(
    "formula",
    [
        lambda features: np.full(len(features), np.nan),
        lambda features: np.full(len(features), np.inf),
        lambda features: np.zeros(len(features) + 1),
        lambda features: features.astype(np.float64),
    ],
)
def test_scores_that_cannot_order_are_a_failure_of_the_model(
    formula: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]],
) -> None:
    with pytest.raises(WorkerError, match=r"3 documents.*promote another version"):
        ranker_of(Watched(("coverage", "bm25"), formula)).rank([RANKING])


def test_a_model_that_wants_other_features_is_refused() -> None:
    with pytest.raises(ConfigError, match="trained with price, which feature set 'default@1' does not have"):
        ranker_of(Watched(("coverage", "price"), lambda features: features[:, 0].astype(np.float64)))
