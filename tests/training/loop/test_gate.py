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
    check_live,
    check_log,
    decide,
)
from training.loop.settings import ClickGate, JudgedGate


def report(*removed: Removed, kept: int = 100) -> FilterReport:
    return FilterReport(1000, 1000, 200, kept, kept, 50, 0, removed)


def checked(learn: FilterReport, held_out: FilterReport, *, sessions: int = 999, clicks: int = 999) -> list[Check]:
    return check_log(learn, sessions=sessions, clicks=clicks, held_out=held_out, gate=ClickGate())


@pytest.mark.parametrize(("sessions", "clicks", "holds"), [(500, 100, [True, True]), (499, 99, [False, False])])
def test_there_must_be_enough(sessions: int, clicks: int, holds: list[bool]) -> None:
    checks = checked(report(), report(), sessions=sessions, clicks=clicks)
    assert [check.holds for check in checks] == [*holds, True, True]


def test_impressions_with_other_features_are_named_where_sessions_are_counted() -> None:
    others = Removed("impressions", Reason.OTHER_FEATURES, 1200, ("i1",))
    check, *more = checked(report(others), report(), sessions=3)
    assert check.found == "3, and 1,200 logged without the feature set of the stage"
    assert all(each.holds for each in more)


def test_a_log_full_of_bots_is_not_believed_and_one_full_of_repetitions_is() -> None:
    bots = report(Removed("events", Reason.SAME_PLACE, 60, ("e1",)))
    assert [check.holds for check in checked(bots, report())] == [True, True, False, True]
    assert [check.holds for check in checked(report(), bots)] == [True, True, True, False]
    twice = report(Removed("events", Reason.DUPLICATE, 900, ("e1",)), Removed("events", Reason.REPEATED_CLICK, 900, ()))
    assert all(check.holds for check in checked(twice, twice))


def test_reasons_to_abstain_are_named() -> None:
    check = check_identified(["too few sessions", "one ranker"])
    assert not check.holds
    assert check.found == "too few sessions; one ranker"
    assert check_identified([]).holds


def test_the_curve_may_move_a_little() -> None:
    live = np.array([1.0, 0.6, 0.4, np.nan])
    assert check_curve(np.array([1.0, 0.65, 0.35]), live, ClickGate()).holds
    assert not check_curve(np.array([0.5, 0.3, 1.0]), live, ClickGate()).holds


@pytest.mark.parametrize("missing", ["the candidate", "no model that was live"])
def test_a_curve_that_is_not_compared_says_so(missing: str) -> None:
    curve = np.array([1.0, 0.6])
    candidate, before = (None, curve) if missing == "the candidate" else (curve, None)
    found = check_curve(candidate, before, ClickGate())
    assert found.holds
    assert found.found.startswith(f"not compared: {missing}")


@pytest.mark.parametrize(
    ("now", "was_live", "holds"),
    [("v1", False, True), ("v3", True, True), ("v2", False, False), (None, False, False), ("v1", True, False)],
)
def test_a_candidate_takes_the_place_of_what_it_was_compared_with_only(
    now: str | None, was_live: bool, holds: bool
) -> None:
    assert check_live(now, before="v1", version="v3", was_live=was_live).holds is holds


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
