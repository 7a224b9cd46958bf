"""What search apps report, compared with what was shown and turned into records."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.wire.events import SentConversion, SentDwell, SentEvent, SentImpression, SentOutcome
from index.clicklog.store import Records
from rankers.errors import InvalidInputError
from rankers.events import Event, Impression

Shown = Mapping[str, Sequence[str]]
"""Ids of documents in the order shown, by impression id."""


@dataclass(frozen=True, slots=True)
class Report:
    """Events of one request, and when it came."""

    events: Sequence[SentEvent]
    received_at: datetime

    def impression_ids(self) -> set[str]:
        """Impressions that something happened to."""
        return {event.impression_id for event in self.events if not isinstance(event, SentImpression)}


@dataclass(frozen=True, slots=True)
class Accepted:
    """A report as records; `ids` in the order sent, `pending` events have an impression that is not known."""

    records: Records
    ids: list[str]
    pending: int


def accept(report: Report, shown: Shown, hash_key: Callable[[str], str]) -> Accepted:
    """Turn a report into records.

    Parameters
    ----------
    report
        As sent.
    shown
        The impressions of `report.impression_ids` that are known. Those of the report itself count as known too.
    hash_key
        For keys of users and sessions.

    Returns
    -------
    Accepted
        Positions are filled in where the impression is known.

    Raises
    ------
    InvalidInputError
        If an event is about a document that its impression did not show, or showed at another position, or if an
        impression shows a document twice or has features of one that it does not show.
    """
    ids: list[str] = []
    impressions: list[Impression] = []
    events: list[Event] = []
    own = {event.id: event.document_ids for event in report.events if isinstance(event, SentImpression)}
    pending = 0
    for at, event in enumerate(report.events):
        if isinstance(event, SentImpression):
            impressions.append(_impression(at, event, hash_key))
            ids.append(event.id)
            continue
        document_ids = shown.get(event.impression_id, own.get(event.impression_id))
        pending += document_ids is None
        position = event.position if document_ids is None else _position(at, event, document_ids)
        events.append(_event(event, position, report.received_at))
        ids.append(events[-1].id)
    return Accepted(Records(impressions, events), ids, pending)


def _position(at: int, event: SentOutcome, document_ids: Sequence[str]) -> int:
    """Find the document in what was shown."""
    if event.document_id not in document_ids:
        raise InvalidInputError(
            f"events.{at}.document_id is {event.document_id!r}: not one of the "
            f"{len(document_ids)} documents of impression {event.impression_id!r}",
            field=f"events.{at}.document_id",
        )
    position = document_ids.index(event.document_id) + 1
    if event.position not in {None, position}:
        raise InvalidInputError(
            f"events.{at}.position is {event.position}: document {event.document_id!r} was shown at {position}",
            field=f"events.{at}.position",
        )
    return position


def _event(event: SentOutcome, position: int | None, received_at: datetime) -> Event:
    value = None
    if isinstance(event, SentDwell):
        value = event.seconds
    elif isinstance(event, SentConversion):
        value = event.value
    return Event(
        id=event.id or uuid.uuid4().hex,
        impression_id=event.impression_id,
        document_id=event.document_id,
        kind=event.type,
        position=position,
        happened_at=event.happened_at or received_at,
        value=value,
    )


def _impression(at: int, event: SentImpression, hash_key: Callable[[str], str]) -> Impression:
    known = set(event.document_ids)
    if len(known) < len(event.document_ids):
        raise InvalidInputError(
            f"events.{at}.document_ids has a document twice; give each once, at the place where it was first seen",
            field=f"events.{at}.document_ids",
        )
    if unknown := event.features.keys() - known:
        raise InvalidInputError(
            f"events.{at}.features has {min(unknown)!r}: not one of the {len(known)} document_ids",
            field=f"events.{at}.features",
        )
    return Impression(
        id=event.id,
        query_text=event.query,
        document_ids=tuple(event.document_ids),
        pipeline=event.pipeline,
        model_version=event.model_version,
        shown_at=event.shown_at,
        features=event.features,
        feature_set=event.feature_set or "",
        session_key=hash_key(event.session) if event.session else None,
        user_key=hash_key(event.user) if event.user else None,
        layout=event.layout,
        source="reported",
    )
