"""Examination in context: features of the showing are learnt beside the slot, from counts alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from rankers.errors import InvalidInputError
from tests.training.ultr.small_lists import attractiveness, empty_lists
from training.ultr.batch import BatchSource
from training.ultr.context import Context, ContextDla, ContextExamination, examination_of_places, number_showings
from training.ultr.dla import Dla
from training.ultr.fitting import NetworkSettings
from training.ultr.ipw import Naive
from training.ultr.learner import FittedRanker
from training.ultr.lists import ClickLists
from training.ultr.simulate import examination_curve, simulate_clicks_by_place

PLACES = 6
NETWORK = NetworkSettings(hidden=(16,), learning_rate=0.01, most_steps=200)
LEARNER = ContextDla(Context(of_list=("quick",), of_previous=("tall",)), NETWORK)


def pages(sizes: list[int], *, seed: int = 0) -> ClickLists:
    """Lists with two more features: some queries are quick, some documents tall."""
    lists = empty_lists(sizes, places=PLACES, seed=seed)
    rng = np.random.default_rng(seed + 1)
    tall = rng.random(len(lists.features)) < 0.4
    quick = np.repeat(rng.random(len(sizes)) < 0.5, sizes)
    features = np.column_stack([lists.features, tall, quick]).astype(np.float32)
    return replace(lists, features=features, feature_names=(*lists.feature_names, "tall", "quick"))


def looked_at(lists: ClickLists) -> npt.NDArray[np.float64]:
    """Few look far down where the query is quick, and half as many at what a tall result has pushed down."""
    tall, quick = (lists.features[:, at][np.maximum(lists.rows, 0)] > 0 for at in (-2, -1))
    pushed = np.concatenate([np.zeros((len(tall), 1), dtype=np.bool_), tall[:, :-1]], axis=1)
    curve = examination_curve(PLACES)[None] ** np.where(quick, 1.5, 0.5)
    return np.asarray(np.where(lists.mask, curve * np.where(pushed, 0.5, 1.0), 0.0), dtype=np.float64)


def error_of(fitted: FittedRanker, lists: ClickLists) -> float:
    truth = looked_at(lists)
    found = examination_of_places(fitted, lists)
    return float(np.abs(found - truth / truth.max(axis=1, keepdims=True))[lists.mask].mean())


@pytest.fixture(scope="module")
def clicked() -> ClickLists:
    lists = pages([6, 4, 6, 5, 6] * 40)
    return simulate_clicks_by_place(lists, attractiveness(lists), looked_at(lists), sessions=100_000, seed=2)


@pytest.fixture(scope="module")
def fitted(clicked: ClickLists) -> FittedRanker:
    return LEARNER.fit(clicked, seed=0)


def test_the_context_of_examination_is_found(clicked: ClickLists, fitted: FittedRanker) -> None:
    by_slot = Dla(network=NETWORK).fit(clicked, seed=0)
    assert error_of(fitted, clicked) < 0.06
    assert error_of(fitted, clicked) < error_of(by_slot, clicked) / 2.5
    others = pages([6, 3, 6] * 20, seed=9)
    assert error_of(fitted, others) < 0.06
    assert np.corrcoef(fitted.score(others.features), attractiveness(others))[0, 1] > 0.9


def test_it_says_what_slots_are_worth_on_average(clicked: ClickLists, fitted: FittedRanker) -> None:
    truth = looked_at(clicked)
    seen = (truth * clicked.shown[:, None]).sum(axis=0) / (clicked.mask * clicked.shown[:, None]).sum(axis=0)
    assert fitted.propensities is not None
    np.testing.assert_allclose(fitted.propensities, seen / seen[0], atol=0.08)


def test_it_survives_saving_and_goes_on(clicked: ClickLists, fitted: FittedRanker, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    loaded = FittedRanker.load(tmp_path)
    np.testing.assert_allclose(examination_of_places(loaded, clicked), examination_of_places(fitted, clicked))
    longer = pages([6] * 50, seed=4)
    longer = simulate_clicks_by_place(longer, attractiveness(longer), looked_at(longer), sessions=20_000, seed=5)
    assert error_of(LEARNER.fit(longer, warm_start=loaded, seed=1), longer) < 0.08
    with pytest.raises(InvalidInputError, match="tall"):
        ContextDla(network=NETWORK).fit(clicked, warm_start=loaded)


def test_counts_say_the_same_as_sessions(clicked: ClickLists) -> None:
    rng = np.random.default_rng(0)
    showings, numbered = number_showings(clicked.take(np.arange(8)), LEARNER.context, None)
    patterns = rng.random((30, PLACES)) < 0.4
    numbers = rng.integers(8, size=30)
    counts = np.zeros_like(numbered.clicks)
    np.add.at(counts, numbers, patterns & numbered.mask[numbers])
    numbered = replace(numbered, clicks=counts, shown=np.bincount(numbers, minlength=8))
    source = BatchSource(numbered, torch.zeros(len(numbered.features), 1))
    batches = source.batch(torch.arange(8)), source.session_batch(numbers, patterns & numbered.mask[numbers])
    scores = torch.from_numpy(rng.normal(size=(8, PLACES)))
    found = []
    for batch, shown in zip(batches, (scores, scores[torch.from_numpy(numbers)]), strict=True):
        examination = ContextExamination(showings)
        examination.learn(shown, batch)
        found.append((examination.loss(shown, batch), examination.state()["weights"]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)


def test_values_describe_the_page() -> None:
    lists = pages([3, 2])
    lists = replace(lists, features=lists.features.copy())
    lists.features[:, -2] = [1, 0, 1, 0, 0]
    lists.features[:, -1] = [5, 5, np.nan, np.nan, np.nan]
    values = Context(of_list=("quick",), of_previous=("tall",)).values(lists)
    np.testing.assert_array_equal(values[0, :3], [[3, 5, np.nan], [3, 5, 1], [3, 5, 0]])
    np.testing.assert_array_equal(values[1, :2], [[2, np.nan, np.nan], [2, np.nan, 0]])


def test_what_cannot_be_known_is_refused(clicked: ClickLists, fitted: FittedRanker) -> None:
    with pytest.raises(InvalidInputError, match="wide"):
        ContextDla(Context(of_previous=("wide",)), NETWORK).fit(clicked)
    with pytest.raises(InvalidInputError, match="slot 6"):
        examination_of_places(fitted, replace(clicked, slots=np.where(clicked.mask, clicked.slots + 2, 0)))
    with pytest.raises(InvalidInputError, match="Naive"):
        examination_of_places(Naive(network=NETWORK).fit(clicked), clicked)
