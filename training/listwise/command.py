"""`shortlist train listwise`: from training lists to an LLM in the registry that orders a window with one token."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from training.progress import err, step_progress


def listwise(
    lists: Annotated[list[Path], typer.Argument(help="Training lists; see: shortlist data lists.")],
    *,
    name: Annotated[str, typer.Option(help="What the registry is to call the model.")] = "first",
    dev: Annotated[
        list[Path] | None,
        typer.Option(help="Held-out lists; without them some of LISTS are held out.", show_default=False),
    ] = None,
    model: Annotated[str, typer.Option(help="What to start from: a model of the registry, a folder, a hub name.")] = (
        "smollm2-135m"
    ),
    loss: Annotated[
        Literal["ranknet", "listnet", "lambdarank", "neural-ndcg"] | None,
        typer.Option(help="ranknet if the settings do not say.", show_default=False),
    ] = None,
    settings: Annotated[
        Path | None, typer.Option("--settings", help="YAML file of settings; see docs/training.md.", show_default=False)
    ] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="One setting, as in --set steps=200.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where checkpoints go.", show_default="var/training/NAME")] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Make the model live when it is done.")] = False,
    mlflow: Annotated[str | None, typer.Option(help="URI of an MLflow store to track the run in.")] = None,
    config: Annotated[
        Path, typer.Option("--config", envvar="SHORTLIST_CONFIG", help="The YAML file that names the registry.")
    ] = Path("shortlist.yaml"),
) -> None:
    """Train an LLM to order a window with one token (FIRST); goes on where an interrupted run stopped."""
    from index.pipelines import load_pipelines
    from training.listwise.run import train_listwise
    from training.listwise.settings import ListwiseSettings
    from training.settings_file import load_settings
    from training.trained_model import RunPlace

    chosen = load_settings(ListwiseSettings, settings, change or (), ranking_loss=loss)
    place = RunPlace(
        name,
        datetime.now(UTC).strftime("%Y%m%d-%H%M%S"),
        models_dir=load_pipelines(config).models_dir,
        folder=folder or Path("var/training") / name,
        promote=promote,
        mlflow=mlflow,
    )
    with step_progress() as show:
        done = train_listwise(lists, dev or (), chosen, model=model, place=place, on_step=show)
    err.print(done)
