"""`shortlist search` and `shortlist rerank`: the pipelines, without a server."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from app.cli.console import (
    DEFAULT_CONFIG,
    ConfigOption,
    IndexOption,
    JsonOption,
    PipelineOption,
    out,
    ranking_table,
)
from app.wire.replies import stage_fields
from index.pipelines import load_pipelines
from index.sources import read_documents
from rankers.errors import InvalidInputError
from rankers.filters import Filter, parse_filter
from rankers.pipeline import PipelineResult
from rankers.types import Document, Query, Ranking

TopKOption = Annotated[int, typer.Option("--top-k", "-k", min=1, help="Places to show.")]


def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    *,
    pipeline: PipelineOption = None,
    top_k: TopKOption = 10,
    condition: Annotated[
        str | None,
        typer.Option("--filter", help='JSON that metadata must satisfy: \'{"field": "year", "gte": 2020}\'.'),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the index with a pipeline."""
    opened = load_pipelines(config).open(pipeline, index=index)
    asked = Query("0", query, _parse(condition) if condition is not None else None)
    _show(opened.run([asked], top_k)[0], k=top_k, as_json=as_json)


def rerank(
    query: Annotated[str, typer.Argument(help="What the documents should answer.")],
    texts: Annotated[list[str] | None, typer.Argument(help="The documents.", show_default=False)] = None,
    *,
    file: Annotated[
        str | None, typer.Option("--file", "-f", help="A .jsonl file of documents, or - for one text a line on stdin.")
    ] = None,
    pipeline: PipelineOption = None,
    top_k: TopKOption = 10,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Rerank documents you have with the stages of a pipeline."""
    documents = [Document(str(i), text) for i, text in enumerate(texts or [])]
    if file == "-":
        lines = [line.strip() for line in sys.stdin if line.strip()]
        documents += [Document(str(i), line) for i, line in enumerate(lines, start=len(documents))]
    elif file is not None:
        documents += read_documents(file)
    if not documents:
        raise InvalidInputError("no documents: give them as arguments, or with --file", field="texts")
    opened = load_pipelines(config).open(pipeline)
    incoming = Ranking.from_order(Query("0", query), documents)
    _show(opened.rerank([incoming])[0], k=top_k, as_json=as_json)


def _parse(condition: str) -> Filter:
    try:
        return parse_filter(json.loads(condition))
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"--filter is not JSON: {error}", field="filter") from error


def _show(result: PipelineResult, *, k: int, as_json: bool) -> None:
    if not as_json:
        out.print(ranking_table(result.ranking, result.stages, k=k))
        return
    body = {
        "query": result.ranking.query.text,
        "score_kind": result.ranking.score_kind,
        "results": [
            {"rank": item.rank, "id": item.document.id, "score": item.score, "text": item.document.text}
            for item in result.ranking.items[:k]
        ],
        "stages": [stage_fields(stage) for stage in result.stages],
    }
    sys.stdout.write(json.dumps(body, indent=2) + "\n")
