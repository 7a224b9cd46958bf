"""Records as rows and back; what could not be stored, or read, is refused here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, get_args

from sqlalchemy.engine import Row

from rankers.errors import InvalidInputError
from rankers.events import Event, EventKind, Impression, Layout, Source

KINDS: tuple[EventKind, ...] = get_args(EventKind)
SOURCES: tuple[Source, ...] = get_args(Source)


def impression_row(impression: Impression) -> dict[str, Any]:
    """Lay an impression out for `index.clicklog.schema.impressions`.

    Parameters
    ----------
    impression
        To be stored.

    Returns
    -------
    dict
        A value per column but `seq`; moments in UTC.

    Raises
    ------
    InvalidInputError
        If it cannot be stored, or is not what `rankers.events.Impression` says.
    """
    Layout.parse(impression.layout)
    if impression.source not in SOURCES:
        raise InvalidInputError(f"source of impression {impression.id!r} is {impression.source!r}, not in {SOURCES}")
    arms, places = len(impression.arms), len(impression.document_ids)
    if arms not in {0, places}:
        raise InvalidInputError(
            f"impression {impression.id!r} has {places} documents and {arms} arms; give one arm per document, or none"
        )
    return {
        "id": _identifier(impression.id),
        "query_text": _storable(impression.query_text),
        "document_ids": list(impression.document_ids),
        "pipeline": _storable(impression.pipeline),
        "model_version": _storable(impression.model_version),
        "shown_at": require_zone(impression.shown_at).astimezone(UTC),
        "features": _finite(impression.features),
        "feature_set": _storable(impression.feature_set),
        "session_key": _key(impression.session_key),
        "user_key": _key(impression.user_key),
        "layout": impression.layout,
        "source": impression.source,
        "arms": list(impression.arms),
    }


def event_row(event: Event) -> dict[str, Any]:
    """Lay an event out for `index.clicklog.schema.events`.

    Parameters
    ----------
    event
        To be stored.

    Returns
    -------
    dict
        A value per column but `seq`; moments in UTC.

    Raises
    ------
    InvalidInputError
        If it cannot be stored, or is not what `rankers.events.Event` says.
    """
    if event.kind not in KINDS:
        raise InvalidInputError(f"kind of event {event.id!r} is {event.kind!r}, not in {KINDS}")
    if event.position is not None and event.position < 1:
        raise InvalidInputError(f"position of event {event.id!r} is {event.position}; positions count from 1")
    if event.value is not None and not math.isfinite(event.value):
        raise InvalidInputError(f"value of event {event.id!r} is {event.value}, must be finite")
    return {
        "id": _identifier(event.id),
        "impression_id": _identifier(event.impression_id),
        "document_id": _identifier(event.document_id),
        "kind": event.kind,
        "position": event.position,
        "happened_at": require_zone(event.happened_at).astimezone(UTC),
        "value": event.value,
    }


def as_impression(row: Row[Any]) -> Impression:
    """Read a row of `index.clicklog.schema.impressions`."""
    return Impression(
        id=row.id,
        query_text=row.query_text,
        document_ids=tuple(row.document_ids),
        pipeline=row.pipeline,
        model_version=row.model_version,
        shown_at=row.shown_at,
        features=row.features,
        feature_set=row.feature_set,
        session_key=row.session_key,
        user_key=row.user_key,
        layout=row.layout,
        source=row.source,
        arms=tuple(row.arms),
    )


def as_event(row: Row[Any]) -> Event:
    """Read a row of `index.clicklog.schema.events`."""
    return Event(
        id=row.id,
        impression_id=row.impression_id,
        document_id=row.document_id,
        kind=row.kind,
        position=row.position,
        happened_at=row.happened_at,
        value=row.value,
    )


def require_zone(moment: datetime) -> datetime:
    """Refuse a moment that could be any of 24."""
    if moment.tzinfo is None:
        raise InvalidInputError(f"{moment.isoformat()} has no time zone; give one, such as {moment.isoformat()}Z")
    return moment


def _finite(features: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float | None]]:
    """Copy features for JSON, which has no way to write NaN or an infinity."""
    for document_id, values in features.items():
        for name, value in values.items():
            if value is not None and not math.isfinite(value):
                raise InvalidInputError(
                    f"feature {name!r} of document {document_id!r} is {value}, must be finite, or None if it is missing"
                )
    return {document_id: dict(values) for document_id, values in features.items()}


def _identifier(text: str) -> str:
    if "\0" in text or not text:
        raise InvalidInputError(f"id {text!r} is empty or has a NUL character, which PostgreSQL cannot store")
    return text


def _key(key: str | None) -> str | None:
    return None if key is None else _identifier(key)


def _storable(text: str) -> str:
    """Replace the one character that PostgreSQL cannot store."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
