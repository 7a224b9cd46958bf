"""`shortlist train cross-encoder`: from training lists to a cross-encoder in the registry."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from training.options import (
    DEFAULT_CONFIG,
    ChangeOption,
    ConfigOption,
    DevOption,
    FolderOption,
    ListsArgument,
    MlflowOption,
    NameOption,
    PromoteOption,
    SettingsOption,
    run_place,
)
from training.progress import report, step_progress


def cross_encoder(
    lists: ListsArgument,
    *,
    name: NameOption = "cross-encoder",
    dev: DevOption = None,
    model: Annotated[
        str, typer.Option(help="What to start from: minilm, a model of the registry, a folder, a hub name.")
    ] = "minilm",
    loss: Annotated[
        Literal["listnet", "binary", "margin-mse"] | None,
        typer.Option(help="listnet if the settings do not say.", show_default=False),
    ] = None,
    rank_regularisation: Annotated[
        float | None, typer.Option(min=0, help="Weight of staying near the first stage's order.", show_default=False)
    ] = None,
    curriculum: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the steps in which hard lists count less.", show_default=False),
    ] = None,
    settings: SettingsOption = None,
    change: ChangeOption = None,
    folder: FolderOption = None,
    promote: PromoteOption = False,
    mlflow: MlflowOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Train a cross-encoder; goes on where an interrupted run stopped."""
    from training.cross_encoder.run import train_cross_encoder
    from training.cross_encoder.settings import CrossEncoderSettings
    from training.settings_file import load_settings

    chosen = load_settings(
        CrossEncoderSettings,
        settings,
        change or (),
        loss=loss,
        rank_regularisation=rank_regularisation,
        curriculum=curriculum,
    )
    place = run_place(name, folder=folder, promote=promote, mlflow=mlflow, config=config)
    with step_progress() as show:
        done = train_cross_encoder(lists, dev or (), chosen, model=model, place=place, on_step=show)
    report(done)
