"""Reranking, for software that speaks Cohere's, Jina's, Voyage's or TEI's language."""

from __future__ import annotations

import time
import uuid
from typing import Annotated

from fastapi import APIRouter, Body, Request, Response

from app.errors import ERROR_RESPONSES
from app.impressions import served_impression
from app.intake import ServiceRoute, require_short_query, while_connected
from app.service import InService
from app.wire.forms import AnyRerankRequest, TeiRerankRequest
from app.wire.replies import RerankReply, TeiRank, VoyageReply, superset_reply, tei_reply, timing_headers
from rankers.errors import TooLargeError
from rankers.events import LIST
from rankers.types import Query, Ranking

router = APIRouter(route_class=ServiceRoute, tags=["rerank"], responses=ERROR_RESPONSES)


@router.post("/v1/rerank", summary="Put documents in order", response_model=RerankReply | VoyageReply | list[TeiRank])
@router.post("/v2/rerank", summary="The same", response_model=RerankReply | VoyageReply | list[TeiRank])
@router.post("/rerank", include_in_schema=False)
@router.post("/v1/v2/rerank", include_in_schema=False)
@router.post("/v1/reranking", include_in_schema=False)
@router.post("/reranking", include_in_schema=False)
async def rerank(body: Annotated[AnyRerankRequest, Body()], request: Request, service: InService) -> Response:
    """Order documents by their relevance to a query.

    A body with `documents` gets the superset reply, which clients of Cohere, Jina, Pinecone and vLLM can read; one with
    `texts` gets the array of text-embeddings-inference; one with `truncation` gets Voyage's form. Scores are in [0, 1].
    A document that is too long is cut, and `meta.truncated` says so.

    With `log` true what is shown is logged under the ids of the documents, and the reply has an `impression_id`: send
    clicks to `/v1/events` with it. Only then `session`, `user` and `layout` mean anything.
    """
    started = time.perf_counter()
    documents = body.ranked_documents()
    require_short_query(body.query, service.settings)
    if len(documents) > service.settings.max_documents:
        field = "texts" if isinstance(body, TeiRerankRequest) else "documents"
        raise TooLargeError(
            f"{field} has {len(documents)} entries, the limit is {service.settings.max_documents}; send fewer",
            field=field,
        )
    ids = body.logged_ids() if body.log else None
    live = service.catalog.for_rerank(body.model)
    ranking = Ranking.from_order(Query(uuid.uuid4().hex, body.query), documents)
    deadline_s = body.deadline_ms / 1000 if body.deadline_ms else None
    result = await while_connected(request, service.engine.rerank(live.pipeline, ranking, deadline_s=deadline_s))
    service.metrics.on_result(live.pipeline.name, result)
    if isinstance(body, TeiRerankRequest):
        content = tei_reply(body, result)
    else:
        impression_id = None
        if ids is not None:
            impression = served_impression(live, result, layout=body.layout or LIST, k=body.wanted, ids=ids)
            impression_id = await service.impressions.add(impression, session=body.session, user=body.user)
        content = superset_reply(
            body,
            result,
            pipeline=live.pipeline,
            reply_id=ranking.query.id,
            api_version="2" if "/v2/" in request.url.path else "1",
            impression_id=impression_id,
        )
    headers = timing_headers(result, total_s=time.perf_counter() - started)
    return Response(content, media_type="application/json", headers=dict(headers))
