"""Tables are made, upgraded and recognised."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from index.clicklog.connection import open_engine
from index.clicklog.migrations import VERSION_TABLE
from index.clicklog.schema import metadata
from index.clicklog.store import SqlClickLog, open_click_log
from rankers.errors import ConfigError
from rankers.events import Event, Impression
from tests.index.clicklog.records import CLICK, NOON, SHOWN, stored_events, stored_impressions

# As the service made them before tables had a version.
UNVERSIONED = """
CREATE TABLE shortlist_impressions (
    seq {sequence}, id TEXT NOT NULL UNIQUE, query_text TEXT NOT NULL, document_ids JSON NOT NULL,
    pipeline TEXT NOT NULL, model_version TEXT NOT NULL, shown_at {moment} NOT NULL, features JSON NOT NULL
);
CREATE INDEX ix_shortlist_impressions_shown_at ON shortlist_impressions (shown_at);
CREATE TABLE shortlist_clicks (
    seq {sequence}, id TEXT NOT NULL UNIQUE,
    impression_id TEXT NOT NULL REFERENCES shortlist_impressions (id),
    document_id TEXT NOT NULL, position INTEGER NOT NULL, clicked_at {moment} NOT NULL
);
CREATE INDEX ix_shortlist_clicks_impression_id ON shortlist_clicks (impression_id);
CREATE INDEX ix_shortlist_clicks_clicked_at ON shortlist_clicks (clicked_at);
INSERT INTO shortlist_impressions (id, query_text, document_ids, pipeline, model_version, shown_at, features)
    VALUES ('i1', 'cat', '["b", "a"]', 'p', 'v', '2026-11-21 12:00:00.123456{zone}', '{{"a": {{"bm25": 1.5}}}}');
INSERT INTO shortlist_impressions (id, query_text, document_ids, pipeline, model_version, shown_at, features)
    VALUES ('i2', 'dog', '[]', 'p', 'v', '2026-11-21 12:00:01.123456{zone}', '{{}}');
INSERT INTO shortlist_clicks (id, impression_id, document_id, position, clicked_at)
    VALUES ('c1', 'i1', 'a', 2, '2026-11-21 12:00:03.123456{zone}')
"""
TYPES = {
    "sqlite": {"sequence": "INTEGER NOT NULL PRIMARY KEY", "moment": "DATETIME", "zone": ""},
    "postgresql": {"sequence": "BIGSERIAL PRIMARY KEY", "moment": "TIMESTAMP WITH TIME ZONE", "zone": "+00:00"},
}
OLD = [
    Impression("i1", "cat", ("b", "a"), "p", "v", NOON, {"a": {"bm25": 1.5}}),
    Impression("i2", "dog", (), "p", "v", NOON + timedelta(seconds=1)),
]


def _make_unversioned(url: str) -> None:
    engine = open_engine(url)
    with engine.begin() as connection:
        for statement in UNVERSIONED.format(**TYPES[engine.dialect.name]).split(";"):
            connection.exec_driver_sql(statement)
    engine.dispose()


def _differences(url: str) -> list[object]:
    engine = open_engine(url)
    with engine.connect() as connection:
        options = {"version_table": VERSION_TABLE, "compare_server_default": False}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    engine.dispose()
    return list(found)


def test_revisions_and_tables_say_the_same(log: SqlClickLog, url: str) -> None:
    assert log.status().revision == "0002"
    assert _differences(url) == []


def test_tables_without_a_version_are_upgraded_and_nothing_is_lost(url: str) -> None:
    _make_unversioned(url)
    log = open_click_log(url)
    assert stored_impressions(log) == OLD
    assert stored_events(log) == [Event("c1", "i1", "a", "click", 2, NOON + timedelta(seconds=3))]
    assert _differences(url) == []
    assert (log.add_impressions([SHOWN]), log.add_events([CLICK])) == (0, 0)  # ids are still unique
    log.close()


def test_sequence_numbers_go_on_after_an_upgrade(url: str) -> None:
    _make_unversioned(url)
    log = open_click_log(url)
    last = max(seq for seq, _ in log.impressions())
    log.delete_before(NOON + timedelta(days=1))
    log.add_impressions([SHOWN])
    assert [seq for seq, _ in log.impressions()] == [last + 1]
    log.close()


def test_several_services_may_upgrade_at_once(url: str) -> None:
    _make_unversioned(url)
    logs = [open_click_log(url) for _ in range(4)]
    new = Impression("i3", "bird", (), "p", "v", NOON)
    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(lambda log: log.add_impressions([new]), logs))
    assert sorted(added) == [0, 0, 0, 1]
    assert stored_impressions(logs[0]) == [*OLD, new]
    for log in logs:
        log.close()


def test_tables_of_a_newer_version_are_left_alone(log: SqlClickLog, url: str) -> None:
    log.add_events([CLICK])
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    engine.dispose()
    other = open_click_log(url)
    with pytest.raises(ConfigError, match="revision '9999', which this version of Shortlist does not know"):
        other.add_events([CLICK])
    other.close()
