"""For those who run the service: is it alive, can it answer, what has it done. No key is asked for."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from app.errors import ErrorBody
from app.metrics import CONTENT_TYPE
from app.service import InService

router = APIRouter(tags=["operations"])


@router.get("/health", summary="Is the process alive")
async def health() -> dict[str, str]:
    """Answer at once, also while models are being loaded."""
    return {"status": "alive"}


@router.get(
    "/ready",
    summary="Can it answer as it did when it started",
    responses={503: {"model": ErrorBody, "description": "Not yet, or no longer; the message says why."}},
)
async def ready(service: InService) -> dict[str, Any]:
    """The default pipeline is live, and every live pipeline still gives the scores it gave when it was loaded."""
    await service.catalog.check()
    return {"status": "ready", "pipelines": service.catalog.states()}


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(service: InService) -> Response:
    """Requests, latencies, batches, queues and tokens in Prometheus' text format."""
    return Response(service.metrics.render(), media_type=CONTENT_TYPE)
