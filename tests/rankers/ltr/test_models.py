"""Rankers over numeric features as directories: what is written is what scores, and what is broken is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from rankers.errors import ConfigError, InvalidInputError, NotFoundError
from rankers.ltr.models import (
    CATBOOST_FILE,
    LIGHTGBM_FILE,
    RANKER_FILE,
    WEIGHTS_FILE,
    XGBOOST_FILE,
    CatBoostRanker,
    LightGbmRanker,
    NetworkRanker,
    NumericRanker,
    XgboostRanker,
    load_numeric_ranker,
    load_propensities,
    save_numeric_ranker,
)
from rankers.ltr.networks import Normaliser, RankingNetwork, Scorer

NAMES = ("price", "age", "bm25")
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(60, 3)).astype(np.float32)
FEATURES[::7, 1] = np.nan
LABELS = (FEATURES[:, 0] > 0).astype(np.int64)


def a_network() -> NumericRanker:
    normaliser = Normaliser.fit(FEATURES)
    scorer = Scorer(normaliser.width, (4,), seed=0)
    torch.nn.init.normal_(list(scorer.parameters())[-2])
    return NetworkRanker(RankingNetwork(normaliser, scorer), NAMES)


def a_lightgbm() -> NumericRanker:
    import lightgbm

    data = lightgbm.Dataset(FEATURES, LABELS)
    return LightGbmRanker(lightgbm.train({"verbosity": -1, "num_threads": 1}, data, 5), NAMES)


def an_xgboost() -> NumericRanker:
    import xgboost

    return XgboostRanker(xgboost.train({"nthread": 1}, xgboost.DMatrix(FEATURES, LABELS), 5), NAMES)


def a_catboost() -> NumericRanker:
    import catboost

    model = catboost.CatBoost({"iterations": 5, "verbose": False, "allow_writing_files": False, "thread_count": 1})
    return CatBoostRanker(model.fit(FEATURES, LABELS), NAMES)


KINDS: dict[str, tuple[Callable[[], NumericRanker], str]] = {
    "network": (a_network, WEIGHTS_FILE),
    "lightgbm": (a_lightgbm, LIGHTGBM_FILE),
    "xgboost": (an_xgboost, XGBOOST_FILE),
    "catboost": (a_catboost, CATBOOST_FILE),
}
every_kind = pytest.mark.parametrize(("make", "file"), KINDS.values(), ids=KINDS)


@every_kind
def test_what_was_saved_scores_as_before(make: Callable[[], NumericRanker], file: str, tmp_path: Path) -> None:
    ranker = make()
    save_numeric_ranker(ranker, tmp_path / "new" / "folder")
    loaded = load_numeric_ranker(tmp_path / "new" / "folder")
    assert (loaded.kind, loaded.feature_names) == (ranker.kind, NAMES)
    scores = loaded.score(FEATURES)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, ranker.score(FEATURES), rtol=1e-6)
    assert load_propensities(tmp_path / "new" / "folder") is None


@every_kind
def test_a_list_scores_as_its_documents_do_one_by_one(make: Callable[[], NumericRanker], file: str) -> None:
    ranker = make()
    together = ranker.score(FEATURES[:8])
    np.testing.assert_allclose([ranker.score(FEATURES[at : at + 1])[0] for at in range(8)], together, rtol=1e-5)
    assert ranker.score(FEATURES[:0]).shape == (0,)


@every_kind
def test_another_number_of_columns_is_refused(make: Callable[[], NumericRanker], file: str) -> None:
    for wrong in (FEATURES[:, :2], FEATURES[0]):
        with pytest.raises(InvalidInputError, match="3 columns"):
            make().score(wrong)


@every_kind
def test_a_broken_or_missing_model_is_said(make: Callable[[], NumericRanker], file: str, tmp_path: Path) -> None:
    save_numeric_ranker(make(), tmp_path)
    (tmp_path / file).write_bytes(b"this is no model")
    with pytest.raises(ConfigError, match="train it again"):
        load_numeric_ranker(tmp_path)


@pytest.mark.parametrize("propensities", [[1.0, 0.5, float("nan")], np.array([1.0, 0.25])])
def test_propensities_come_back(propensities: list[float] | npt.NDArray[np.float64], tmp_path: Path) -> None:
    save_numeric_ranker(a_network(), tmp_path, propensities=propensities)
    np.testing.assert_array_equal(load_propensities(tmp_path), propensities)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 99}, "format"),
        ({"kind": "oracle"}, "kind 'oracle'"),
        ({"feature_names": "price"}, "kind"),
        ({"propensities": ["much"]}, "propensities"),
    ],
)
def test_a_description_that_cannot_be_is_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    save_numeric_ranker(a_network(), tmp_path)
    description = json.loads((tmp_path / RANKER_FILE).read_text()) | change
    (tmp_path / RANKER_FILE).write_text(json.dumps(description))
    load = load_propensities if "propensities" in change else load_numeric_ranker
    with pytest.raises(ConfigError, match=said):
        load(tmp_path)


def test_a_folder_without_a_ranker_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        load_numeric_ranker(tmp_path)
    (tmp_path / RANKER_FILE).write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        load_numeric_ranker(tmp_path)
