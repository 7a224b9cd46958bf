"""`shortlist evaluate`: the pipelines that serve, on a judged collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from index.pipelines import load_pipelines
from rankers.errors import InvalidInputError
from training.evaluation.inputs import choose_source, load_judged
from training.evaluation.measures import DEFAULT_MEASURES, check_measures, describe

if TYPE_CHECKING:
    from training.evaluation.report import Report

err = Console(stderr=True, highlight=False)


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
    judged = load_judged(dataset, split=split, qrels=qrels, topics=topics, documents=documents, limit=limit)
    pipelines = load_pipelines(config)
    names = [pipelines.resolve(name) for name in pipeline or [pipelines.default]]
    if len(set(names)) < len(names):
        raise InvalidInputError(f"pipelines {', '.join(names)} are not all different", field="pipeline")
    folder = out or Path("var/evaluations") / judged.name
    source = choose_source(pipelines, judged, names, index=index, first_stage=first_stage, on_progress=report_building)

    evaluations = []
    for name in names:
        described = {**pipelines.describe(name), "encoder": pipelines.needs_dense(name), **source.description}
        opened = pipelines.open(name, index=source.index, retriever=source.retriever)
        if first_stage is not None and not opened.stages:
            opened = replace(opened, name=first_stage.stem)  # what is measured is the run alone
        with progress_bar(name) as progress:
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
            **source.description,
            "depth": depth,
            "batch_size": batch_size,
        },
    )
    path = write_report(report, folder)
    Console(highlight=False).print(_table(report))
    err.print(f"report: {path}")


def report_building(phase: str, done: int, total: int) -> None:
    """Say how far an index is built, in place on a terminal, once per phase elsewhere."""
    if err.is_terminal or done == total:
        err.print(f"{phase}: {done:,}/{total:,}", end="\r" if err.is_terminal and done < total else "\n")


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
def progress_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many queries are done; what it gives is called with done and total."""
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
