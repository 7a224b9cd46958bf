from pathlib import Path

import numpy as np
import pytest

from rankers.errors import InvalidInputError
from tests.training.clicks.logs import Log
from training.clicks.filters import FilterRules, Reason
from training.clicks.reader import ReadClicks


def removed(read: ReadClicks) -> dict[tuple[str, Reason], tuple[int, tuple[str, ...]]]:
    return {(one.table, one.reason): (one.count, one.examples) for one in read.report.removed}


def test_each_broken_event_has_its_reason(tmp_path: Path) -> None:
    log = Log()
    log.show("i", ["a", "b"], at_s=100)
    log.show("empty", [])
    log.show("twice", ["a", "b", "a"])
    log.show("i", ["b", "a"], at_s=200)
    log.event("i", "a", at_s=101, id="good", position=1)
    log.event("i", "a", at_s=101, id="good")
    log.event("i", "a", at_s=103, id="again")
    log.event("i", "a", at_s=103, id="read", kind="dwell", value=9.0)
    log.event("j", "a", id="lost")
    log.event("twice", "b", id="ambiguous")
    log.event("i", "b", at_s=101, id="hover", kind="hover")
    log.event("i", "z", at_s=101, id="absent")
    log.event("i", "b", at_s=101, id="misplaced", position=1)
    log.event("i", "b", at_s=97, id="early")
    log.event("i", "b", at_s=99, id="skewed")
    log.event("i", "b", at_s=100 + 24 * 3600 + 1, id="late")
    read = log.read(tmp_path)
    assert removed(read) == {
        ("impressions", Reason.DUPLICATE): (1, ("i",)),
        ("impressions", Reason.EMPTY_LIST): (1, ("empty",)),
        ("impressions", Reason.REPEATED_DOCUMENT): (1, ("twice",)),
        ("events", Reason.DUPLICATE): (1, ("good",)),
        ("events", Reason.UNKNOWN_IMPRESSION): (1, ("lost",)),
        ("events", Reason.REMOVED_IMPRESSION): (1, ("ambiguous",)),
        ("events", Reason.UNKNOWN_KIND): (1, ("hover",)),
        ("events", Reason.NOT_SHOWN): (1, ("absent",)),
        ("events", Reason.WRONG_POSITION): (1, ("misplaced",)),
        ("events", Reason.BEFORE_SHOWN): (1, ("early",)),
        ("events", Reason.TOO_LATE): (1, ("late",)),
        ("events", Reason.REPEATED_CLICK): (1, ("again", "good")),
    }
    assert read.lists.clicks.tolist() == [[1, 1]]
    assert (read.report.clicks_kept, read.report.events_kept) == (2, 3)
    assert any("wrong position | 1 | misplaced" in line for line in read.report.lines())


def people(log: Log) -> None:
    """200 lists of people who click as people do."""
    generator = np.random.default_rng(0)
    for number in range(200):
        log.show(f"p{number}", list("abcd"), at_s=number * 60, session_key=f"s{number // 4}")
        for place in np.flatnonzero(generator.random(4) < [0.5, 0.3, 0.2, 0.1]):
            log.event(f"p{number}", "abcd"[place], at_s=number * 60 + 5)
            log.event(f"p{number}", "abcd"[place], at_s=number * 60 + 15, kind="dwell", value=10.0)


@pytest.mark.parametrize("reason", [Reason.TOO_FAST, Reason.ALL_PLACES, Reason.SAME_PLACE, Reason.NO_DWELL])
def test_bots_are_found_and_people_are_not(tmp_path: Path, reason: Reason) -> None:
    log = Log()
    people(log)
    lists = {Reason.TOO_FAST: 61, Reason.ALL_PLACES: 5, Reason.SAME_PLACE: 40, Reason.NO_DWELL: 20}[reason]
    for number in range(lists):
        at_s = number * 0.5 if reason is Reason.TOO_FAST else number * 300
        log.show(f"b{number}", list("abcd"), at_s=at_s, user_key="bot", session_key=f"b{number}")
        clicked = {Reason.ALL_PLACES: "abcd", Reason.SAME_PLACE: "d", Reason.NO_DWELL: "ab"[number % 2]}.get(reason, "")
        for document in clicked:
            log.event(f"b{number}", document, at_s=at_s + 3)
            if reason is Reason.NO_DWELL:
                log.event(f"b{number}", document, at_s=at_s + 3, kind="dwell", value=0.0)
    read = log.read(tmp_path)
    assert read.report.impressions_kept == 200
    assert [(one.table, one.reason) for one in read.report.removed if one.table == "impressions"] == [
        ("impressions", reason)
    ]
    assert removed(read)["impressions", reason][0] == lists
    assert read.lists.sessions == 200


def test_known_item_searchers_and_the_unnamed_stay(tmp_path: Path) -> None:
    log = Log()
    people(log)
    for number in range(300):
        log.show(f"n{number}", list("abcd"), at_s=number * 60, user_key="regular")
        log.event(f"n{number}", "a", at_s=number * 60 + 3)
        log.show(f"u{number}", list("abcd"), at_s=0)
    read = log.read(tmp_path)
    assert read.report.removed == ()
    assert (read.report.unattributed, read.report.actors) == (300, 51)


def test_rules_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="click_window_s is -1"):
        FilterRules(click_window_s=-1)
    with pytest.raises(InvalidInputError, match="impressions_per_minute is 0"):
        FilterRules(impressions_per_minute=0)
    with pytest.raises(InvalidInputError, match=r"no_dwell_share is 1\.5"):
        FilterRules(no_dwell_share=1.5)
