"""Calibration against scikit-learn, its own definition and what a calibrated ranking promises."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression  # type: ignore[import-untyped]

from rankers.calibration import (
    CALIBRATION_FILE,
    CalibratedRanker,
    Calibration,
    expected_calibration_error,
    fit_calibration,
)
from rankers.errors import ConfigError, InvalidInputError, NotFoundError
from rankers.types import Evidence, Ranking, ScoreKind
from tests.rankers.build import documents, ordered, scored

quarters = st.integers(-40, 40).map(lambda x: x / 4)
judged = (
    st.lists(st.tuples(quarters, st.booleans()), min_size=2, max_size=40)
    .filter(lambda pairs: len({relevant for _, relevant in pairs}) == 2)
    .map(lambda pairs: ([score for score, _ in pairs], [relevant for _, relevant in pairs]))
)
any_scores = st.lists(st.floats(allow_nan=False), max_size=20)


def fitted(pairs: tuple[list[float], list[bool]], kind: ScoreKind = ScoreKind.LOGIT) -> Calibration:
    return fit_calibration(*pairs, score_kind=kind, data="judged")


class FixedScores:
    """Gives the documents the scores in `features`, as one kind."""

    def __init__(self, kind: ScoreKind) -> None:
        self.kind = kind

    def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        return [
            Ranking.from_scores(
                ranking.query,
                ranking.documents,
                [document.features["score"] for document in ranking.documents],
                score_kind=self.kind,
                previous=ranking,
                evidence=Evidence(tokens=7),
            )
            for ranking in rankings
        ]

    def cost_tokens(self, ranking: Ranking) -> int:
        return 3 * len(ranking)


def candidates(scores: Sequence[float]) -> Ranking:
    pool = [
        replace(document, features={"score": score})
        for document, score in zip(documents(len(scores)), scores, strict=True)
    ]
    return Ranking.from_order(ordered().query, pool)


@given(judged, any_scores)
def test_it_is_the_isotonic_regression_of_scikit_learn(pairs: tuple[list[float], list[bool]], new: list[float]) -> None:
    bounded = np.clip(np.array(new), -1e6, 1e6)
    reference = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(*pairs)
    scores = np.concatenate([pairs[0], bounded])
    assert fitted(pairs).probabilities(scores) == pytest.approx(reference.predict(scores), abs=1e-9)


@given(judged)
def test_its_mean_on_the_fitted_data_is_the_share_of_relevant_documents(pairs: tuple[list[float], list[bool]]) -> None:
    calibration = fitted(pairs)
    assert calibration.probabilities(pairs[0]).mean() == pytest.approx(np.mean(pairs[1]))
    assert (calibration.judged, calibration.relevant) == (len(pairs[1]), sum(pairs[1]))


@given(judged, any_scores)
def test_a_higher_score_never_has_a_lower_probability(pairs: tuple[list[float], list[bool]], new: list[float]) -> None:
    probabilities = fitted(pairs).probabilities(sorted([*new, *pairs[0], -math.inf, math.inf]))
    assert (np.diff(probabilities) >= 0).all()
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1


@given(judged, any_scores)
def test_calibrated_rankings_have_the_order_of_the_ranker(
    pairs: tuple[list[float], list[bool]], new: list[float]
) -> None:
    ranker, given_ranking = FixedScores(ScoreKind.LOGIT), candidates([*new, *pairs[0]])
    (plain,) = ranker.rank([given_ranking])
    (calibrated,) = CalibratedRanker(ranker, fitted(pairs)).rank([given_ranking])
    assert calibrated.ids == plain.ids
    assert calibrated.scores == tuple(fitted(pairs).probabilities(plain.scores))
    assert calibrated.score_kind is ScoreKind.PROBABILITY
    assert (calibrated.previous, calibrated.evidence) == (given_ranking, Evidence(tokens=7))


@pytest.mark.parametrize("rising", [np.array([0.1, 0.1 + 1e-17 + 0.2, 1 / 3]), np.array([1e-310, 2e-310, 3e-310])])
def test_rounding_between_two_knots_never_passes_the_next(rising: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    low, _, high = rising.tolist()
    calibration = Calibration(ScoreKind.SHARE, (low, high), (1 / 3, 0.7), "judged", 3, 2, None, 0.0)
    near = np.sort(np.concatenate([rising, np.nextafter(rising, 0), np.nextafter(rising, 1)]))
    assert (np.diff(calibration.probabilities(near)) >= 0).all()
    assert calibration.probabilities(near).max() == 0.7


def test_saving_and_loading_changes_nothing(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    scores = generator.normal(size=300)
    calibration = fitted((scores.tolist(), (generator.random(300) < 1 / (1 + np.exp(-scores))).tolist()))
    path = tmp_path / CALIBRATION_FILE
    calibration.save(path)
    assert Calibration.load(path) == calibration
    assert [file.name for file in tmp_path.iterdir()] == [CALIBRATION_FILE]
    assert Calibration.load(str(path)).probabilities(scores).tolist() == calibration.probabilities(scores).tolist()
    assert json.loads(path.read_text())["score_kind"] == "logit"


def test_calibration_mends_overconfident_log_odds_on_documents_held_out() -> None:
    generator = np.random.default_rng(0)
    honest = generator.normal(size=2000)
    relevant = generator.random(2000) < 1 / (1 + np.exp(-honest))
    calibration = fit_calibration(5 * honest, relevant, score_kind=ScoreKind.LOGIT, data="synthetic")
    assert calibration.error_before == pytest.approx(
        expected_calibration_error(1 / (1 + np.exp(-5 * honest)), relevant, bins=10)
    )
    assert calibration.error_before is not None
    assert calibration.error_before > 0.15
    assert calibration.error_after < 0.05


def test_the_error_after_is_of_documents_the_map_was_not_fitted_on() -> None:
    # Relevance has nothing to do with the scores: the fit on all data is perfect on them, on others it is not.
    generator = np.random.default_rng(1)
    scores, relevant = generator.normal(size=60), generator.random(60) < 0.5
    calibration = fit_calibration(scores, relevant, score_kind=ScoreKind.LIKELIHOOD, data="noise")
    on_fitted = expected_calibration_error(calibration.probabilities(scores), relevant)
    assert on_fitted < 0.02
    assert calibration.error_after > on_fitted


def test_only_scores_that_are_probabilities_have_an_error_before() -> None:
    pairs = ([0.1, 0.6, 0.4, 0.9], [False, True, False, True])
    assert fitted(pairs, ScoreKind.PROBABILITY).error_before == expected_calibration_error(*pairs)
    for kind in set(ScoreKind) - {ScoreKind.PROBABILITY, ScoreKind.LOGIT}:
        assert fitted(pairs, kind).error_before is None


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2), st.integers(1, 30))
def test_calibration_error_is_its_formula(pairs: list[tuple[float, bool]], bins: int) -> None:
    expected = 0.0
    for b in range(bins):
        inside = [pair for pair in pairs if min(int(pair[0] * bins), bins - 1) == b]
        if inside:
            mean, share = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            expected += len(inside) / len(pairs) * abs(mean - share)
    probabilities, relevant = zip(*pairs, strict=True)
    assert expected_calibration_error(probabilities, relevant, bins=bins) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "relevant", "message"),
    [
        ([1.0, 2.0], [0, 0], "0 of 2 judged documents are relevant"),
        ([1.0, 2.0], [1, 1], "2 of 2 judged documents are relevant"),
        ([1.0, math.nan], [0, 1], "score 1 is nan"),
        ([-math.inf, 1.0], [0, 1], "score 0 is -inf"),
        ([1.0, 2.0, 3.0], [0, 1], "every score needs one judgement"),
        ([[1.0, 2.0]], [[0, 1]], "every score needs one judgement"),
        ([1.0], [1], "1 judged documents are too few"),
        ([], [], "0 judged documents are too few"),
        ([1.0, 2.0], [0, 2], "judgement 1 is 2.0, must be 0 or 1"),
    ],
)
def test_data_that_cannot_be_fitted_is_refused(scores: list[float], relevant: list[int], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        fit_calibration(scores, relevant, score_kind=ScoreKind.LOGIT, data="judged")


def test_numbers_that_are_no_probabilities_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"probability 1 is 1\.5"):
        expected_calibration_error([0.5, 1.5], [0, 1])
    with pytest.raises(InvalidInputError, match="probability 0 is nan"):
        expected_calibration_error([math.nan, 0.5], [0, 1])
    with pytest.raises(InvalidInputError, match="bins is 0"):
        expected_calibration_error([0.5, 0.5], [0, 1], bins=0)
    with pytest.raises(InvalidInputError, match="score 1 is NaN"):
        fitted(([1.0, 2.0], [False, True])).probabilities([0.0, math.nan])


def test_a_ranker_with_another_kind_of_scores_is_refused() -> None:
    calibration = fitted(([1.0, 2.0], [False, True]))
    ranker = CalibratedRanker(FixedScores(ScoreKind.LIKELIHOOD), calibration)
    with pytest.raises(ConfigError, match="for scores of kind 'logit', the ranker gives 'likelihood'"):
        ranker.rank([candidates([1.0, 2.0])])
    assert ranker.cost_tokens(candidates([1.0, 2.0])) == 6


def test_a_document_alone_that_nobody_scored_is_passed_on() -> None:
    class Untouched(FixedScores):
        def rank(self, rankings: Sequence[Ranking]) -> list[Ranking]:
            return list(rankings)

    alone = scored({"a": 3.0})
    calibrated = CalibratedRanker(Untouched(ScoreKind.LOGIT), fitted(([1.0, 2.0], [False, True])))
    assert calibrated.rank([alone, ordered()]) == [alone, ordered()]


@pytest.mark.parametrize(
    ("knots", "values"),
    [
        ((), ()),
        ((1.0, 1.0), (0.1, 0.2)),
        ((1.0, 2.0), (0.2, 0.1)),
        ((1.0, 2.0), (0.2, 1.1)),
        ((1.0, 2.0), (-0.1, 0.5)),
        ((1.0, math.inf), (0.2, 0.5)),
        ((1.0, 2.0), (0.2, math.nan)),
        ((1.0, 2.0), (0.2,)),
    ],
)
def test_points_that_could_change_an_order_are_refused(knots: tuple[float, ...], values: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="rising knots"):
        Calibration(ScoreKind.LOGIT, knots, values, "judged", 2, 1, None, 0.0)


def test_files_that_hold_no_calibration_are_refused(tmp_path: Path) -> None:
    path = tmp_path / CALIBRATION_FILE
    with pytest.raises(NotFoundError, match="no calibration at"):
        Calibration.load(path)
    fitted(([1.0, 2.0], [False, True])).save(path)
    whole = json.loads(path.read_text())
    for broken in (
        "{",
        "[]",
        "{}",
        json.dumps(whole | {"score_kind": "heat"}),
        json.dumps(whole | {"knots": 3}),
        json.dumps(whole | {"colour": "red"}),
        json.dumps({name: value for name, value in whole.items() if name != "judged"}),
    ):
        path.write_text(broken)
        with pytest.raises(ConfigError, match="holds no calibration"):
            Calibration.load(path)
