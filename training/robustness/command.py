"""`shortlist robustness`: one pipeline, its input disturbed in every way there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from index.pipelines import load_pipelines
from index.sources import read_documents
from training.evaluation.command import report_building
from training.evaluation.inputs import choose_source, load_judged
from training.evaluation.measures import check_measures, describe

if TYPE_CHECKING:
    from training.robustness.harness import Robustness

err = Console(stderr=True, highlight=False)


def robustness(
    dataset: Annotated[
        str | None,
        typer.Argument(help="A directory in BEIR layout, or irds:NAME of ir_datasets.", show_default=False),
    ] = None,
    *,
    pipeline: Annotated[str | None, typer.Option("--pipeline", "-p", help="The pipeline to disturb.")] = None,
    config: Annotated[
        Path, typer.Option("--config", envvar="SHORTLIST_CONFIG", help="The YAML file that names the pipelines.")
    ] = Path("shortlist.yaml"),
    split: Annotated[str, typer.Option(help="Which judgements of a BEIR directory.")] = "test",
    qrels: Annotated[Path | None, typer.Option(help="Judgements to use instead, TREC or BEIR form.")] = None,
    topics: Annotated[Path | None, typer.Option(help="TREC topics (id, tab, text) instead of a dataset.")] = None,
    documents: Annotated[Path | None, typer.Option(help="A .jsonl file of documents, with --topics.")] = None,
    first_stage: Annotated[
        Path | None, typer.Option(help="A TREC run as the first stage instead of the pipeline's retriever.")
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(help="An index to search as it is, instead of one of the dataset.", show_default=False),
    ] = None,
    rewrites: Annotated[
        Path | None,
        typer.Option(help="The same documents in other words: a BEIR directory or .jsonl file with the same ids."),
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="Candidates per query.")] = 100,
    sweep: Annotated[
        list[int] | None,
        typer.Option("--sweep", min=1, help="Rerank so many candidates; again for more. [5, 10, 20, 50, 100]"),
    ] = None,
    family: Annotated[
        list[str] | None,
        typer.Option("--family", help="Only such rows; again for more. [depth, order, queries, documents, attacks]"),
    ] = None,
    measure: Annotated[str, typer.Option("--measure", "-m", help="As ir_measures writes it.")] = "nDCG@10",
    repeats: Annotated[int, typer.Option(min=1, help="Draws of every random disturbance.")] = 3,
    substitute: Annotated[float, typer.Option(help="Share of the words of a document to replace.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first queries.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries that run together.")] = 32,
    out: Annotated[Path | None, typer.Option(help="Folder for runs and report.", show_default=False)] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of going on where it stopped.")] = False,
) -> None:
    """Disturb a pipeline's input (depth, order, typos, other words, attacks) and measure what becomes of it."""
    from training.robustness.harness import Settings, measure_robustness
    from training.robustness.report import write_report

    check_measures([measure])
    settings = Settings(
        measure=measure,
        depth=depth,
        depths=tuple(sweep) if sweep else Settings().depths,
        repeats=repeats,
        substitution_rate=substitute,
        seed=seed,
        batch_size=batch_size,
        families=tuple(family) if family else Settings().families,
    )
    judged = load_judged(dataset, split=split, qrels=qrels, topics=topics, documents=documents, limit=limit)
    pipelines = load_pipelines(config)
    name = pipelines.resolve(pipeline)
    in_other_words = {document.id: document for document in read_documents(str(rewrites))} if rewrites else None
    source = choose_source(pipelines, judged, [name], index=index, first_stage=first_stage, on_progress=report_building)
    opened = pipelines.open(name, index=source.index, retriever=source.retriever)
    folder = out or Path("var/robustness") / judged.name / name
    with _bar() as progress:
        measured = measure_robustness(
            opened,
            judged,
            folder,
            settings=settings,
            rewrites=in_other_words,
            configuration={**pipelines.describe(name), "encoder": pipelines.needs_dense(name), **source.description},
            fresh=fresh,
            on_progress=progress,
        )
    path = write_report(measured, folder)
    Console(highlight=False).print(_table(measured))
    if not opened.stages:
        err.print(f"pipeline {name!r} has no stages that could be disturbed; only its retriever was")
    err.print(f"report: {path}")


def _table(measured: Robustness) -> Table:
    """What fits a terminal; the report has the rest."""
    from training.robustness.report import cells

    table = Table(
        "input",
        "measure",
        "difference",
        "besides",
        title=f"{measured.pipeline} on {measured.dataset}, {measured.queries} queries: "
        f"{describe(measured.settings.measure)}",
        caption="* differs from clean, p < .05",
    )
    for row in measured.rows:
        _, name, value, _, _, _, _, besides = cells(row)
        compared = row.comparison
        star = "*" if compared is not None and compared.p_value < 0.05 else ""
        table.add_row(name, value, "" if compared is None else f"{compared.difference.mean:+.4f}{star}", besides)
    return table


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("clean", total=None)
        yield lambda name, done, total: progress.update(task, description=name, completed=done, total=total)
