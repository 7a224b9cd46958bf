"""Every learner behind the one interface: learns from simulated clicks, repeats itself, survives saving, goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from rankers.errors import InvalidInputError
from rankers.ltr.models import load_numeric_ranker
from training.ultr.catboost_learner import CatBoostYetiRank
from training.ultr.context import Context, ContextDla
from training.ultr.dla import Dla
from training.ultr.em import RegressionEm
from training.ultr.fitting import NetworkSettings
from training.ultr.ipw import Ipw, Naive
from training.ultr.learner import FittedRanker, Learner
from training.ultr.lightgbm_learners import LightGbmDla, LightGbmIpw, LightGbmPosition, TreeSettings
from training.ultr.lists import ClickLists
from training.ultr.pairwise import PairwiseDebiased
from training.ultr.simulate import PositionBased, attraction, examination_curve, shown_lists, simulate_clicks
from training.ultr.svmlight import JudgedLists
from training.ultr.xgboost_learner import XgboostUnbiased

QUERIES, DOCUMENTS, FEATURES, PLACES = 150, 14, 6, 10
NETWORK = NetworkSettings(hidden=(16,), learning_rate=0.01, most_steps=200, batch_lists=64)
TREES = TreeSettings(rounds=40, leaves=7, feature_share=1.0, threads=1)
CURVE = examination_curve(PLACES)

LEARNERS: dict[str, Callable[[], Learner]] = {
    "dla": lambda: Dla(network=NETWORK),
    "dla, gradient": lambda: Dla(network=NETWORK, examination="gradient"),
    "dla, context": lambda: ContextDla(Context(of_previous=("f",)), network=NETWORK),
    "ipw": lambda: Ipw(CURVE, network=NETWORK),
    "naive": lambda: Naive(network=NETWORK),
    "regression-em": lambda: RegressionEm(network=NETWORK),
    "pairwise": lambda: PairwiseDebiased(network=NETWORK),
    "lightgbm ipw": lambda: LightGbmIpw(CURVE, trees=TREES),
    "lightgbm dla": lambda: LightGbmDla(dla=Dla(network=NETWORK), trees=TREES),
    "lightgbm position": lambda: LightGbmPosition(trees=TREES),
    "xgboost": lambda: XgboostUnbiased(trees=TREES),
    "catboost": lambda: CatBoostYetiRank(CURVE, trees=TREES),
}
every_learner = pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)


@pytest.fixture(scope="module")
def judged() -> JudgedLists:
    """Queries whose labels follow from the first three of six features."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(QUERIES * DOCUMENTS, FEATURES)).astype(np.float32)
    worth = features[:, 0] + 0.8 * features[:, 1] - 0.6 * features[:, 2] + rng.normal(scale=0.3, size=len(features))
    labels = np.digitize(worth, [0.3, 0.9, 1.5, 2.2]).astype(np.int64)
    queries = np.repeat(np.arange(QUERIES), DOCUMENTS)
    return JudgedLists(features, tuple("abcdef"), labels, queries, tuple(map(str, range(QUERIES))))


@pytest.fixture(scope="module")
def clicked(judged: JudgedLists) -> ClickLists:
    """Clicks on what a ranker by one feature shows."""
    production = judged.features[:, 1].astype(np.float64)
    lists = shown_lists(judged, production, places=PLACES)
    return simulate_clicks(lists, attraction(judged.labels), PositionBased(CURVE), sessions=60_000, seed=1)


def ndcg(judged: JudgedLists, scores: npt.NDArray[np.float64]) -> float:
    """Mean nDCG@10 over queries, linear gain."""
    discounts = 1 / np.log2(np.arange(10) + 2)
    values = []
    for start in range(0, len(judged.labels), DOCUMENTS):
        labels = judged.labels[start : start + DOCUMENTS]
        best = np.sort(labels)[::-1][:10] @ discounts
        if best:
            order = np.argsort(-scores[start : start + DOCUMENTS], kind="stable")[:10]
            values.append(labels[order] @ discounts / best)
    return float(np.mean(values))


@every_learner
def test_it_learns_and_repeats_itself_and_survives_saving(
    learner: Callable[[], Learner], judged: JudgedLists, clicked: ClickLists, tmp_path: Path
) -> None:
    fitted = learner().fit(clicked, seed=3)
    scores = fitted.score(judged.features)
    assert np.isfinite(scores).all()
    assert ndcg(judged, scores) > ndcg(judged, judged.features[:, 1].astype(np.float64)) + 0.02
    np.testing.assert_array_equal(learner().fit(clicked, seed=3).score(judged.features), scores)
    fitted.save(tmp_path)
    loaded = FittedRanker.load(tmp_path)
    np.testing.assert_allclose(loaded.score(judged.features), scores, rtol=1e-6)
    np.testing.assert_allclose(load_numeric_ranker(tmp_path).score(judged.features), scores, rtol=1e-6)
    assert loaded.settings == fitted.settings
    if fitted.propensities is not None:
        assert loaded.propensities is not None
        np.testing.assert_allclose(loaded.propensities, fitted.propensities)


@every_learner
def test_it_goes_on_from_where_an_earlier_one_stopped(
    learner: Callable[[], Learner], judged: JudgedLists, clicked: ClickLists
) -> None:
    first = learner().fit(clicked, seed=3)
    second = learner().fit(clicked, warm_start=first, seed=4)
    assert ndcg(judged, second.score(judged.features)) > ndcg(judged, first.score(judged.features)) - 0.02


@every_learner
def test_a_log_without_clicks_is_refused(learner: Callable[[], Learner], clicked: ClickLists) -> None:
    silent = replace(clicked, clicks=np.zeros_like(clicked.clicks), patterns=None)
    with pytest.raises(InvalidInputError):
        learner().fit(silent)


@pytest.mark.parametrize("name", ["dla", "dla, gradient", "dla, context", "regression-em", "lightgbm dla"])
def test_what_learns_examination_finds_the_curve(name: str, clicked: ClickLists) -> None:
    found = LEARNERS[name]().fit(clicked, seed=0).propensities
    assert found is not None
    truth = CURVE / CURVE[0]
    ctr = clicked.clicks.sum(axis=0) / clicked.clicks[:, 0].sum()
    error = np.abs(found - truth).mean()
    assert error < 0.1
    assert error < np.abs(ctr - truth).mean()


def test_debiasing_beats_believing_clicks(judged: JudgedLists, clicked: ClickLists) -> None:
    values = {
        name: np.mean([ndcg(judged, LEARNERS[name]().fit(clicked, seed=s).score(judged.features)) for s in range(3)])
        for name in ("dla", "ipw", "naive")
    }
    assert values["dla"] > values["naive"] + 0.01
    assert values["dla"] > values["ipw"] - 0.02


def test_more_of_the_same_sessions_change_nothing(judged: JudgedLists, clicked: ClickLists) -> None:
    doubled = replace(clicked, shown=clicked.shown * 2, clicks=clicked.clicks * 2, patterns=None)
    once, twice = (Dla(network=NETWORK).fit(lists, seed=1).score(judged.features) for lists in (clicked, doubled))
    np.testing.assert_allclose(once, twice, atol=1e-3)
