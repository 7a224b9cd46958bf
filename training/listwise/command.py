"""`shortlist train listwise`: from training lists to an LLM in the registry that orders a window with one token."""

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


def listwise(
    lists: ListsArgument,
    *,
    name: NameOption = "first",
    dev: DevOption = None,
    model: Annotated[str, typer.Option(help="What to start from: a model of the registry, a folder, a hub name.")] = (
        "smollm2-135m"
    ),
    loss: Annotated[
        Literal["ranknet", "listnet", "lambdarank", "neural-ndcg"] | None,
        typer.Option(help="ranknet if the settings do not say.", show_default=False),
    ] = None,
    settings: SettingsOption = None,
    change: ChangeOption = None,
    folder: FolderOption = None,
    promote: PromoteOption = False,
    mlflow: MlflowOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Train an LLM to order a window with one token (FIRST); goes on where an interrupted run stopped."""
    from training.listwise.run import train_listwise
    from training.listwise.settings import ListwiseSettings
    from training.settings_file import load_settings

    chosen = load_settings(ListwiseSettings, settings, change or (), ranking_loss=loss)
    place = run_place(name, folder=folder, promote=promote, mlflow=mlflow, config=config)
    with step_progress() as show:
        done = train_listwise(lists, dev or (), chosen, model=model, place=place, on_step=show)
    report(done)
