"""Records of a user, and those whose time is over, disappear."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from index.clicklog import deletion
from index.clicklog.store import SqlClickLog, open_click_log
from rankers.errors import InvalidInputError
from rankers.events import Deleted
from tests.index.clicklog.records import CLICK, NOON, SHOWN, stored_events, stored_impressions


def test_a_user_is_deleted_with_what_they_did_and_nobody_else(log: SqlClickLog) -> None:
    others = [replace(SHOWN, id="i2", user_key="other"), replace(SHOWN, id="i3", user_key=None)]
    log.add_impressions([SHOWN, *others, replace(SHOWN, id="i4")])
    kept = [replace(CLICK, id="c2", impression_id="i2"), replace(CLICK, id="c3", impression_id="unknown")]
    log.add_events([CLICK, *kept, replace(CLICK, id="c4", impression_id="i4")])
    assert log.delete_user("05e2") == Deleted(impressions=2, events=2)
    assert stored_impressions(log) == others
    assert stored_events(log) == kept
    assert log.delete_user("05e2") == Deleted(0, 0)


def test_nothing_of_a_deleted_user_is_left_in_the_files(tmp_path: Path) -> None:
    log = open_click_log(f"sqlite:///{tmp_path}/clicks.sqlite")
    log.add_impressions([replace(SHOWN, query_text="where is my embarrassing pill", id=f"i{n}") for n in range(50)])
    assert any(b"embarrassing" in file.read_bytes() for file in tmp_path.iterdir())
    log.delete_user("05e2")
    assert not any(b"embarrassing" in file.read_bytes() for file in tmp_path.iterdir())
    log.close()


def test_old_records_go_and_young_ones_stay(log: SqlClickLog) -> None:
    young = replace(SHOWN, id="young", shown_at=NOON + timedelta(days=2))
    late = replace(CLICK, id="late", happened_at=NOON + timedelta(days=3))  # of an old impression
    orphan = replace(CLICK, id="orphan", impression_id="unknown")
    kept = replace(CLICK, id="kept", impression_id="young", happened_at=NOON + timedelta(days=2))
    log.add_impressions([SHOWN, young])
    log.add_events([CLICK, late, orphan, kept])
    assert log.delete_before(NOON + timedelta(days=1)) == Deleted(impressions=1, events=3)
    assert stored_impressions(log) == [young]
    assert stored_events(log) == [kept]
    assert not log.delete_before(NOON + timedelta(days=1))


def test_much_is_deleted_in_steps(log: SqlClickLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "IMPRESSIONS_PER_STEP", 3)
    monkeypatch.setattr(deletion, "EVENTS_PER_STEP", 2)
    log.add_impressions([replace(SHOWN, id=f"{n}") for n in range(10)])
    log.add_events([replace(CLICK, id=f"{n}", impression_id=f"{n}") for n in range(15)])
    assert log.delete_before(NOON + timedelta(days=1)) == Deleted(10, 15)


def test_a_moment_without_a_zone_is_refused(tmp_path: Path) -> None:
    log = open_click_log(f"sqlite:///{tmp_path}/clicks.sqlite")
    with pytest.raises(InvalidInputError, match="no time zone"):
        log.delete_before(NOON.replace(tzinfo=None))
    log.close()
