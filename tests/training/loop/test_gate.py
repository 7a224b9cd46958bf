"""Checks of the gate, each on both sides of its line."""

from pathlib import Path

import numpy as np
import pytest

from training.clicks.filters import FilterReport, Reason, Removed
from training.counterfactual import PolicyDifference
from training.loop.gate import (
    Check,
    check_clicks,
    check_curve,
    check_identified,
    check_judged,
    check_log,
    decide,
)
from training.loop.settings import ClickGate, JudgedGate


def report(*removed: Removed, kept: int = 100) -> FilterReport:
    return FilterReport(1000, 1000, 200, kept, kept, 50, 0, removed)


@pytest.mark.parametrize(("sessions", "clicks", "holds"), [(500, 100, [True, True]), (499, 99, [False, False])])
def test_there_must_be_enough(sessions: int, clicks: int, holds: list[bool]) -> None:
    checks = check_log(report(), sessions=sessions, clicks=clicks, gate=ClickGate())
    assert [check.holds for check in checks] == [*holds, True]


def test_a_log_full_of_bots_is_not_believed_and_one_full_of_repetitions_is() -> None:
    bots = report(Removed("events", Reason.SAME_PLACE, 60, ("e1",)))
    assert [check.holds for check in check_log(bots, sessions=999, clicks=999, gate=ClickGate())] == [True, True, False]
    twice = report(Removed("events", Reason.DUPLICATE, 900, ("e1",)), Removed("events", Reason.REPEATED_CLICK, 900, ()))
    assert all(check.holds for check in check_log(twice, sessions=999, clicks=999, gate=ClickGate()))


def test_reasons_to_abstain_are_named() -> None:
    check = check_identified(["too few sessions", "one ranker"])
    assert not check.holds
    assert check.found == "too few sessions; one ranker"
    assert check_identified([]).holds


def test_the_curve_may_move_a_little() -> None:
    live = np.array([1.0, 0.6, 0.4, np.nan])
    (same,) = check_curve(np.array([1.0, 0.65, 0.35]), live, ClickGate())
    (other,) = check_curve(np.array([0.5, 0.3, 1.0]), live, ClickGate())
    assert same.holds
    assert not other.holds
    assert check_curve(None, live, ClickGate()) == check_curve(live, None, ClickGate()) == []


def test_held_out_clicks_must_be_sure() -> None:
    gate = ClickGate(min_difference=0.02)
    assert check_clicks(PolicyDifference(0.05, 0.01, 0.09, 0.99), 1.0, gate).holds
    assert not check_clicks(PolicyDifference(0.05, -0.01, 0.11, 0.90), 1.0, gate).holds
    assert not check_clicks(PolicyDifference(0.01, 0.005, 0.015, 0.99), 1.0, gate).holds
    assert check_clicks(PolicyDifference(0.01, 0.005, 0.015, 0.99), 0.1, gate).holds, "a share of the baseline"


def test_a_judged_collection_is_held_against_its_bound() -> None:
    gate = JudgedGate(data=Path("nfcorpus"), pipeline="learned", min_difference=-0.01)
    assert check_judged("nfcorpus", 0.02, -0.005, gate).holds
    assert not check_judged("nfcorpus", 0.02, -0.02, gate).holds


def test_one_check_that_does_not_hold_decides() -> None:
    good, bad = Check("a", True, "1", "1"), Check("b", False, "0", "1")
    assert decide([good, good]).promoted
    decision = decide([good, bad])
    assert not decision.promoted
    assert decision.reasons == ["b: 0, needed 1"]
