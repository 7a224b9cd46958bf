"""`shortlist index`: documents in, a searchable index out, and changes to it."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.cli.console import DEFAULT_CONFIG, ConfigOption, IndexOption, err, out, progress_line
from index.directory import IndexDirectory
from index.manifest import Manifest
from index.pipelines import load_pipelines
from index.sources import read_documents

if TYPE_CHECKING:
    from index.spann.curve import Curve

cli = typer.Typer(help="Add documents, build the index, look at it.", no_args_is_help=True)

SourceArgument = Annotated[
    str,
    typer.Argument(
        help="A BEIR directory, a .jsonl file of documents (id, text, title, features, metadata), or python-docs."
    ),
]


def _on_disk(directory: IndexDirectory) -> dict[str, object]:
    """Say of vectors on disk what they take and how old the tuned curves are."""
    from index.spann.live import SpannIndex

    with SpannIndex.open(directory.spann_folder(), read_only=True) as opened:
        segments = [source.segment for source in opened.segments]
        return {
            "memory_mb": round(opened.memory_bytes / 1e6, 3),
            "delta_rows": opened.delta_rows,
            "segments": [
                {
                    "vectors": len(one),
                    "heads": one.head_count,
                    "codec": one.parameters.codec if one.head_count else "none",
                    "curve": _age(one.curve),
                }
                for one in segments
            ],
        }


def _age(curve: Curve | None) -> str:
    if curve is None:
        return "none"
    return "older than the vectors; run: shortlist index tune" if curve.is_inherited else "measured on these vectors"


def _named(manifest: Manifest | None) -> str:
    return f"; version {manifest.version}" if manifest is not None else ""


def _directory(config: Path, index: Path | None) -> IndexDirectory:
    return IndexDirectory(index or load_pipelines(config).index_dir)


@cli.command()
def add(source: SourceArgument, config: ConfigOption = DEFAULT_CONFIG, index: IndexOption = None) -> None:
    """Add documents, or replace those with the same ids; a running service finds them in a few seconds.

    Before the first build they are only kept for it.
    """
    directory = _directory(config, index)
    current = directory.current()
    if current is None:
        added = directory.corpus.append(read_documents(source))
        err.print(f"added {added:,} documents, {len(directory.corpus):,} in all; next: shortlist index build")
        return
    pipelines = load_pipelines(config)
    documents = list(read_documents(source))
    started = time.perf_counter()
    manifest = directory.change(
        documents,
        encoder=pipelines.encoder() if current.encoder is not None else None,
        encoder_name=pipelines.spec.encoder,
        on_progress=progress_line,
    )
    seconds = time.perf_counter() - started
    err.print(
        f"added {len(documents):,} documents in {seconds:.1f} s, {len(directory.corpus):,} in all{_named(manifest)}"
    )


@cli.command()
def delete(
    document_ids: Annotated[list[str], typer.Argument(help="Ids of documents.")],
    config: ConfigOption = DEFAULT_CONFIG,
    index: IndexOption = None,
) -> None:
    """Delete documents by id; they are gone from results at once."""
    directory = _directory(config, index)
    present = directory.corpus.find(document_ids)
    manifest = directory.change(deleted=tuple(present)) if present else None
    err.print(
        f"deleted {len(present):,} of {len(document_ids):,} documents, {len(directory.corpus):,} left{_named(manifest)}"
    )


@cli.command()
def build(
    source: Annotated[str | None, typer.Argument(help="Documents to add first, as for `add`.")] = None,
    *,
    config: ConfigOption = DEFAULT_CONFIG,
    index: IndexOption = None,
    dense: Annotated[bool, typer.Option(help="Embed the documents too, for dense and hybrid retrieval.")] = True,
    dense_kind: Annotated[
        Literal["auto", "flat", "hnsw", "spann"],
        typer.Option(help="Exact, a graph in memory, or on disk; auto is flat for few documents and spann for many."),
    ] = "auto",
    max_memory_mb: Annotated[
        float | None, typer.Option(help="Memory a search on disk may hold, in millions of bytes.", show_default=False)
    ] = None,
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
        max_memory_mb=max_memory_mb,
        on_progress=progress_line,
    )
    seconds = time.perf_counter() - started
    err.print(f"indexed {manifest.documents:,} documents in {seconds:.1f} s as version {manifest.version}")


@cli.command()
def info(config: ConfigOption = DEFAULT_CONFIG, index: IndexOption = None) -> None:
    """Print what the current index holds, as JSON; of vectors on disk also what a search keeps in memory."""
    import json
    from dataclasses import asdict

    directory = _directory(config, index)
    manifest = directory.manifest()
    held = {"vectors": _on_disk(directory)} if manifest.dense_kind == "spann" else {}
    out.print_json(json.dumps(asdict(manifest) | held))


@cli.command()
def statistics(
    target: Annotated[Path, typer.Argument(help="The file to write; a feature set names it under `statistics`.")],
    config: ConfigOption = DEFAULT_CONFIG,
    index: IndexOption = None,
    stemmer: Annotated[
        str | None, typer.Option(help="As in the feature set; 'none' keeps words as they are.")
    ] = "english",
) -> None:
    """Count the terms of the documents, for BM25 as a feature: the numbers stay as they are when documents change."""
    from rankers.ltr.terms import count_collection, save_statistics

    chosen = None if stemmer == "none" else stemmer
    counted = count_collection(_directory(config, index).corpus.stream(), chosen)
    save_statistics(counted, target, stemmer=chosen)
    err.print(f"counted {counted['content'].documents:,} documents with {len(counted['content'].frequencies):,} terms")


@cli.command()
def check(
    config: ConfigOption = DEFAULT_CONFIG,
    index: IndexOption = None,
    repair: Annotated[bool, typer.Option(help="Mend what follows from other files, and remove leftovers.")] = False,
) -> None:
    """Verify every checksum and invariant of vectors that are kept on disk; status 1 if anything is left wrong."""
    from index.spann.check import check as check_index

    directory = _directory(config, index)
    folder = directory.spann_folder()
    with directory.exclusive() if repair else nullcontext():
        findings = check_index(folder, repair=repair)
    for finding in findings:
        state = "mended" if finding.repaired else f"{'harmless; ' if finding.harmless else ''}{finding.remedy}"
        out.print(f"{finding.path}: {finding.problem} ({state})", soft_wrap=True)
    err.print(f"{folder}: {len(findings)} findings")
    if any(not finding.repaired and not finding.harmless for finding in findings):
        raise typer.Exit(1)


@cli.command()
def snapshot(
    target: Annotated[Path, typer.Argument(help="A folder that does not exist.")],
    config: ConfigOption = DEFAULT_CONFIG,
    index: IndexOption = None,
) -> None:
    """Copy documents and the current index into a folder that stands on its own; a service may go on meanwhile."""
    from index.copies import copy_directory

    directory = _directory(config, index)
    copy_directory(directory, target)
    err.print(f"copied version {directory.manifest().version} to {target}; back with: shortlist index restore {target}")


@cli.command()
def restore(
    snapshot: Annotated[Path, typer.Argument(help="What `snapshot` made.")],
    config: ConfigOption = DEFAULT_CONFIG,
    index: IndexOption = None,
) -> None:
    """Put a snapshot where the index is to be; there must be none."""
    from index.copies import copy_directory

    target = _directory(config, index).root
    copy_directory(IndexDirectory(snapshot), target)
    err.print(f"restored {IndexDirectory(target).manifest().documents:,} documents to {target}")


@cli.command()
def tune(
    recall: Annotated[float, typer.Option(min=0.01, max=1.0, help="Share of the true best hits to find.")] = 0.95,
    queries: Annotated[
        Path | None,
        typer.Option(help="A file with one query per line, like those to come; without it, points between documents."),
    ] = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Hits that recall counts.")] = 10,
    config: ConfigOption = DEFAULT_CONFIG,
    index: IndexOption = None,
) -> None:
    """Measure what recall costs on a spann index, and keep the curve and a plot with it; changes have to wait."""
    from index.spann.live import SpannIndex
    from index.spann.tuning import fit_curve, queries_between
    from index.spann.tuning_plot import PLOT_FILE, plot_curve

    vectors = None
    if queries is not None:
        texts = [line for line in queries.read_text().splitlines() if line.strip()]
        vectors = load_pipelines(config).encoder().encode_queries(texts)
    directory = _directory(config, index)
    folder = directory.spann_folder()
    # Nobody may make a version meanwhile: it would lack the curve.
    with directory.exclusive(), SpannIndex.open(folder, read_only=True) as opened:
        for source in opened.segments:
            segment = source.segment
            asked = queries_between(segment) if vectors is None else vectors
            curve = fit_curve(segment, asked, k=k, on_progress=progress_line)
            plot_curve(curve, segment.folder / PLOT_FILE)
            point = curve.point(recall)
            err.print(
                f"{len(segment):,} vectors: recall {point.recall:.3f} with {point.effort.lists} postings, "
                f"{point.latency_us:,.0f} µs; curve and plot in {segment.folder}"
            )
            if point.recall < recall:
                err.print(f"recall {recall} was not reached; build with more replicas or heads")
