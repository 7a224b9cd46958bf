from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankers.errors import InvalidInputError
from tests.training.clicks.simulated import EXAMINED, PLACES, shown_to_users
from tests.training.propensity.test_propensities import moves, production_lists
from training.clicks.models.position import PositionBased
from training.clicks.resampling import Unit
from training.counterfactual import compare_policies, evaluate_policy
from training.policy_values import CLIP, Gain, Method, Valuation, places_by_score
from training.propensity.harvesting import all_pairs_propensities
from training.ultr.lists import ClickLists

Scores = npt.NDArray[np.float64]


def known(lists: ClickLists) -> npt.NDArray[np.float64]:
    """The truth, which only a simulation knows."""
    return EXAMINED


def production(seed: int, *, queries: int = 100, sessions: int = 20_000) -> tuple[ClickLists, PositionBased]:
    lists, model = production_lists(queries, versions=2, seed=seed)
    return shown_to_users(lists, model, sessions=sessions, seed=seed), model


def true_value(lists: ClickLists, model: PositionBased, scores: Scores | None, gain: Gain) -> float:
    places = places_by_score(lists, scores)
    gains = EXAMINED[places] if gain is Gain.CLICKS else 1 / np.log2(places + 2)
    return float(((gains * model.attraction[lists.rows]).sum(axis=1) * lists.shown).sum() / lists.sessions)


@pytest.mark.parametrize("gain", list(Gain))
@pytest.mark.parametrize("method", list(Method))
def test_values_are_near_the_truth(method: Method, gain: Gain) -> None:
    lists, model = production(0, sessions=300_000)
    for scores in (None, model.attraction, -model.attraction):
        expected = true_value(lists, model, scores, gain)
        if method is Method.SNIPS:  # per attractive document
            expected /= (model.attraction[lists.rows].sum(axis=1) * lists.shown).sum() / lists.sessions
        found = evaluate_policy(lists, scores, known, valuation=Valuation(method, gain), replicates=20)
        assert found.value == pytest.approx(expected, rel=0.02)


def test_weights_are_the_formula() -> None:
    lists = moves([[0, 1], [1, 0]], [[50, 10], [20, 20]])
    scores = np.array([0.0, 1.0])

    def half(lists: ClickLists) -> npt.NDArray[np.float64]:
        return np.array([1.0, 0.5])

    def value(method: Method, *, clip: float = CLIP) -> float:
        valuation = Valuation(method, Gain.CLICKS, clip=clip)
        return evaluate_policy(lists, scores, half, valuation=valuation, unit=Unit.QUERIES, replicates=2).value

    weighted = (50 * 0.5 + 10 * 2) + (20 * 1 + 20 * 1)
    assert value(Method.IPS) == pytest.approx(weighted / 200)
    assert value(Method.SNIPS) == pytest.approx(weighted / (50 + 10 / 0.5 + 20 + 20 / 0.5))
    assert value(Method.IPS, clip=1.5) == pytest.approx((weighted - 10 * 0.5) / 200)
    mean = 100 / (2 * 100 * 1.5)
    first, second = (50 + 20 + mean) / 151, (10 + 20 + mean) / 151
    explained = 0.5 * first + 1.0 * second
    left = [50 - 100 * first, 10 - 50 * second, 20 - 100 * second, 20 - 50 * first]
    corrected = (0.5 * left[0] + 2 * left[1] + left[2] + left[3]) / 200
    assert value(Method.DOUBLY_ROBUST) == pytest.approx(explained + corrected)
    found = evaluate_policy(lists, scores, half, valuation=Valuation(Method.IPS, clip=1.5), replicates=2)
    assert found.clipped == pytest.approx(10 / 100)
    used = np.repeat([0.5, 1.5, 1.0], [50, 10, 40])
    assert found.effective_clicks == pytest.approx(used.sum() ** 2 / (used**2).sum())


@settings(max_examples=15)
@given(st.integers(0, 1_000), st.sampled_from([Method.IPS, Method.DOUBLY_ROBUST]))
def test_the_order_that_was_shown_is_worth_the_clicks_it_had(seed: int, method: Method) -> None:
    lists, _ = production(seed, queries=5, sessions=300)
    valuation = Valuation(method, Gain.CLICKS)
    clicks = lists.clicks.sum() / lists.sessions
    assert evaluate_policy(lists, None, known, valuation=valuation, replicates=2).value == pytest.approx(clicks)
    same = compare_policies(lists, None, None, known, valuation=valuation, replicates=5)
    assert (same.difference, same.low, same.high, same.better) == (0.0, 0.0, 0.0, 0.5)


def coverage(estimate: Callable[[ClickLists], Callable[[ClickLists], npt.NDArray[np.float64]]]) -> float:
    """How often the interval holds the value, over many logs of the same users and lists."""
    shown, model = production_lists(40, versions=2, seed=5)
    covered = []
    for seed in range(40):
        lists = shown_to_users(shown, model, sessions=2_000, seed=seed)
        found = evaluate_policy(
            lists,
            -model.attraction,
            estimate(lists),
            valuation=Valuation(Method.IPS, Gain.DCG),
            unit=Unit.SESSIONS,
            replicates=40,
            seed=seed,
        )
        covered.append(found.low <= true_value(lists, model, -model.attraction, Gain.DCG) <= found.high)
    return float(np.mean(covered))


def test_intervals_need_propensities_estimated_again() -> None:
    def fixed(lists: ClickLists) -> Callable[[ClickLists], npt.NDArray[np.float64]]:
        found = all_pairs_propensities(lists)
        return lambda _: found

    assert coverage(lambda _: all_pairs_propensities) >= 0.86
    assert coverage(fixed) <= 0.8


def test_the_better_ranker_is_recognised() -> None:
    lists, model = production(1)
    found = compare_policies(lists, model.attraction, None, all_pairs_propensities, replicates=50)
    assert 0 < found.low < found.difference < found.high
    assert found.better == 1.0
    reverse = compare_policies(lists, None, model.attraction, all_pairs_propensities, replicates=50)
    assert reverse.difference == pytest.approx(-found.difference)
    assert reverse.better == 0.0


@settings(max_examples=20)
@given(st.integers(0, 1_000))
def test_places_are_a_permutation_by_score_with_ties_as_shown(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.permuted(np.tile(np.arange(PLACES), (3, 1)), axis=1)
    rows[1, 3:] = -1
    lists = moves(rows.tolist(), [[0] * PLACES] * 3)
    scores = generator.integers(3, size=PLACES).astype(np.float64)
    for places, row in zip(places_by_score(lists, scores), lists.rows, strict=True):
        assert sorted(places.tolist()) == list(range(PLACES))
        exists = np.flatnonzero(row >= 0)
        expected = sorted(exists.tolist(), key=lambda place: -scores[row[place]])
        assert np.argsort(places)[: len(exists)].tolist() == expected


def test_what_cannot_be_valued_says_why() -> None:
    lists = moves([[0, 1]], [[5, 1]])
    with pytest.raises(InvalidInputError, match="slot 1 has no propensity"):
        evaluate_policy(lists, None, lambda _: np.array([1.0, np.nan]))
    with pytest.raises(InvalidInputError, match="slot 1 has no propensity"):
        evaluate_policy(lists, None, lambda _: np.array([1.0]))
    with pytest.raises(InvalidInputError, match="1 NaN"):
        evaluate_policy(lists, np.array([1.0, np.nan]), known)
    with pytest.raises(InvalidInputError, match="nothing was clicked"):
        evaluate_policy(replace(lists, clicks=np.zeros_like(lists.clicks)), None, known)
    with pytest.raises(InvalidInputError, match="clip"):
        Valuation(clip=0.5)
    with pytest.raises(InvalidInputError, match="top_k"):
        Valuation(top_k=0)


@pytest.mark.parametrize("method", [Method.IPS, Method.DOUBLY_ROBUST])
def test_clicks_of_trust_are_taken_off(method: Method) -> None:
    """With clicks that everybody leaves by place, and the chance of them as offset, values are those without."""
    lists, model = production(0)
    trust = np.array([20, 10, 5, 2] + [0] * 20)[:PLACES]
    many = replace(lists, shown=10 * lists.shown, patterns=None)
    trusting = replace(many, clicks=lists.clicks + many.shown[:, None] * trust // 100, patterns=None)
    plain = replace(many, clicks=lists.clicks, patterns=None)

    def offsets(log: ClickLists) -> npt.NDArray[np.float64]:
        added = (many.shown[:, None] * trust // 100)[many.shown > 0] / many.shown[many.shown > 0, None]
        assert np.ptp(added, axis=0).max() < 0.02  # rounded down to whole clicks
        return np.asarray(added.mean(axis=0), dtype=np.float64)

    for scores in (None, model.attraction, -model.attraction):
        options: dict[str, Any] = {"valuation": Valuation(method, Gain.DCG), "replicates": 2}
        expected = evaluate_policy(plain, scores, known, **options).value
        found = evaluate_policy(trusting, scores, known, offsets=offsets, **options).value
        assert found == pytest.approx(expected, abs=0.02)
        assert evaluate_policy(trusting, scores, known, **options).value > expected + 0.1
