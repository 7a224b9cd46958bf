"""Searching the index."""

from __future__ import annotations

import time
import uuid
from typing import Annotated

from fastapi import APIRouter, Body, Request, Response

from app.errors import ERROR_RESPONSES
from app.impressions import served_impression
from app.intake import ServiceRoute, require_short_query, while_connected
from app.service import InService
from app.wire.replies import NOT_LOGGED, timing_headers
from app.wire.search import SearchReply, SearchRequest, search_reply
from rankers.errors import TooLargeError
from rankers.events import LIST
from rankers.filters import parse_filter
from rankers.types import Query

router = APIRouter(route_class=ServiceRoute, responses=ERROR_RESPONSES)

DEFAULT_TOP_K = 10


@router.post("/v1/search", summary="Find documents and put them in order", tags=["search"], response_model=SearchReply)
async def search(body: Annotated[SearchRequest, Body()], request: Request, service: InService) -> Response:
    """Retrieve candidates from the index and apply the stages of a pipeline.

    Every result has its place after each stage. What is shown is logged, unless `log` is false: send clicks to
    `/v1/events` with the `impression_id`.
    """
    started = time.perf_counter()
    require_short_query(body.query, service.settings)
    top_k = body.top_k or DEFAULT_TOP_K
    if top_k > service.settings.max_top_k:
        raise TooLargeError(f"top_k is {top_k}, the limit is {service.settings.max_top_k}", field="top_k")
    live = service.catalog.for_search(body.pipeline or body.model)
    condition = parse_filter(body.filter) if body.filter is not None else None
    query = Query(uuid.uuid4().hex, body.query, condition)
    deadline_s = body.deadline_ms / 1000 if body.deadline_ms else None
    result = await while_connected(request, service.engine.search(live.pipeline, query, top_k, deadline_s=deadline_s))
    service.metrics.on_result(live.pipeline.name, result)
    is_logged = body.log is not False
    impression_id = None
    if is_logged:
        impression = served_impression(live, result, layout=body.layout or LIST)
        impression_id = await service.impressions.add(impression, session=body.session, user=body.user)
    content = search_reply(
        result,
        pipeline=live.pipeline.name,
        reply_id=query.id,
        impression_id=impression_id,
        warnings=[NOT_LOGGED] if is_logged and impression_id is None else [],
        explain=bool(body.explain),
    )
    headers = timing_headers(result, total_s=time.perf_counter() - started)
    return Response(content, media_type="application/json", headers=dict(headers))
