"""What holds for every click model, and that each finds again what made the clicks."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankers.errors import InvalidInputError
from tests.training.clicks.simulated import EXAMINED, disagreeing_lists, shown_to_users
from training.clicks.models.browsing import UserBrowsing, fit_user_browsing
from training.clicks.models.measures import log_likelihood, perplexity
from training.clicks.models.model import ClickModel, Prior
from training.clicks.models.position import (
    PositionBased,
    fit_document_rates,
    fit_global_rate,
    fit_position_based,
    fit_rank_rates,
)
from training.clicks.models.top_down import (
    TopDown,
    fit_cascade,
    fit_dependent_click,
    fit_dynamic_bayesian,
    fit_simplified_bayesian,
)
from training.ultr.lists import PADDING, ClickLists, ClickPatterns

QUERIES, PLACES = 4, 5
NONE = np.empty(0)
NO_PRIOR = Prior(1e-9, 2e-9)


def truths(seed: int = 0) -> dict[str, ClickModel]:
    generator = np.random.default_rng(seed)
    attraction = generator.uniform(0.2, 0.8, QUERIES * PLACES)
    on = generator.uniform(0.2, 0.9, QUERIES * PLACES)
    by_last = generator.uniform(0.3, 0.9, (PLACES, PLACES))
    return {
        "pbm": PositionBased(attraction, EXAMINED, 0.5, 0.5),
        "cascade": TopDown(attraction, NONE, NONE, 1.0, (0.5, 1.0, 0.0)),
        "dcm": TopDown(attraction, NONE, EXAMINED * 0.9, 1.0, (0.5, 1.0, 0.5)),
        "sdbn": TopDown(attraction, on, NONE, 1.0, (0.5, 0.5, 1.0)),
        "dbn": TopDown(attraction, on, np.full(PLACES, 0.8), 0.8, (0.5, 0.5, 0.8)),
        "ubm": UserBrowsing(attraction, by_last, 0.5, 0.5),
    }


# The dependent click model and the simplified network count what they cannot see, and so are biased by design.
FITS: dict[str, Callable[[ClickLists], ClickModel]] = {
    "pbm": lambda lists: fit_position_based(lists, rounds=300),
    "cascade": fit_cascade,
    "dbn": lambda lists: fit_dynamic_bayesian(lists, rounds=200),
    "ubm": lambda lists: fit_user_browsing(lists, rounds=300),
}


def simulated(name: str, *, sessions: int, seed: int = 1) -> ClickLists:
    lists = disagreeing_lists(QUERIES, 20, seed=seed)
    return shown_to_users(lists, truths()[name], sessions=sessions, seed=seed)


@settings(max_examples=20)
@given(st.integers(0, 1_000), st.sampled_from(sorted(truths())), st.integers(0, 3))
def test_chances_of_all_patterns_add_up_and_give_the_chances_of_places(seed: int, name: str, padded: int) -> None:
    model = truths(seed)[name]
    rows = np.random.default_rng(seed).permutation(QUERIES * PLACES + 1)[:4]
    rows[4 - padded :] = PADDING
    patterns = np.array(list(product([False, True], repeat=4)))
    lists = np.tile(rows, (len(patterns), 1))
    slots = np.tile(np.arange(4), (len(patterns), 1))
    chances = model.next_chances(lists, slots, patterns)
    whole = np.where(patterns, chances, 1 - chances).prod(axis=1)
    assert whole.sum() == pytest.approx(1)
    np.testing.assert_allclose(model.click_chances(lists[:1], slots[:1])[0], whole @ patterns, atol=1e-12)
    assert not model.click_chances(lists[:1], slots[:1])[0, 4 - padded :].any()


@pytest.mark.parametrize("name", sorted(FITS))
def test_the_model_that_made_the_clicks_is_found_again(name: str) -> None:
    lists = simulated(name, sessions=200_000)
    truth, found = truths()[name], FITS[name](lists)
    np.testing.assert_allclose(
        found.click_chances(lists.rows, lists.slots), truth.click_chances(lists.rows, lists.slots), atol=0.03
    )
    assert log_likelihood(found, lists) >= log_likelihood(truth, lists) - 1e-4
    if isinstance(found, PositionBased):
        np.testing.assert_allclose(found.examination / found.examination[0], EXAMINED, atol=0.03)
    if name == "dbn":
        assert isinstance(found, TopDown)
        assert found.onward == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("fit", [fit_position_based, fit_user_browsing, fit_dynamic_bayesian])
def test_every_round_makes_the_clicks_more_likely(fit: Callable[..., ClickModel]) -> None:
    lists = simulated("dbn", sessions=2_000)
    found = [log_likelihood(fit(lists, rounds=rounds, prior=NO_PRIOR), lists) for rounds in (1, 2, 3, 5, 10, 30)]
    assert found == sorted(found)


def test_fits_see_sessions_however_they_are_collapsed() -> None:
    lists = simulated("ubm", sessions=500)
    patterns = lists.patterns
    assert patterns is not None
    apart = ClickPatterns(
        np.repeat(patterns.lists, patterns.sessions),
        np.repeat(patterns.clicked, patterns.sessions, axis=0),
        np.ones(patterns.sessions.sum(), dtype=np.int64),
    )
    for fit in (fit_cascade, fit_dependent_click, fit_simplified_bayesian, fit_dynamic_bayesian, fit_user_browsing):
        one, other = fit(lists), fit(replace(lists, patterns=apart))
        np.testing.assert_allclose(
            one.click_chances(lists.rows, lists.slots), other.click_chances(lists.rows, lists.slots)
        )


def one_list(sessions: list[list[int]]) -> ClickLists:
    clicked = np.array(sessions, dtype=np.bool_)
    places = clicked.shape[1]
    return ClickLists(
        features=np.zeros((places, 0), dtype=np.float32),
        feature_names=(),
        rows=np.arange(places)[None, :],
        queries=np.zeros(1, dtype=np.int64),
        slots=np.arange(places)[None, :],
        shown=np.array([len(sessions)]),
        clicks=clicked.sum(axis=0)[None, :],
        patterns=ClickPatterns(
            np.zeros(len(sessions), dtype=np.int64), clicked, np.ones(len(sessions), dtype=np.int64)
        ),
    )


def test_counted_models_count_what_their_papers_say() -> None:
    lists = one_list([[0, 1, 0], [1, 0, 1], [0, 0, 0]])
    exact = NO_PRIOR
    assert fit_global_rate(lists, prior=exact).unknown_attraction == pytest.approx(3 / 9)
    assert fit_rank_rates(lists, prior=exact).examination == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    assert fit_document_rates(lists).attraction == pytest.approx([2 / 5, 2 / 5, 2 / 5])
    assert fit_cascade(lists, prior=exact).attraction == pytest.approx([1 / 3, 1 / 2, 0 / 1], abs=1e-6)
    dependent = fit_dependent_click(lists, prior=exact)
    assert dependent.attraction == pytest.approx([1 / 3, 1 / 3, 1 / 2])
    assert dependent.on_by_slot == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)
    assert fit_simplified_bayesian(lists, prior=exact).on_by_row == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)


def test_measures_are_their_formulas() -> None:
    lists = one_list([[0, 1], [1, 1], [0, 0]])
    coin = PositionBased(NONE, NONE, 0.5, 1.0)
    assert perplexity(coin, lists).by_place == pytest.approx((2.0, 2.0))
    assert log_likelihood(coin, lists) == pytest.approx(np.log(0.5))
    model = PositionBased(np.array([0.2, 0.6]), NONE, 0.5, 1.0)
    by_place = [2 ** -(np.log2([0.8, 0.2, 0.8]).mean()), 2 ** -(np.log2([0.6, 0.6, 0.4]).mean())]
    assert perplexity(model, lists).by_place == pytest.approx(by_place)
    assert perplexity(model, lists).mean == pytest.approx(np.mean(by_place))
    likelihood = np.mean([np.log([0.8, 0.6]).mean(), np.log([0.2, 0.6]).mean(), np.log([0.8, 0.4]).mean()])
    assert log_likelihood(model, lists) == pytest.approx(likelihood)


def test_pairs_and_slots_never_seen_have_the_prior() -> None:
    lists = one_list([[0, 1], [1, 1], [0, 0]])
    unseen, slots = np.array([[7, 8, 9]]), np.array([[5, 6, 7]])
    for fit in (fit_document_rates, fit_cascade, fit_dynamic_bayesian, fit_user_browsing, fit_position_based):
        assert ((chances := fit(lists).click_chances(unseen, slots)) > 0).all()
        assert (chances < 1).all()


def test_what_is_missing_is_said() -> None:
    lists = replace(one_list([[0, 1]]), patterns=None)
    with pytest.raises(InvalidInputError, match="patterns"):
        fit_user_browsing(lists)
    with pytest.raises(InvalidInputError, match="no sessions"):
        perplexity(fit_global_rate(lists), lists.take(np.array([], dtype=np.int64)))
