"""`shortlist evaluate`: the pipelines that serve, on a judged collection."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from index.directory import IndexDirectory
from index.pipelines import Pipelines, load_pipelines
from rankers.errors import InvalidInputError
from rankers.protocols import Retriever
from rankers.types import Document
from training.evaluation.datasets import Dataset, load_dataset, load_trec
from training.evaluation.measures import DEFAULT_MEASURES, check_measures, describe

if TYPE_CHECKING:
    from training.evaluation.report import Report

err = Console(stderr=True, highlight=False)
FINGERPRINT_FILE = "SOURCE"


def evaluate(
    dataset: Annotated[
        str | None,
        typer.Argument(help="A directory in BEIR layout, or irds:NAME of ir_datasets.", show_default=False),
    ] = None,
    *,
    pipeline: Annotated[
        list[str] | None, typer.Option("--pipeline", "-p", help="Pipelines to run; the first is the baseline.")
    ] = None,
    config: Annotated[
        Path, typer.Option("--config", envvar="SHORTLIST_CONFIG", help="The YAML file that names the pipelines.")
    ] = Path("shortlist.yaml"),
    split: Annotated[str, typer.Option(help="Which judgements of a BEIR directory.")] = "test",
    qrels: Annotated[Path | None, typer.Option(help="Judgements to use instead, TREC or BEIR form.")] = None,
    topics: Annotated[Path | None, typer.Option(help="TREC topics (id, tab, text) instead of a dataset.")] = None,
    documents: Annotated[Path | None, typer.Option(help="A .jsonl file of documents, with --topics.")] = None,
    first_stage: Annotated[
        Path | None, typer.Option(help="A TREC run as the first stage instead of the pipelines' retrievers.")
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(help="An index to search as it is, instead of one of the dataset.", show_default=False),
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="Places per query.")] = 100,
    measure: Annotated[
        list[str] | None,
        typer.Option("--measure", "-m", help="As ir_measures writes them, such as nDCG@10, AP(rel=2)."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first queries.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries that run together.")] = 32,
    out: Annotated[Path | None, typer.Option(help="Folder for runs and report.", show_default=False)] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of going on where it stopped.")] = False,
) -> None:
    """Run pipelines over a judged collection: TREC runs, measures with intervals, tests, and a report."""
    from training.evaluation.evaluation import evaluate as run_pipeline
    from training.evaluation.report import build_report, write_report

    measures = measure or DEFAULT_MEASURES
    check_measures(measures)
    judged = _limited(_load(dataset, split=split, qrels=qrels, topics=topics, documents=documents), limit)
    pipelines = load_pipelines(config)
    names = [pipelines.resolve(name) for name in pipeline or [pipelines.default]]
    if len(set(names)) < len(names):
        raise InvalidInputError(f"pipelines {', '.join(names)} are not all different", field="pipeline")
    folder = out or Path("var/evaluations") / judged.name
    retriever = _run_retriever(first_stage, judged) if first_stage else None
    index, searched = _searched(pipelines, judged, names, index=index, first_stage=first_stage)

    evaluations = []
    for name in names:
        described = {**pipelines.describe(name), "encoder": pipelines.needs_dense(name), **searched}
        opened = pipelines.open(name, index=index, retriever=retriever)
        if first_stage is not None and not opened.stages:
            opened = replace(opened, name=first_stage.stem)  # what is measured is the run alone
        with _bar(name) as progress:
            evaluation = run_pipeline(
                opened,
                judged,
                folder,
                depth=depth,
                batch_size=batch_size,
                configuration=described,
                fresh=fresh,
                on_progress=progress,
            )
        evaluations.append(evaluation)
    report = build_report(
        judged,
        evaluations,
        measures=measures,
        configuration={
            "pipelines": [pipelines.describe(name) for name in names],
            **searched,
            "depth": depth,
            "batch_size": batch_size,
        },
    )
    path = write_report(report, folder)
    Console(highlight=False).print(_table(report))
    err.print(f"report: {path}")


def _load(
    dataset: str | None, *, split: str, qrels: Path | None, topics: Path | None, documents: Path | None
) -> Dataset:
    if (dataset is None) == (topics is None):
        raise InvalidInputError("give a dataset, or --topics with --qrels", field="dataset")
    if topics is None:
        return load_dataset(str(dataset), split=split, qrels=qrels)
    if qrels is None:
        raise InvalidInputError("--topics needs --qrels", field="qrels")
    return load_trec(topics, qrels, documents)


def _limited(dataset: Dataset, limit: int | None) -> Dataset:
    if limit is None:
        return dataset
    queries = dataset.queries[:limit]
    return Dataset(dataset.name, queries, {q.id: dataset.qrels[q.id] for q in queries}, dataset.documents)


def _stream(dataset: Dataset) -> Iterable[Document]:
    if dataset.documents is None:
        raise InvalidInputError(f"dataset {dataset.name!r} has no documents; give --documents", field="documents")
    return dataset.documents()


def _run_retriever(path: Path, dataset: Dataset) -> Retriever:
    from training.evaluation.runs import RunRetriever, read_run

    return RunRetriever(read_run(path), _stream(dataset))


def _searched(
    pipelines: Pipelines, dataset: Dataset, names: Sequence[str], *, index: Path | None, first_stage: Path | None
) -> tuple[Path | None, dict[str, object]]:
    """Find the index to search, if any, and what tells its documents from others, over which no run may be gone on."""
    if first_stage is not None:
        digest = hashlib.sha256(first_stage.read_bytes()).hexdigest()
        return None, {"first_stage": str(first_stage), "first_stage_sha256": digest}
    if index is not None:
        return index, {"index": str(index), "manifest": asdict(IndexDirectory(index).manifest())}
    fingerprint = _fingerprint(_stream(dataset))
    return _index(pipelines, dataset, names, fingerprint), {"documents_sha256": fingerprint}


def _index(pipelines: Pipelines, dataset: Dataset, names: Sequence[str], fingerprint: str) -> Path:
    """Build the dataset's index under var/indexes, unless it is there and of the same documents and encoder."""
    dense = any(pipelines.needs_dense(name) for name in names)
    root = pipelines.index_dir.parent / "indexes" / dataset.name
    directory = IndexDirectory(root)
    recorded = root / FINGERPRINT_FILE
    if recorded.is_file() and recorded.read_text() == fingerprint:
        if not dense or directory.manifest().encoder == pipelines.spec.encoder:
            return root
    else:
        recorded.unlink(missing_ok=True)
        directory.corpus.delete([document.id for document in directory.corpus.stream()])
        directory.corpus.append(_stream(dataset))

    def on_progress(phase: str, done: int, total: int) -> None:
        if err.is_terminal or done == total:
            err.print(f"{phase}: {done:,}/{total:,}", end="\r" if err.is_terminal and done < total else "\n")

    directory.build(
        encoder=pipelines.encoder() if dense else None,
        encoder_name=pipelines.spec.encoder if dense else None,
        on_progress=on_progress,
    )
    recorded.write_text(fingerprint)
    return root


def _fingerprint(documents: Iterable[Document]) -> str:
    digest = hashlib.sha256()
    for document in documents:
        for part in (document.id, document.title, document.text):
            digest.update(f"{len(part)}:{part}".encode(errors="surrogatepass"))
    return digest.hexdigest()


def _table(report: Report) -> Table:
    """Means, and which of them differ from the baseline's (paired t-test, p < .05)."""
    table = Table(
        "pipeline",
        *(describe(measure) for measure in report.measures),
        "queries/s",
        title=f"{report.dataset}, {report.queries} queries",
        caption=f"* differs from {report.baseline}, p < .05" if report.comparisons else None,
    )
    for e in report.evaluations:
        compared = report.comparisons.get(e.pipeline, {})
        cells = [
            f"{report.intervals[e.pipeline][m].mean:.4f}{'*' if m in compared and compared[m].p_value < 0.05 else ''}"
            for m in report.measures
        ]
        table.add_row(e.pipeline, *cells, f"{e.queries_per_s:.1f}")
    return table


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
