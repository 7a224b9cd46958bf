"""Records to store, and what is stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from index.clicklog.store import SqlClickLog
from rankers.events import Event, Impression

NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
SHOWN = Impression(
    id="i1",
    query_text="größte Katze 🐈",
    document_ids=("b", "a"),
    pipeline="first",
    model_version="first@abc/first",
    shown_at=NOON,
    features={"a": {"bm25": 1.5, "age": None}, "b": {}},
    feature_set="words@1",
    session_key="5e55",
    user_key="05e2",
    layout="grid:2",
    source="reported",
    arms=("first", "bm25"),
)
CLICK = Event("c1", "i1", "a", "click", 2, NOON + timedelta(seconds=3))
DWELL = Event("d1", "i1", "a", "dwell", 2, NOON + timedelta(seconds=40), 1 / 3)


def stored_impressions(log: SqlClickLog) -> list[Impression]:
    return [impression for _, impression in log.impressions()]


def stored_events(log: SqlClickLog) -> list[Event]:
    return [event for _, event in log.events()]
