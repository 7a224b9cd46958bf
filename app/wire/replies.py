"""Rerank replies: a superset that Cohere, Jina, Pinecone and vLLM clients read, and the forms of TEI and Voyage."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter

from app.engine import EngineResult
from app.wire.forms import RerankRequest, TeiRerankRequest
from rankers.pipeline import Pipeline, StageResult
from rankers.scores import unit_scores
from rankers.types import ScoreKind


class StageReport(BaseModel):
    """A step of the pipeline: the time its batch ran, and what its scores mean.

    Where both orders of the list were ranked, `order_consistency` is Kendall's tau of the two results. Where written
    answers had to be repaired, `repairs` counts them by kind, over all windows.
    """

    name: str
    ms: float
    score_kind: ScoreKind
    order_consistency: float | None = None
    repairs: dict[str, int] | None = None


class StageOrder(StageReport):
    """A step of the pipeline and the documents in the order it gave."""

    ids: list[str]


class TruncatedDocument(BaseModel):
    """A document of which the model read only the beginning."""

    index: int
    tokens_used: int
    tokens_total: int


class ApiVersion(BaseModel):
    """Cohere's."""

    version: str


class BilledUnits(BaseModel):
    """Cohere's."""

    search_units: int = 1


class TokenCount(BaseModel):
    """Cohere's: tokens read and written."""

    input_tokens: int
    output_tokens: int


class Usage(BaseModel):
    """Tokens the model processed."""

    total_tokens: int
    prompt_tokens: int


class ResultMeta(BaseModel):
    """How a result came about."""

    pipeline: str
    score_kind: ScoreKind
    partial: bool
    degraded_reason: str | None
    warnings: list[str]
    tokens: TokenCount
    queue_ms: float


class RerankMeta(ResultMeta):
    """How a reranking came about."""

    api_version: ApiVersion
    billed_units: BilledUnits
    stages: list[StageReport]
    truncated: list[TruncatedDocument]


class RerankedDocument(BaseModel):
    """One place. `index` is the position in the request; `id` and `document` are there when sent and asked for."""

    index: int
    relevance_score: float
    score: float
    id: str | None = None
    document: dict[str, Any] | str | None = None


class RerankReply(BaseModel):
    """`results` and `data` say the same; clients look into one or the other.

    `impression_id` is there where logging was asked for: clicks go to /v1/events with it. It is null if that failed.
    """

    id: str
    model: str
    results: list[RerankedDocument]
    data: list[RerankedDocument]
    usage: Usage
    meta: RerankMeta
    top_k: int
    impression_id: str | None = None


class VoyageReply(BaseModel):
    """The superset as Voyage's clients want it."""

    object: Literal["list"] = "list"
    id: str
    model: str
    data: list[RerankedDocument]
    usage: Usage
    meta: RerankMeta
    impression_id: str | None = None


class TeiRank(BaseModel):
    """One place of a TEI reply."""

    index: int
    score: float
    text: str | None = None


_TEI_REPLY = TypeAdapter(list[TeiRank])
NOT_LOGGED = "the impression could not be logged, so clicks on it cannot be either"
"""Warning where `impression_id` is null although logging was asked for."""


def stage_fields(stage: StageResult) -> dict[str, Any]:
    """Fields of `StageReport`, only those that say something.

    Parameters
    ----------
    stage
        A completed step.

    Returns
    -------
    dict
        By name.
    """
    evidence = stage.ranking.evidence
    fields: dict[str, Any] = {
        "name": stage.name,
        "ms": round(stage.seconds * 1000, 3),
        "score_kind": stage.ranking.score_kind,
    }
    if evidence.order_consistency is not None:
        fields["order_consistency"] = evidence.order_consistency
    if evidence.repairs:
        fields["repairs"] = evidence.repairs
    return fields


def finite(score: float) -> float:
    """Bring an infinite score, which JSON cannot carry, to the nearest number it can."""
    return min(max(score, -sys.float_info.max), sys.float_info.max)


def superset_reply(
    body: RerankRequest,
    result: EngineResult,
    *,
    pipeline: Pipeline,
    reply_id: str,
    api_version: str,
    impression_id: str | None,
) -> bytes:
    """Write the superset reply, or Voyage's form of it.

    Parameters
    ----------
    body
        What was asked.
    result
        What the engine gave; ids are positions in the request.
    pipeline
        What ran.
    reply_id
        Identifies the reply.
    api_version
        Of Cohere's API.
    impression_id
        For events; None if there is none.

    Returns
    -------
    bytes
        JSON.
    """
    voyage = body.truncation is not None
    warnings = [*([NOT_LOGGED] if body.log and impression_id is None else []), *_warnings(body, pipeline)]
    places = []
    for item, score in list(zip(result.ranking.items, unit_scores(result.ranking), strict=True))[: body.wanted]:
        sent = body.documents[index := int(item.document.id)]
        fields: dict[str, Any] = {"index": index, "relevance_score": score, "score": score}
        if sent.id is not None:
            fields["id"] = sent.id
        if body.return_documents:
            fields["document"] = item.document.content if voyage else sent.model_dump(exclude_unset=True)
        places.append(RerankedDocument(**fields))
    common: dict[str, Any] = {
        "id": reply_id,
        "model": body.model or pipeline.name,
        "usage": Usage(total_tokens=result.tokens, prompt_tokens=result.tokens),
        "meta": RerankMeta(
            **result_meta(result, pipeline=pipeline.name, warnings=warnings),
            api_version=ApiVersion(version=api_version),
            billed_units=BilledUnits(search_units=1),
            stages=[StageReport(**stage_fields(stage)) for stage in result.stages],
            truncated=_truncated(result),
        ),
    }
    if body.log:
        common["impression_id"] = impression_id
    if voyage:
        return _json(VoyageReply(object="list", data=places, **common))
    return _json(RerankReply(results=places, data=places, top_k=len(places), **common))


def tei_reply(body: TeiRerankRequest, result: EngineResult) -> bytes:
    """Write TEI's reply: an array, best first.

    Parameters
    ----------
    body
        What was asked.
    result
        What the engine gave; ids are positions in the request.

    Returns
    -------
    bytes
        JSON.
    """
    scores: Sequence[float] = result.ranking.scores if body.raw_scores else unit_scores(result.ranking)
    places = []
    for item, score in zip(result.ranking.items, scores, strict=True):
        text = {"text": item.document.text} if body.return_text else {}
        places.append(TeiRank(index=int(item.document.id), score=finite(score), **text))
    return _TEI_REPLY.dump_json(places, exclude_unset=True)


def timing_headers(result: EngineResult, *, total_s: float) -> Mapping[str, str]:
    """Times in milliseconds and tokens, as TEI sends them; and what an array has no place for.

    Parameters
    ----------
    result
        What the engine gave.
    total_s
        Seconds since the request came in.

    Returns
    -------
    Mapping
        Header names and values.
    """
    headers = {
        "x-total-time": _ms(total_s),
        "x-compute-time": _ms(result.inference_s),
        "x-inference-time": _ms(result.inference_s),
        "x-queue-time": _ms(result.queue_s),
        "x-compute-tokens": str(result.tokens),
    }
    if result.partial:
        headers["x-shortlist-partial"] = "true"
    if result.degraded_reason:
        headers["x-shortlist-degraded"] = "true"
    return headers


def result_meta(result: EngineResult, *, pipeline: str, warnings: list[str]) -> dict[str, Any]:
    """Fields of `ResultMeta`.

    Parameters
    ----------
    result
        What the engine gave.
    pipeline
        Name of what ran.
    warnings
        What the caller should know beside what the result says itself.

    Returns
    -------
    dict
        By name.
    """
    return {
        "pipeline": pipeline,
        "score_kind": result.ranking.score_kind,
        "partial": result.partial,
        "degraded_reason": result.degraded_reason,
        "warnings": [*warnings, *result.warnings],
        "tokens": TokenCount(input_tokens=result.tokens, output_tokens=result.generated_tokens),
        "queue_ms": round(result.queue_s * 1000, 3),
    }


def _truncated(result: EngineResult) -> list[TruncatedDocument]:
    return [
        TruncatedDocument(index=index, tokens_used=reading.tokens_used, tokens_total=reading.tokens_total)
        for index, reading in sorted((int(key), reading) for key, reading in result.readings.items())
        if reading.truncated
    ]


def _warnings(body: RerankRequest, pipeline: Pipeline) -> list[str]:
    sent = len(body.documents)
    warnings = [
        f"stage {stage.name!r} ordered the first {stage.depth} of {sent} documents; the others follow as they came"
        for stage in pipeline.stages
        if stage.depth < sent
    ]
    if body.max_tokens_per_doc is not None:
        warnings.append(f"max_tokens_per_doc {body.max_tokens_per_doc} has no effect; meta.truncated says what was cut")
    return warnings


def _json(reply: BaseModel) -> bytes:
    return reply.model_dump_json(exclude_unset=True).encode()


def _ms(seconds: float) -> str:
    return str(round(seconds * 1000))
