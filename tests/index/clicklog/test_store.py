"""The click log in SQLite and in PostgreSQL."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa

from index.clicklog.connection import open_engine
from index.clicklog.store import Records, SqlClickLog, open_click_log
from rankers.errors import ConfigError, InvalidInputError, WorkerError
from rankers.events import ClickLog, Event, Impression
from tests.index.clicklog.records import CLICK, DWELL, NOON, SHOWN, stored_events, stored_impressions

PLAIN = Impression("i2", "", (), "", "", NOON)


def test_what_goes_in_comes_out(log: SqlClickLog, url: str) -> None:
    as_protocol: ClickLog = log
    assert as_protocol.add_impressions([SHOWN, PLAIN]) == 2
    assert as_protocol.add_events([CLICK, DWELL]) == 2
    other = open_click_log(url)  # a second process would see the same
    assert other.impression("i1") == SHOWN
    assert list(other.impressions()) == [(1, SHOWN), (2, PLAIN)]
    assert list(other.events()) == [(1, CLICK), (2, DWELL)]
    assert other.impression("nope") is None
    other.close()


def test_sending_twice_is_harmless(log: SqlClickLog) -> None:
    assert log.add_impressions([SHOWN, SHOWN, replace(SHOWN, id="i2")]) == 2
    assert log.add_impressions([replace(SHOWN, query_text="another"), replace(SHOWN, id="i3")]) == 1
    assert log.add_events([CLICK, CLICK]) == 1
    assert log.add_events([CLICK, DWELL]) == 1
    assert [impression.query_text for impression in stored_impressions(log)] == [SHOWN.query_text] * 3
    assert stored_events(log) == [CLICK, DWELL]


def test_nothing_is_a_valid_batch(log: SqlClickLog) -> None:
    assert (log.add_impressions([]), log.add_events([]), log.add([]), log.add([Records()])) == (0, 0, [], [0])


def test_groups_share_a_transaction_and_are_counted_apart(log: SqlClickLog) -> None:
    groups = [Records([SHOWN], [CLICK]), Records(), Records([SHOWN], [CLICK, DWELL]), Records(events=[DWELL])]
    assert log.add(groups) == [2, 0, 1, 0]
    with pytest.raises(InvalidInputError):
        log.add([Records([PLAIN]), Records([replace(PLAIN, id="i3", layout="spiral")])])
    assert log.impression("i2") is None


def test_events_may_come_before_their_impression_and_out_of_order(log: SqlClickLog) -> None:
    assert log.add_events([DWELL, replace(CLICK, position=None)]) == 2
    assert log.status().pending == 2
    log.add_impressions([SHOWN])
    assert log.status().pending == 0
    assert stored_events(log) == [DWELL, replace(CLICK, position=None)]


def test_records_may_depend_on_what_was_shown(log: SqlClickLog) -> None:
    ids = [f"i{n}" for n in range(700)]
    log.add_impressions([replace(SHOWN, id=id, document_ids=(f'"{id}', "a"), arms=()) for id in ids])
    found: list[Mapping[str, Sequence[str]]] = []

    def make(shown: Mapping[str, Sequence[str]]) -> list[Records]:
        found.append(shown)
        return [Records(events=[CLICK]), Records(events=[DWELL, CLICK])]

    assert log.add_to_shown([*ids[::2], "nope"], make) == [1, 1]
    assert found[-1] == {id: [f'"{id}', "a"] for id in ids[::2]}


def test_a_reader_resumes_where_it_stopped(log: SqlClickLog) -> None:
    log.add_impressions([replace(SHOWN, id=f"i{n}") for n in range(2500)])
    seen = [impression.id for _, impression in log.impressions()]
    assert seen == [f"i{n}" for n in range(2500)]
    last = max(seq for seq, _ in log.impressions())
    log.add_impressions([SHOWN, replace(SHOWN, id="late")])
    assert [impression.id for _, impression in log.impressions(since=last)] == ["late"]
    assert list(log.impressions(since=last + 1000)) == []


def test_new_events_are_counted_whatever_was_deleted(log: SqlClickLog) -> None:
    assert log.count_events() == 0
    log.add_events([CLICK, DWELL])
    last = max(seq for seq, _ in log.events())
    assert (log.count_events(), log.count_events(since=last)) == (2, 0)
    log.delete_before(NOON + timedelta(days=1))
    log.add_events([replace(CLICK, id="late")])
    assert (log.count_events(), log.count_events(since=last)) == (1, 1)


def test_a_sequence_number_is_never_used_twice(log: SqlClickLog) -> None:
    log.add_events([CLICK, DWELL])
    ((_, _), (last, _)) = log.events()
    log.delete_before(NOON + timedelta(days=1))
    log.add_events([CLICK])
    ((seq, event),) = log.events(since=last)
    assert seq > last
    assert event == CLICK


def test_moments_keep_their_instant_in_whatever_zone(log: SqlClickLog) -> None:
    elsewhere = (NOON - timedelta(hours=1)).astimezone(timezone(timedelta(hours=9)))
    log.add_impressions([replace(SHOWN, shown_at=elsewhere)])
    (impression,) = stored_impressions(log)
    assert impression.shown_at == elsewhere
    assert impression.shown_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (replace(SHOWN, shown_at=NOON.replace(tzinfo=None)), "no time zone"),
        (replace(SHOWN, features={"a": {"bm25": float("nan")}}), "'bm25' of document 'a' is nan"),
        (replace(SHOWN, layout="grid:0"), "layout is 'grid:0'; write 'list', or 'grid:COLUMNS'"),
        (replace(SHOWN, arms=("one",)), "'i1' has 2 documents and 1 arms"),
        (replace(SHOWN, source="guessed"), "source of impression 'i1' is 'guessed'"),  # type: ignore[arg-type]
        (replace(SHOWN, id=""), "id '' is empty"),
        (replace(CLICK, happened_at=NOON.replace(tzinfo=None)), "no time zone"),
        (replace(CLICK, kind="look"), "kind of event 'c1' is 'look'"),  # type: ignore[arg-type]
        (replace(CLICK, position=0), "position of event 'c1' is 0"),
        (replace(CLICK, document_id="a\0b"), "NUL"),
        (replace(DWELL, value=float("inf")), "value of event 'd1' is inf"),
    ],
)
def test_what_could_not_be_read_again_is_refused(tmp_path: Path, record: Impression | Event, message: str) -> None:
    log = open_click_log(f"sqlite:///{tmp_path}/clicks.sqlite")
    with pytest.raises(InvalidInputError, match=message):
        log.add_impressions([record]) if isinstance(record, Impression) else log.add_events([record])
    log.close()


def test_text_that_postgresql_cannot_store_is_mended(log: SqlClickLog) -> None:
    log.add_impressions([replace(SHOWN, query_text="a\0b")])
    assert [impression.query_text for impression in stored_impressions(log)] == ["a\N{REPLACEMENT CHARACTER}b"]


def test_status_counts(log: SqlClickLog) -> None:
    empty = log.status()
    assert (empty.impressions, empty.events, empty.pending, empty.oldest, empty.newest) == (0, {}, 0, None, None)
    log.add_impressions([SHOWN, replace(SHOWN, id="i2", shown_at=NOON + timedelta(hours=1))])
    log.add_events([CLICK, DWELL, replace(CLICK, id="c2", impression_id="nope")])
    status = log.status()
    assert (status.impressions, status.events, status.pending) == (2, {"click": 2, "dwell": 1}, 1)
    assert (status.oldest, status.newest) == (NOON, NOON + timedelta(hours=1))


def test_the_salt_is_made_once_and_kept(url: str) -> None:
    logs = [open_click_log(url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        salts = set(pool.map(SqlClickLog.salt, logs))
    assert len(salts) == 1
    assert len(salts.pop()) == 64
    for log in logs:
        log.close()


def test_a_database_in_memory_is_one_for_all_threads() -> None:
    log = open_click_log("sqlite://")
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda n: log.add_events([replace(CLICK, id=f"{n}")]), range(20))) == 20
    assert len(stored_events(log)) == 20
    log.close()


def test_sqlite_survives_a_crash_and_overwrites_what_is_deleted(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/clicks.sqlite")
    with engine.connect() as connection:
        assert connection.execute(sa.text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(sa.text("PRAGMA synchronous")).scalar() == 2  # FULL
        assert connection.execute(sa.text("PRAGMA secure_delete")).scalar() == 1
    engine.dispose()


def test_a_database_that_is_not_there_is_an_error_with_its_address_but_no_password() -> None:
    log = open_click_log("postgresql+psycopg://me:secret@127.0.0.1:1/none")
    with pytest.raises(WorkerError, match=r"me:\*\*\*@127\.0\.0\.1:1/none") as failed:
        log.add_impressions([SHOWN])
    assert "secret" not in str(failed.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [("nonsense", "cannot be read"), ("mysql://host/db", "starts with 'mysql'"), ("gibberish://x", "gibberish")],
)
def test_a_url_that_cannot_be_used_is_refused_at_once(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_click_log(url)
