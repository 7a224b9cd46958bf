"""Searches as they look on the wire."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.engine import EngineResult
from app.wire.events import LayoutName, QueryText, SessionKey, UserKey
from app.wire.forms import Milliseconds
from app.wire.replies import ResultMeta, StageOrder, finite, result_meta, stage_fields
from rankers.pipeline import StageResult
from rankers.scores import unit_scores
from rankers.types import Document, ScoredDocument, ScoreKind


class SearchRequest(BaseModel):
    """What to look for."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "how is a file closed for sure", "top_k": 5, "explain": False}]}
    )

    query: QueryText
    pipeline: str | None = Field(None, description="A pipeline or an alias; see /v1/pipelines.")
    model: str | None = Field(None, description="Another name of `pipeline`.")
    top_k: int | None = Field(None, ge=1, description="Results wanted; 10 when not given.")
    deadline_ms: Milliseconds | None = Field(None, description="After it, the best order so far is good enough.")
    explain: bool | None = Field(None, description="Add the features of documents, and the windows stages looked at.")
    log: bool | None = Field(None, description="Whether to log what is shown; yes when not given.")
    session: SessionKey | None = None
    user: UserKey | None = None
    filter: dict[str, Any] | None = Field(
        None,
        description="What the metadata of results must satisfy: {field, eq | in | gt, gte, lt, lte}, {and: [...]}, "
        "{or: [...]}, {not: {...}}.",
        examples=[{"and": [{"field": "lang", "in": ["en", "de"]}, {"field": "year", "gte": 2000, "lt": 2010}]}],
    )
    layout: LayoutName | None = Field(None, description="How results are shown: 'list', or 'grid:COLUMNS'.")


class FoundDocument(BaseModel):
    """A document as it is in the index."""

    id: str
    title: str
    text: str
    metadata: dict[str, Any]
    features: dict[str, float] | None = None


class Place(BaseModel):
    """Where a stage put a document, and the score it gave."""

    rank: int
    score: float
    score_kind: ScoreKind


class FoundResult(BaseModel):
    """One place of the final list; `stages` has its places before, in those stages that saw it."""

    document: FoundDocument
    rank: int
    score: float
    relevance_score: float
    stages: dict[str, Place]


class ExplainedWindow(BaseModel):
    """Documents a listwise stage saw together, and what it found.

    Raw logits of their labels, or what a written answer needed repaired and the reasoning before it; why the window
    could not be read, if it could not.
    """

    stage: str
    document_ids: list[str]
    logits: list[float]
    repairs: list[str]
    trace: str
    failure: str


class SearchReply(BaseModel):
    """A short list. Clicks go to /v1/events with its `impression_id`, which is null if it is not logged."""

    id: str
    impression_id: str | None
    pipeline: str
    results: list[FoundResult]
    stages: list[StageOrder]
    meta: ResultMeta
    explain: list[ExplainedWindow] | None = None


def search_reply(
    result: EngineResult, *, pipeline: str, reply_id: str, impression_id: str | None, warnings: list[str], explain: bool
) -> bytes:
    """Write the reply to a search.

    Parameters
    ----------
    result
        What the engine gave.
    pipeline
        Name of what ran.
    reply_id
        Identifies the reply.
    impression_id
        For events; None if there is none.
    warnings
        What the caller should know.
    explain
        Whether to add features and windows.

    Returns
    -------
    bytes
        JSON.
    """
    places = {stage.name: {item.document.id: item for item in stage.ranking.items} for stage in result.stages}
    results = [
        FoundResult(
            document=_found(item.document, explain=explain),
            rank=item.rank,
            score=finite(item.score),
            relevance_score=score,
            stages={
                stage.name: _place(stage, places[stage.name][item.document.id])
                for stage in result.stages
                if item.document.id in places[stage.name]  # an arm need not have found what the other one did
            },
        )
        for item, score in zip(result.ranking.items, unit_scores(result.ranking), strict=True)
    ]
    fields: dict[str, Any] = {"explain": _windows(result)} if explain else {}
    return (
        SearchReply(
            id=reply_id,
            impression_id=impression_id,
            pipeline=pipeline,
            results=results,
            stages=[StageOrder(**stage_fields(stage), ids=list(stage.ranking.ids)) for stage in result.stages],
            meta=ResultMeta(**result_meta(result, pipeline=pipeline, warnings=warnings)),
            **fields,
        )
        .model_dump_json(exclude_unset=True)
        .encode()
    )


def _found(document: Document, *, explain: bool) -> FoundDocument:
    features = {"features": dict(document.features)} if explain else {}
    return FoundDocument(
        id=document.id, title=document.title, text=document.text, metadata=dict(document.metadata), **features
    )


def _place(stage: StageResult, item: ScoredDocument) -> Place:
    return Place(rank=item.rank, score=finite(item.score), score_kind=stage.ranking.score_kind)


def _windows(result: EngineResult) -> list[ExplainedWindow]:
    return [
        ExplainedWindow(
            stage=stage.name,
            document_ids=list(window.document_ids),
            logits=list(window.logits),
            repairs=list(window.repairs),
            trace=window.trace,
            failure=window.failure,
        )
        for stage in result.stages
        for window in stage.ranking.evidence.windows
    ]
