"""The training loop of networks: the same seed twice, going on, stopping, and single sessions against counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rankers.errors import InvalidInputError, NotFoundError
from rankers.ltr.networks import Normaliser, RankingNetwork, Scorer
from tests.training.ultr.small_lists import FEATURES, attractiveness, clicked_lists, empty_lists
from training.ultr.batch import BatchSource, ListwiseBatch, split_queries
from training.ultr.correction import ClickCorrection
from training.ultr.dla import ClosedFormExamination, Dla, GradientExamination
from training.ultr.em import HiddenCauses, RegressionEm
from training.ultr.fitting import NetworkSettings, NetworkTrainer, fit_network
from training.ultr.ipw import GivenExamination, Ipw, Naive
from training.ultr.learner import FittedRanker, Learner
from training.ultr.lists import ClickLists
from training.ultr.pairwise import PairRatios, PairwiseDebiased
from training.ultr.simulate import examination_curve

PLACES = 6
GROUPS = np.zeros(PLACES, dtype=np.int64)
SETTINGS = NetworkSettings(hidden=(8,), most_steps=40, learning_rate=0.01, batch_lists=32)
LEARNERS: dict[str, Learner] = {
    "dla": Dla(network=SETTINGS),
    "dla, gradient": Dla(network=SETTINGS, examination="gradient"),
    "ipw": Ipw(examination_curve(PLACES), network=SETTINGS),
    "naive": Naive(network=SETTINGS),
    "regression-em": RegressionEm(network=SETTINGS, trust=True),
    "pairwise": PairwiseDebiased(network=SETTINGS),
}
CORRECTIONS: dict[str, Callable[[], ClickCorrection]] = {
    "dla": lambda: ClosedFormExamination(GROUPS),
    "dla, gradient": lambda: GradientExamination(GROUPS),
    "ipw": lambda: GivenExamination(examination_curve(PLACES), None, clip=10.0),
    "regression-em": lambda: HiddenCauses(GROUPS),
    "pairwise": lambda: PairRatios(GROUPS, memory=0.9, power=1.0, clip=10.0),
}
every_learner = pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
every_correction = pytest.mark.parametrize("make", CORRECTIONS.values(), ids=CORRECTIONS)


@pytest.fixture(scope="module")
def clicked() -> ClickLists:
    """Lists of 1 to 6 places with position-based clicks."""
    sizes = [1 + number % PLACES for number in range(120)]
    return clicked_lists(empty_lists(sizes, places=PLACES), sessions=30_000)


def network() -> RankingNetwork:
    normaliser = Normaliser.fit(np.random.default_rng(0).normal(size=(50, FEATURES)).astype(np.float32))
    return RankingNetwork(normaliser, Scorer(FEATURES, (8,), seed=1))


def source_of(lists: ClickLists, *, pairs: bool = False) -> BatchSource:
    return BatchSource(lists, torch.from_numpy(lists.features), pairs=pairs)


@every_learner
def test_the_same_seed_gives_the_same_bytes(learner: Learner, clicked: ClickLists, tmp_path: Path) -> None:
    for name in ("one", "two"):
        learner.fit(clicked, seed=5).save(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) >= 4
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_another_seed_gives_another_ranker(clicked: ClickLists) -> None:
    one, two = (LEARNERS["dla"].fit(clicked, seed=seed).score(clicked.features) for seed in (0, 1))
    assert not np.allclose(one, two)


@every_correction
def test_state_carries_everything_to_go_on_from(make: Callable[[], ClickCorrection], clicked: ClickLists) -> None:
    """Steps after a save and a load are those of a trainer that was never interrupted."""
    settings = replace(SETTINGS, dropout=0.0)
    batches = [
        source_of(clicked, pairs=True).batch(torch.arange(start, start + 30)) for start in (0, 30, 60, 90, 0, 30)
    ]
    through = NetworkTrainer(network(), make(), settings)
    expected = [through.step(batch) for batch in batches]
    early, late = (NetworkTrainer(network(), make(), settings) for _ in range(2))
    assert [early.step(batch) for batch in batches[:3]] == expected[:3]
    late.network.load_state_dict(early.network.state_dict())
    late.load_state(early.state())
    assert [late.step(batch) for batch in batches[3:]] == expected[3:]


@every_learner
def test_a_warm_start_goes_on_with_the_moments_of_the_optimiser(learner: Learner, clicked: ClickLists) -> None:
    first = learner.fit(clicked, seed=1)
    assert any("exp_avg_sq" in name for name in first.state)
    steps = {name: value.item() for name, value in first.state.items() if name.endswith(".step")}
    second = learner.fit(clicked, warm_start=first, seed=2)
    for name, count in steps.items():
        assert second.state[name].item() >= count > 0
    for name, value in first.state.items():
        assert torch.isfinite(value).all(), name


@every_correction
def test_a_batch_without_clicks_moves_nothing_but_what_decays(
    make: Callable[[], ClickCorrection], clicked: ClickLists
) -> None:
    batch = source_of(clicked, pairs=True).batch(torch.arange(20))
    assert batch.pairs is not None
    silent = replace(
        batch,
        clicks=torch.zeros_like(batch.clicks),
        shown=torch.zeros_like(batch.shown),
        pairs=torch.zeros_like(batch.pairs),
    )
    trainer = NetworkTrainer(network(), make(), replace(SETTINGS, weight_decay=0.0, dropout=0.0))
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    assert trainer.step(silent) == 0.0
    for name, value in trainer.network.state_dict().items():
        torch.testing.assert_close(value, before[name], msg=name)
    after = trainer.correction.propensities()
    assert after is None or not np.isinf(after).any()
    assert np.isfinite(trainer.step(batch))


@every_correction
def test_counts_and_single_sessions_give_one_step(make: Callable[[], ClickCorrection], clicked: ClickLists) -> None:
    """Losses that are linear in clicks learn the same from a batch of sessions as from what it collapses to."""
    if make().needs_pairs:
        pytest.skip("single sessions have no pair counts")
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 40, size=400)
    drawn = (rng.random((400, PLACES)) < 0.3) & clicked.mask[numbers]
    shown = np.bincount(numbers, minlength=len(clicked.rows))
    clicks = np.zeros_like(clicked.clicks)
    np.add.at(clicks, numbers, drawn)
    counted = replace(clicked, shown=shown, clicks=clicks, patterns=None)
    batches: list[ListwiseBatch] = [
        source_of(counted).batch(torch.arange(40)),
        source_of(clicked).session_batch(numbers, drawn),
    ]
    settings = replace(SETTINGS, dropout=0.0)
    states = []
    for batch in batches:
        trainer = NetworkTrainer(network(), make(), settings)
        losses = [trainer.step(batch) for _ in range(3)]
        states.append((losses, trainer.correction.propensities()))
    (of_counts, curve), (of_sessions, other) = states
    np.testing.assert_allclose(of_counts, of_sessions, atol=1e-5)
    if curve is not None and other is not None:
        np.testing.assert_allclose(curve, other, atol=1e-4)


@pytest.mark.parametrize("examination", ["closed_form", "gradient"])
def test_sessions_in_another_order_are_the_same_log(examination: str, clicked: ClickLists) -> None:
    """Lists may come in any order too: only the order of batches is drawn, and here there is one batch."""
    settings = replace(SETTINGS, batch_lists=1000, held_out=0.0, dropout=0.0, most_steps=20)
    dla = Dla(network=settings, examination="closed_form" if examination == "closed_form" else "gradient")
    order = np.random.default_rng(3).permutation(len(clicked.rows))
    one, two = (dla.fit(lists, seed=1) for lists in (clicked, clicked.take(order)))
    # A score is known up to a constant, which Adam moves by rounding errors.
    first, second = (fitted.score(clicked.features) for fitted in (one, two))
    np.testing.assert_allclose(first - first.mean(), second - second.mean(), atol=1e-3)


def test_short_lists_only_are_learned_from() -> None:
    lists = empty_lists([2] * 60, places=10)
    fitted = Dla(network=SETTINGS).fit(clicked_lists(lists, sessions=20_000), seed=0)
    assert fitted.propensities is not None
    assert len(fitted.propensities) == 2
    worth = attractiveness(lists)[lists.rows[:, :2]]
    scores = fitted.score(lists.features)[lists.rows[:, :2]]
    assert ((np.diff(worth) > 0) == (np.diff(scores) > 0)).mean() > 0.8


def test_training_stops_by_held_out_queries_and_keeps_the_best(clicked: ClickLists) -> None:
    settings = replace(SETTINGS, most_steps=2000, patience=3, check_every=5, learning_rate=0.1)
    fitted = Dla(network=settings).fit(clicked, seed=0)
    assert fitted.history[-1].step < 2000
    assert all(progress.held_out_loss is not None for progress in fitted.history)


def test_what_is_held_out_does_not_shape_the_normaliser(clicked: ClickLists) -> None:
    _, held_out = split_queries(clicked, held_out=SETTINGS.held_out, seed=0)
    features = clicked.features.copy()
    features[clicked.rows[held_out][clicked.mask[held_out]]] += 100.0
    changed = replace(clicked, features=features)
    means = [
        Naive(network=SETTINGS).fit(lists, seed=0).model.network.normaliser.mean.numpy()  # type: ignore[attr-defined]
        for lists in (clicked, changed)
    ]
    np.testing.assert_array_equal(*means)


def test_a_warm_start_that_does_not_fit_is_refused(clicked: ClickLists, tmp_path: Path) -> None:
    first = LEARNERS["dla"].fit(clicked)
    with pytest.raises(InvalidInputError, match="hidden layers"):
        Dla(network=replace(SETTINGS, hidden=(4,))).fit(clicked, warm_start=first)
    with pytest.raises(InvalidInputError, match="features"):
        LEARNERS["dla"].fit(replace(clicked, feature_names=tuple("vwxyz")), warm_start=first)
    with pytest.raises(NotFoundError):
        FittedRanker.load(tmp_path)


def test_propensities_must_cover_what_was_shown(clicked: ClickLists) -> None:
    for given in ([1.0, 0.5], [1.0] * 5 + [0.0], [1.0] * 5 + [np.nan]):
        with pytest.raises(InvalidInputError, match="slot"):
            Ipw(given, network=SETTINGS).fit(clicked)
    with pytest.raises(InvalidInputError, match="offsets"):
        Ipw(examination_curve(PLACES), offsets=[0.1], network=SETTINGS).fit(clicked)


def test_no_clicks_are_refused(clicked: ClickLists) -> None:
    silent = replace(clicked, clicks=np.zeros_like(clicked.clicks), patterns=None)
    with pytest.raises(InvalidInputError, match="nothing to learn"):
        fit_network(silent, GivenExamination(None, None, clip=1.0), SETTINGS, config={})
