from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rankers.errors import InvalidInputError
from tests.training.clicks.logs import Log
from tests.training.clicks.simulated import EXAMINED, PLACES
from training.clicks.models.position import PositionBased
from training.interleaving import credit, read_interleaving, simulate_interleaving, verdict

NAMES = ("old", "new")
QUERIES = 10
ATTRACTION = np.tile(np.linspace(0.9, 0.1, PLACES), QUERIES)
USERS = PositionBased(ATTRACTION, EXAMINED, 0.5, 0.5)
BEST = np.arange(QUERIES * PLACES).reshape(QUERIES, PLACES)


def test_the_vote_goes_to_the_arm_with_more_clicks() -> None:
    arms = ["", "old", "new", "old"]
    assert credit(arms, [True, False, True, False], names=NAMES) == -1
    assert credit(arms, [False, True, True, False], names=NAMES) == 0
    assert credit(arms, [False, True, True, True], names=NAMES) == 1


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
def test_a_verdict_is_a_sign_test_and_turns_with_the_arms(wins: int, losses: int, ties: int) -> None:
    if not wins + losses + ties:
        return
    found, turned = verdict(wins, losses, ties), verdict(losses, wins, ties)
    assert found.p_value == turned.p_value
    assert found.preference == pytest.approx(1 - turned.preference)
    assert found.low <= found.preference <= found.high
    if wins + losses:
        assert found.p_value == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)


def test_no_vote_is_no_verdict() -> None:
    with pytest.raises(InvalidInputError, match="at least one vote"):
        verdict(0, 0, 0)


def test_the_better_ranker_wins_and_the_same_one_ties() -> None:
    better = simulate_interleaving(BEST, BEST[:, ::-1], USERS, sessions=2_000, seed=1)
    assert better.preference > better.low > 0.5
    assert better.p_value < 1e-6
    assert simulate_interleaving(BEST, BEST, USERS, sessions=200).ties == 200
    with pytest.raises(InvalidInputError, match="shapes"):
        simulate_interleaving(BEST, BEST[:1], USERS, sessions=1)


def test_rankers_of_equal_worth_are_told_apart_as_seldom_as_the_test_says() -> None:
    # Mirror images of each other around equally attractive documents: neither is better.
    users = PositionBased(np.full(QUERIES * PLACES, 0.5), EXAMINED, 0.5, 0.5)
    found = [simulate_interleaving(BEST, BEST[:, ::-1], users, sessions=200, seed=seed) for seed in range(60)]
    assert np.mean([one.p_value < 0.05 for one in found]) <= 0.12
    assert np.mean([one.preference for one in found]) == pytest.approx(0.5, abs=0.015)


def test_a_log_is_judged_by_its_clicks_and_users(tmp_path: Path) -> None:
    log = Log()
    for number in range(12):
        user_key = "heavy" if number < 5 else None
        log.show(f"i{number}", ["a", "b", "c"], arms=["", "old", "new"], at_s=number * 60, user_key=user_key)
        log.event(f"i{number}", "b" if number < 8 else "c", at_s=number * 60 + 1)
        log.event(f"i{number}", "a", at_s=number * 60 + 1)
    log.event("i0", "z")  # not shown
    log.show("quiet", ["a", "b", "c"], arms=["", "old", "new"])
    log.show("other", ["a", "b"], arms=["x", "y"])
    log.show("plain", ["a", "b"])
    for name in ("other", "plain"):
        log.event(name, "a")
    files = log.write(tmp_path)
    by_impression = read_interleaving(*files, names=NAMES)
    assert (by_impression.wins, by_impression.losses, by_impression.ties) == (8, 4, 1)
    by_user = read_interleaving(*files, names=NAMES, by_user=True)
    assert (by_user.wins, by_user.losses, by_user.ties) == (4, 4, 1)
    turned = read_interleaving(*files, names=NAMES[::-1])
    assert (turned.wins, turned.losses) == (4, 8)
    with pytest.raises(InvalidInputError, match="at least one vote"):
        read_interleaving(*files, names=("nobody", "else"))
