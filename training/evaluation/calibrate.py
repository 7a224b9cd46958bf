"""`shortlist calibrate`: what the scores of a pipeline mean, learnt from a judged collection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from index.pipelines import Pipelines, load_pipelines
from index.stages import calibration_path
from rankers.errors import InvalidInputError
from rankers.types import ScoreKind
from training.evaluation.command import progress_bar, report_building
from training.evaluation.inputs import choose_source, load_judged

err = Console(stderr=True, highlight=False)


def calibrate(
    dataset: Annotated[
        str | None,
        typer.Argument(help="A directory in BEIR layout, or irds:NAME of ir_datasets.", show_default=False),
    ] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file to write; if not given, what the last stage names or one beside its model in the registry.",
            show_default=False,
        ),
    ] = None,
    pipeline: Annotated[str | None, typer.Option("--pipeline", "-p", help="Whose last scores are calibrated.")] = None,
    config: Annotated[
        Path, typer.Option("--config", envvar="SHORTLIST_CONFIG", help="The YAML file that names the pipelines.")
    ] = Path("shortlist.yaml"),
    split: Annotated[str, typer.Option(help="Which judgements of a BEIR directory.")] = "train",
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
    depth: Annotated[int, typer.Option(min=1, help="Places per query; no more than the last stage's depth.")] = 20,
    relevant_from: Annotated[int, typer.Option(min=1, help="The lowest grade that counts as relevant.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first queries.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries that run together.")] = 32,
) -> None:
    """Fit probabilities of relevance to the scores of a pipeline's last stage, on the judged documents it finds.

    Stages that say calibration: true take the one beside their model, which counts for that version alone.
    """
    from rankers.calibration import fit_calibration

    judged = load_judged(dataset, split=split, qrels=qrels, topics=topics, documents=documents, limit=limit)
    pipelines = load_pipelines(config)
    name = pipelines.resolve(pipeline)
    source = choose_source(pipelines, judged, [name], index=index, first_stage=first_stage, on_progress=report_building)
    opened = pipelines.open(name, index=source.index, retriever=source.retriever, calibrated=False)
    model = opened.stages[-1].model if opened.stages else ""
    target = out or _place(pipelines, name, model)
    scores: list[float] = []
    relevant: list[bool] = []
    kinds: set[ScoreKind] = set()
    with progress_bar(name) as progress:
        for start in range(0, len(judged.queries), batch_size):
            for ranking in opened.retrieve(judged.queries[start : start + batch_size], depth):
                grades = judged.qrels[ranking.query.id]
                known = [item for item in ranking.items if item.document.id in grades]
                scores += [item.score for item in known]
                relevant += [grades[item.document.id] >= relevant_from for item in known]
                kinds |= {ranking.score_kind} if known else set()
            progress(min(start + batch_size, len(judged.queries)), len(judged.queries))
    if len(kinds) != 1:
        raise InvalidInputError(
            f"pipeline {name!r} gave scores of kinds {', '.join(sorted(kinds)) or 'none'} for judged documents; a "
            "calibration takes one kind, so choose a depth that the last stage covers",
            field="depth",
        )
    fitted = fit_calibration(scores, relevant, score_kind=kinds.pop(), data=f"{judged.name}/{split}", model=model)
    target.parent.mkdir(parents=True, exist_ok=True)
    fitted.save(target)
    err.print(
        f"{fitted.judged:,} judged documents, {fitted.relevant:,} relevant; expected calibration error on documents "
        f"held out: {fitted.error_after:.4f}"
    )
    err.print(f"calibration{f' of {model}' if model else ''}: {target}")


def _place(pipelines: Pipelines, name: str, model: str) -> Path:
    """Find where the stage looks for its calibration."""
    stages = pipelines.spec.pipelines[name].stages
    place = calibration_path(stages[-1], model, models_dir=pipelines.models_dir) if stages else None
    if place is None:
        raise InvalidInputError(
            f"the last scores of pipeline {name!r} are not of a model of the registry; say where to write with --out",
            field="out",
        )
    return place
