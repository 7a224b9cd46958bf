"""`shortlist train cross-encoder`: from training lists to a cross-encoder in the registry."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from training.progress import err, step_progress


def cross_encoder(
    lists: Annotated[list[Path], typer.Argument(help="Training lists; see: shortlist data lists.")],
    *,
    name: Annotated[str, typer.Option(help="What the registry is to call the model.")] = "cross-encoder",
    dev: Annotated[
        list[Path] | None,
        typer.Option(help="Held-out lists; without them some of LISTS are held out.", show_default=False),
    ] = None,
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
    """Train a cross-encoder; goes on where an interrupted run stopped."""
    from index.pipelines import load_pipelines
    from training.cross_encoder.run import train_cross_encoder
    from training.cross_encoder.settings import CrossEncoderSettings
    from training.settings_file import load_settings
    from training.trained_model import RunPlace

    chosen = load_settings(
        CrossEncoderSettings,
        settings,
        change or (),
        loss=loss,
        rank_regularisation=rank_regularisation,
        curriculum=curriculum,
    )
    place = RunPlace(
        name,
        datetime.now(UTC).strftime("%Y%m%d-%H%M%S"),
        models_dir=load_pipelines(config).models_dir,
        folder=folder or Path("var/training") / name,
        promote=promote,
        mlflow=mlflow,
    )
    with step_progress() as show:
        done = train_cross_encoder(lists, dev or (), chosen, model=model, place=place, on_step=show)
    err.print(done)
