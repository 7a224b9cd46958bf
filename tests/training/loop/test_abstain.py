"""Logs that must not be learned from, ones that must not be debiased, and one that may."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from tests.training.ultr.small_lists import attractiveness, clicked_lists, empty_lists
from training.counterfactual import compare_policies
from training.loop.abstain import learn, reasons_against, reasons_against_debiasing, reasons_to_abstain
from training.loop.evidence import trust_given
from training.loop.once import BY_RELEVANCE
from training.loop.settings import LearnerName
from training.ultr.dla import Dla
from training.ultr.em import RegressionEm
from training.ultr.fitting import NetworkSettings
from training.ultr.ipw import Naive
from training.ultr.learner import Learner
from training.ultr.lists import ClickLists
from training.ultr.simulate import ClickModel, PositionBased, Trust, examination_curve, simulate_clicks

PLACES = 6
NETWORK = NetworkSettings(hidden=(), most_steps=150, learning_rate=0.02)


def small(name: LearnerName) -> Learner:
    if name == "regression-em-trust":
        return RegressionEm(network=NETWORK, trust=True)
    return Naive(network=NETWORK) if name == "naive" else Dla(network=NETWORK)


def shown(order: npt.NDArray[np.int64] | None = None, *, lists: int = 150) -> ClickLists:
    """Lists of random documents; with `order` int64 [lists, PLACES] the places of each are put into that order."""
    empty = empty_lists([PLACES] * lists, places=PLACES)
    return empty if order is None else replace(empty, rows=np.take_along_axis(empty.rows, order, axis=1))


def best_first(noise: float) -> ClickLists:
    worth = attractiveness(shown()) + np.random.default_rng(0).normal(scale=noise, size=150 * PLACES)
    return shown(np.argsort(-worth.reshape(150, PLACES), axis=1))


def visited(lists: ClickLists, *, sessions: int = 100_000, eta: float = 1.0) -> ClickLists:
    users: ClickModel = PositionBased(examination_curve(PLACES, eta=eta))
    return simulate_clicks(lists, attractiveness(lists), users, sessions=sessions, seed=1)


def test_a_weak_rankers_log_is_debiased() -> None:
    lists = visited(shown())
    assert reasons_to_abstain(lists) == []
    learned = learn(lists, "dla", make=small)
    assert learned.naive_because == ()
    assert learned.ranker.settings["learner"] == "Dla"


@pytest.mark.parametrize("name", ["dla", "naive"])
def test_few_sessions_for_each_list_are_a_reason_to_believe_clicks(name: LearnerName) -> None:
    lists = visited(shown(), sessions=150 * 9)
    (reason,) = reasons_against_debiasing(lists)
    assert reason == "9.0 sessions for each list, fewer than 10"
    learned = learn(lists, name, make=small)
    assert learned.ranker.settings["learner"] == "Naive"
    assert (reason in learned.naive_because) == (name == "dla")
    assert learned.debiased.settings["learner"] == ("Dla" if name == "dla" else "Naive")


def test_many_features_and_few_documents_are_a_reason_to_believe_clicks() -> None:
    (reason,) = reasons_against_debiasing(visited(shown(lists=4)))
    assert reason == "24 documents were shown, fewer than 5 for each of 5 features"


def test_clicks_on_one_place_only_are_a_reason_to_abstain() -> None:
    lists = visited(shown())
    clicks = np.zeros_like(lists.clicks)
    clicks[:, 2] = lists.clicks[:, 2]
    (reason,) = reasons_to_abstain(replace(lists, clicks=clicks, patterns=None))
    assert "all clicks are on one place" in reason


def test_lists_of_one_place_are_a_reason_to_abstain() -> None:
    (reason,) = reasons_to_abstain(clicked_lists(empty_lists([1] * 50, places=3)))
    assert "every list shows one place" in reason


def with_position_as_feature(lists: ClickLists) -> ClickLists:
    features = lists.features.copy()
    features[lists.rows, 4] = lists.slots
    return replace(lists, features=features)


def test_a_feature_that_is_the_position_is_a_reason_unless_documents_changed_places() -> None:
    confounded = visited(with_position_as_feature(shown()))
    (reason,) = reasons_against_debiasing(confounded)
    assert "features tell the position (100% of it) and only 0% of the documents" in reason
    assert reason in learn(confounded, "dla", make=small).naive_because
    lists = with_position_as_feature(shown())
    turned = replace(
        lists,
        rows=np.concatenate([lists.rows, np.roll(lists.rows, 1, axis=1)]),
        queries=np.tile(lists.queries, 2),
        slots=np.tile(lists.slots, (2, 1)),
        shown=np.tile(lists.shown, 2),
        clicks=np.tile(lists.clicks, (2, 1)),
    )
    assert reasons_against_debiasing(visited(turned)) == []


def test_a_ranker_that_knew_nearly_everything_is_a_reason() -> None:
    lists = visited(best_first(0.05))
    learned = learn(lists, "dla", make=small)
    (reason,) = learned.naive_because
    assert "the order that was shown has" in reason
    assert learned.shown_share is not None
    assert learned.shown_share > 0.5


def test_no_bias_is_a_reason() -> None:
    (reason,) = learn(visited(shown(), eta=0.0), "dla", make=small).naive_because
    assert "all places are looked at about alike" in reason


def test_what_has_no_propensities_is_left_alone() -> None:
    lists = visited(shown())
    assert reasons_against(Naive(network=NETWORK).fit(lists), None) == []


def test_a_fallback_goes_on_from_a_ranker_of_its_own_kind_only() -> None:
    lists = visited(shown(), sessions=150 * 9)
    debiased, naive = Dla(network=NETWORK).fit(lists), Naive(network=NETWORK).fit(lists, seed=5)
    fresh = learn(lists, "dla", make=small).ranker.score(lists.features)
    on = learn(lists, "dla", warm_start=debiased, make=small).ranker.score(lists.features)
    np.testing.assert_array_equal(fresh, on)
    assert (learn(lists, "dla", warm_start=naive, make=small).ranker.score(lists.features) != fresh).any()


def test_clicks_of_trust_are_taken_off_where_nothing_is_live_and_stay_so() -> None:
    lists = simulate_clicks(
        shown(), attractiveness(shown()), Trust(examination_curve(PLACES)), sessions=150_000, seed=1
    )
    learned = learn(lists, "dla", unseen=lists, make=small)
    assert learned.ranker.settings["learner"] == "RegressionEm"
    assert "people trust the order" in learned.trusted_because
    assert (learned.naive_because, learned.shown_share) == ((), None)
    assert learned.unseen is not None
    offset = trust_given(learned.unseen.debiased)[1](lists)
    assert offset.argmax() == 0
    assert offset[0] > 0.2
    gain = {
        name: compare_policies(
            lists, scores, None, slope_of, offsets=offset_of, valuation=BY_RELEVANCE, replicates=20
        ).better
        for name, scores in (("best", attractiveness(lists)), ("worst", -attractiveness(lists)))
        for slope_of, offset_of in (trust_given(learned.unseen.debiased),)
    }
    assert gain == {"best": 1.0, "worst": 0.0}
    assert learn(lists, "dla", make=small).trusted_because == ""
    assert learn(lists, "dla", trust="as before", make=small).ranker.settings["learner"] == "RegressionEm"


def test_unseen_queries_leave_less_to_gain_where_a_ranker_knows_its_own_by_heart() -> None:
    lists = visited(best_first(0.5))
    noise = np.random.default_rng(3).normal(size=(len(lists.features), 60)).astype(np.float32)
    noisy = replace(
        lists,
        features=np.concatenate([lists.features, noise], axis=1),
        feature_names=(*lists.feature_names, *(f"noise{number}" for number in range(60))),
    ).take(np.arange(40))
    by_heart, elsewhere = (learn(noisy, "dla", unseen=unseen, make=small) for unseen in (None, noisy))
    assert by_heart.shown_share is not None
    assert elsewhere.shown_share is not None
    assert elsewhere.shown_share > by_heart.shown_share
