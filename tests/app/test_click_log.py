"""The click log in SQLite and in PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.click_log import SqlClickLog, open_click_log
from rankers.errors import ConfigError, InvalidInputError, NotFoundError, WorkerError
from rankers.events import Click, ClickLog, Impression

NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
SHOWN = Impression(
    id="i1",
    query_text="größte Katze 🐈",
    document_ids=("b", "a"),
    pipeline="first",
    model_version="first@abc/first",
    shown_at=NOON,
    features={"a": {"bm25": 1.5}, "b": {}},
)
CLICK = Click("c1", "i1", "a", 2, NOON + timedelta(seconds=3))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deep/er/clicks.sqlite"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def log(url: str) -> Iterator[SqlClickLog]:
    log = open_click_log(url)
    yield log
    log.close()


def test_what_goes_in_comes_out(log: SqlClickLog, url: str) -> None:
    as_protocol: ClickLog = log
    assert as_protocol.add_impressions([SHOWN]) == 1
    assert as_protocol.add_clicks([CLICK]) == 1
    other = open_click_log(url)  # a second process would see the same
    assert other.impression("i1") == SHOWN
    assert list(other.impressions()) == [SHOWN]
    assert list(other.clicks()) == [CLICK]
    assert other.impression("nope") is None
    other.close()


def test_sending_twice_is_harmless(log: SqlClickLog) -> None:
    assert log.add_impressions([SHOWN, SHOWN, replace(SHOWN, id="i2")]) == 2
    assert log.add_impressions([SHOWN, replace(SHOWN, id="i3")]) == 1
    assert log.add_clicks([CLICK, CLICK]) == 1
    assert log.add_clicks([CLICK]) == 0
    assert len(list(log.impressions())) == 3
    assert len(list(log.clicks())) == 1


def test_nothing_is_a_valid_batch(log: SqlClickLog) -> None:
    assert (log.add_impressions([]), log.add_clicks([])) == (0, 0)


def test_oldest_come_first_in_whatever_zone(log: SqlClickLog) -> None:
    elsewhere = (NOON - timedelta(hours=1)).astimezone(timezone(timedelta(hours=9)))
    log.add_impressions([SHOWN, replace(SHOWN, id="i2", shown_at=elsewhere), replace(SHOWN, id="i3")])
    assert [impression.id for impression in log.impressions()] == ["i2", "i1", "i3"]
    assert log.find_impressions(["i2"])["i2"].shown_at == elsewhere


def test_many_are_streamed(log: SqlClickLog) -> None:
    log.add_impressions([replace(SHOWN, id=f"i{n}") for n in range(2500)])
    assert sum(1 for _ in log.impressions()) == 2500


def test_a_click_needs_its_impression_and_nothing_is_stored_by_half(log: SqlClickLog) -> None:
    log.add_impressions([SHOWN])
    with pytest.raises(NotFoundError, match="impression"):
        log.add_clicks([CLICK, replace(CLICK, id="c2", impression_id="nope")])
    assert list(log.clicks()) == []


def test_a_time_without_a_zone_is_refused(log: SqlClickLog) -> None:
    with pytest.raises(InvalidInputError, match="no time zone"):
        log.add_impressions([replace(SHOWN, shown_at=NOON.replace(tzinfo=None))])


def test_a_feature_that_is_no_number_is_refused(log: SqlClickLog) -> None:
    with pytest.raises(InvalidInputError, match="'bm25' of document 'a' is nan"):
        log.add_impressions([replace(SHOWN, features={"a": {"bm25": float("nan")}})])


def test_text_that_postgresql_cannot_store_is_mended(log: SqlClickLog) -> None:
    log.add_impressions([replace(SHOWN, query_text="a\0b")])
    assert log.find_impressions(["i1"])["i1"].query_text == "a\N{REPLACEMENT CHARACTER}b"


def test_threads_write_side_by_side(log: SqlClickLog) -> None:
    def write(worker: int) -> int:
        return sum(log.add_impressions([replace(SHOWN, id=f"{n}")]) for n in range(worker, worker + 20))

    with ThreadPoolExecutor(4) as pool:
        written = list(pool.map(write, [0, 10, 20, 30]))
    assert sum(written) == 50
    assert len(list(log.impressions())) == 50


def test_several_services_may_create_the_tables_at_once(url: str) -> None:
    logs = [open_click_log(url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(lambda log: log.add_impressions([SHOWN]), logs))
    assert sorted(added) == [0, 0, 0, 1]
    for log in logs:
        log.close()


def test_sqlite_survives_a_crash(tmp_path: Path) -> None:
    log = open_click_log(f"sqlite:///{tmp_path}/clicks.sqlite")
    log.add_impressions([SHOWN])
    with log._engine.connect() as connection:
        assert connection.execute(sa.text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(sa.text("PRAGMA synchronous")).scalar() == 2  # FULL
        assert connection.execute(sa.text("PRAGMA foreign_keys")).scalar() == 1
    log.close()


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
