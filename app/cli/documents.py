"""`shortlist index`: documents in, a searchable index out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from app.cli.console import DEFAULT_CONFIG, ConfigOption, IndexOption, err, out, progress_line
from index.directory import IndexDirectory
from index.pipelines import load_pipelines
from index.sources import read_documents

cli = typer.Typer(help="Add documents, build the index, look at it.", no_args_is_help=True)

SourceArgument = Annotated[
    str,
    typer.Argument(
        help="A BEIR directory, a .jsonl file of documents (id, text, title, features, metadata), or python-docs."
    ),
]


def _directory(config: Path, index: Path | None) -> IndexDirectory:
    return IndexDirectory(index or load_pipelines(config).index_dir)


@cli.command()
def add(source: SourceArgument, config: ConfigOption = DEFAULT_CONFIG, index: IndexOption = None) -> None:
    """Add documents; they become searchable with the next build."""
    directory = _directory(config, index)
    added = directory.corpus.append(read_documents(source))
    err.print(f"added {added:,} documents, {len(directory.corpus):,} in all; next: shortlist index build")


@cli.command()
def delete(
    document_ids: Annotated[list[str], typer.Argument(help="Ids of documents; gone from results at once.")],
    config: ConfigOption = DEFAULT_CONFIG,
    index: IndexOption = None,
) -> None:
    """Delete documents by id."""
    directory = _directory(config, index)
    deleted = directory.corpus.delete(document_ids)
    err.print(f"deleted {deleted:,} of {len(document_ids):,} documents, {len(directory.corpus):,} left")


@cli.command()
def build(
    source: Annotated[str | None, typer.Argument(help="Documents to add first, as for `add`.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    index: IndexOption = None,
    dense: Annotated[bool, typer.Option(help="Embed the documents too, for dense and hybrid retrieval.")] = True,
    dense_kind: Annotated[
        Literal["flat", "hnsw"], typer.Option(help="Exact search, or a graph for collections over some 100,000.")
    ] = "flat",
) -> None:
    """Build the index. A running service uses it as soon as it is complete; until then the old one serves."""
    pipelines = load_pipelines(config)
    directory = _directory(config, index)
    if source is not None:
        directory.corpus.append(read_documents(source))
    started = time.perf_counter()
    manifest = directory.build(
        encoder=pipelines.encoder() if dense else None,
        encoder_name=pipelines.spec.encoder if dense else None,
        dense_kind=dense_kind,
        on_progress=progress_line,
    )
    seconds = time.perf_counter() - started
    err.print(f"indexed {manifest.documents:,} documents in {seconds:.1f} s as version {manifest.version}")


@cli.command()
def info(config: ConfigOption = DEFAULT_CONFIG, index: IndexOption = None) -> None:
    """Print what the current index holds, as JSON."""
    import json
    from dataclasses import asdict

    out.print_json(json.dumps(asdict(_directory(config, index).manifest())))
