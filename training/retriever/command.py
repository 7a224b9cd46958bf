"""`shortlist train retriever`: from training lists to an embedding model in the registry."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from training.progress import err, step_progress


def retriever(
    lists: Annotated[
        list[Path] | None,
        typer.Argument(help="Training lists, a file per retriever: their negatives are mixed.", show_default=False),
    ] = None,
    *,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(help="Lists whose targets are a teacher's scores, to distil.", show_default=False),
    ] = None,
    name: Annotated[str, typer.Option(help="What the registry is to call the model.")] = "retriever",
    dev: Annotated[
        list[Path] | None,
        typer.Option(help="Held-out lists; without them some of LISTS are held out.", show_default=False),
    ] = None,
    model: Annotated[
        str, typer.Option(help="What to start from: minilm, a model of the registry, a folder, a hub name.")
    ] = "minilm",
    settings: Annotated[
        Path | None, typer.Option("--settings", help="YAML file of settings; see docs/training.md.", show_default=False)
    ] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="One setting, as in --set epochs=3.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where checkpoints go.", show_default="var/training/NAME")] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Make the model live when it is done.")] = False,
    mlflow: Annotated[str | None, typer.Option(help="URI of an MLflow store to track the run in.")] = None,
    config: Annotated[
        Path, typer.Option("--config", envvar="SHORTLIST_CONFIG", help="The YAML file that names the registry.")
    ] = Path("shortlist.yaml"),
) -> None:
    """Train an embedding model; goes on where an interrupted run stopped."""
    from index.pipelines import load_pipelines
    from training.retriever.run import train_retriever
    from training.retriever.settings import RetrieverSettings
    from training.settings_file import load_settings
    from training.trained_model import RunPlace

    chosen = load_settings(RetrieverSettings, settings, change or ())
    place = RunPlace(
        name,
        datetime.now(UTC).strftime("%Y%m%d-%H%M%S"),
        models_dir=load_pipelines(config).models_dir,
        folder=folder or Path("var/training") / name,
        promote=promote,
        mlflow=mlflow,
    )
    with step_progress() as show:
        done = train_retriever(lists or (), teacher or (), dev or (), chosen, model=model, place=place, on_step=show)
    err.print(done)
