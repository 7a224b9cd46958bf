"""Searching the index, and the clicks that follow."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Body, Request, Response

from app.catalog import Live
from app.engine import EngineResult
from app.errors import ERROR_RESPONSES
from app.intake import ServiceRoute, require_short_query, while_connected
from app.service import InService
from app.wire.replies import timing_headers
from app.wire.search import EventsReply, EventsRequest, SearchReply, SearchRequest, search_reply
from rankers.errors import TooLargeError
from rankers.events import Impression
from rankers.types import Query

router = APIRouter(route_class=ServiceRoute, responses=ERROR_RESPONSES)

DEFAULT_TOP_K = 10


@router.post("/v1/search", summary="Find documents and put them in order", tags=["search"], response_model=SearchReply)
async def search(body: Annotated[SearchRequest, Body()], request: Request, service: InService) -> Response:
    """Retrieve candidates from the index and apply the stages of a pipeline.

    Every result has its place after each stage. What is shown is logged: send clicks to `/v1/events` with the
    `impression_id`.
    """
    started = time.perf_counter()
    require_short_query(body.query, service.settings)
    top_k = body.top_k or DEFAULT_TOP_K
    if top_k > service.settings.max_top_k:
        raise TooLargeError(f"top_k is {top_k}, the limit is {service.settings.max_top_k}", field="top_k")
    live = service.catalog.for_search(body.pipeline or body.model)
    query = Query(uuid.uuid4().hex, body.query)
    deadline_s = body.deadline_ms / 1000 if body.deadline_ms else None
    result = await while_connected(request, service.engine.search(live.pipeline, query, top_k, deadline_s=deadline_s))
    service.metrics.on_result(live.pipeline.name, result)
    impression_id = await service.impressions.add(_impression(live, result))
    content = search_reply(
        result,
        pipeline=live.pipeline.name,
        reply_id=query.id,
        impression_id=impression_id,
        warnings=[] if impression_id else ["the impression could not be logged, so clicks on it cannot be either"],
        explain=bool(body.explain),
    )
    headers = timing_headers(result, total_s=time.perf_counter() - started)
    return Response(content, media_type="application/json", headers=dict(headers))


@router.post("/v1/events", summary="Report clicks", tags=["search"])
async def add_events(body: Annotated[EventsRequest, Body()], service: InService) -> EventsReply:
    """Store clicks on documents of an impression; the answer means that they are on disk, all of them.

    An event with an `id` can be sent again without harm.
    """
    if len(body.events) > service.settings.max_events:
        raise TooLargeError(
            f"events has {len(body.events)} entries, the limit is {service.settings.max_events}; send fewer",
            field="events",
        )
    ids, added = await service.impressions.add_clicks(body.events)
    return EventsReply(ids=ids, added=added)


def _impression(live: Live, result: EngineResult) -> Impression:
    """Record what is about to be shown; the version ends in the last stage that had its say."""
    return Impression(
        id=uuid.uuid4().hex,
        query_text=result.ranking.query.text,
        document_ids=result.ranking.ids,
        pipeline=live.pipeline.name,
        model_version=f"{live.version}/{result.stages[-1].name}",
        shown_at=datetime.now(UTC),
        features={document.id: document.features for document in result.ranking.documents if document.features},
    )
