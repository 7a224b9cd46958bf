"""`shortlist train retriever`: from training lists to an embedding model in the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.options import (
    DEFAULT_CONFIG,
    ChangeOption,
    ConfigOption,
    DevOption,
    FolderOption,
    MlflowOption,
    NameOption,
    PromoteOption,
    SettingsOption,
    run_place,
)
from training.progress import report, step_progress


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
    name: NameOption = "retriever",
    dev: DevOption = None,
    model: Annotated[
        str, typer.Option(help="What to start from: minilm, a model of the registry, a folder, a hub name.")
    ] = "minilm",
    settings: SettingsOption = None,
    change: ChangeOption = None,
    folder: FolderOption = None,
    promote: PromoteOption = False,
    mlflow: MlflowOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Train an embedding model; goes on where an interrupted run stopped."""
    from training.retriever.run import train_retriever
    from training.retriever.settings import RetrieverSettings
    from training.settings_file import load_settings

    chosen = load_settings(RetrieverSettings, settings, change or ())
    place = run_place(name, folder=folder, promote=promote, mlflow=mlflow, config=config)
    with step_progress() as show:
        done = train_retriever(lists or (), teacher or (), dev or (), chosen, model=model, place=place, on_step=show)
    report(done)
