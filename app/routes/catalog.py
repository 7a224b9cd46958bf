"""What there is to ask: pipelines, models, and TEI's description of itself."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter

from app.errors import ERROR_RESPONSES
from app.intake import ServiceRoute
from app.service import InService

router = APIRouter(route_class=ServiceRoute, tags=["catalog"], responses=ERROR_RESPONSES)

TOKEN_BUDGETS = ("passage_tokens", "max_tokens")
"""What a stage calls the number of tokens it reads of a document."""


@router.get("/v1/pipelines", summary="List pipelines")
async def list_pipelines(service: InService) -> dict[str, Any]:
    """Every pipeline of the configuration, what it is made of, and whether it is live."""
    source, states = service.catalog.source, service.catalog.states()
    return {
        "default": source.default,
        "aliases": dict(source.aliases),
        "pipelines": [{**source.describe(name), **states[name]} for name in source.names],
    }


@router.get("/v1/models", summary="List what can be sent as `model`")
async def list_models(service: InService) -> dict[str, Any]:
    """Pipelines and their aliases in OpenAI's form, and under `cards` the models on disk."""
    source, states = service.catalog.source, service.catalog.states()
    named = {**{name: name for name in source.names}, **source.aliases}
    cards = await asyncio.to_thread(service.catalog.cards)
    return {
        "object": "list",
        "data": [
            {
                "id": name,
                "object": "model",
                "created": 0,
                "owned_by": "shortlist",
                "kind": "pipeline",
                "pipeline": pipeline,
                **states[pipeline],
            }
            for name, pipeline in named.items()
        ],
        "cards": [{**asdict(card), "live": live} for card, live in cards],
    }


@router.get("/info", summary="Describe the default reranker as text-embeddings-inference does")
async def info(service: InService) -> dict[str, Any]:
    """Limits that TEI's clients ask for before they send anything."""
    live = service.catalog.for_rerank(None)
    stages: Any = service.catalog.source.describe(live.pipeline.name)["stages"]
    budgets = [stage[key] for stage in stages for key in TOKEN_BUDGETS if key in stage]
    return {
        "model_id": live.pipeline.name,
        "model_sha": live.version.rpartition("@")[2],
        "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
        "max_input_length": min(budgets, default=512),
        "max_batch_tokens": service.settings.max_batch_tokens,
        "max_client_batch_size": service.settings.max_documents,
        "auto_truncate": True,
        "version": version("shortlist-rank"),
    }
