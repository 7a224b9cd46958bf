"""What came of rankings: events in, and a user's records out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path

from app.errors import ERROR_RESPONSES
from app.intake import ServiceRoute
from app.service import InService
from app.settings import Settings
from app.wire.events import DeletedReply, EventsReply, EventsRequest, SentImpression
from rankers.errors import TooLargeError

router = APIRouter(route_class=ServiceRoute, responses=ERROR_RESPONSES, tags=["events"])


@router.post("/v1/events", summary="Report clicks, dwell times, conversions, impressions")
async def add_events(body: Annotated[EventsRequest, Body()], service: InService) -> EventsReply:
    """Store what happened; the answer means that it is on disk, all of it.

    An event with an `id` can be sent again without harm. It may come before its impression, and late. If the impression
    is known, it must have shown the document, at the position given.
    """
    _require_small(body, service.settings)
    stored = await service.impressions.add_events(body.events)
    return EventsReply(ids=stored.ids, added=stored.added, pending=stored.pending)


@router.delete("/v1/users/{user:path}", summary="Delete a user's impressions and events")
async def delete_user(
    user: Annotated[str, Path(description="The key sent with searches and impressions.")], service: InService
) -> DeletedReply:
    """Delete what was shown to a user and what came of it; the answer means that it is gone from the database."""
    deleted = await service.impressions.delete_user(user)
    return DeletedReply(impressions=deleted.impressions, events=deleted.events)


def _require_small(body: EventsRequest, settings: Settings) -> None:
    if len(body.events) > settings.max_events:
        raise TooLargeError(
            f"events has {len(body.events)} entries, the limit is {settings.max_events}; send fewer", field="events"
        )
    for at, event in enumerate(body.events):
        if not isinstance(event, SentImpression):
            continue
        shown = len(event.document_ids)
        if shown > settings.max_documents:
            raise TooLargeError(
                f"events.{at}.document_ids has {shown} entries, the limit is {settings.max_documents}",
                field=f"events.{at}.document_ids",
            )
        if len(event.query) > settings.max_query_chars:
            raise TooLargeError(
                f"events.{at}.query has {len(event.query)} characters, the limit is {settings.max_query_chars}",
                field=f"events.{at}.query",
            )
