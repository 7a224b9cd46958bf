"""Options that the sub-commands of `shortlist train` share."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from training.trained_model import RunPlace

DEFAULT_CONFIG = Path("shortlist.yaml")

ListsArgument = Annotated[list[Path], typer.Argument(help="Training lists; see: shortlist data lists.")]
NameOption = Annotated[str, typer.Option(help="What the registry is to call the model.")]
DevOption = Annotated[
    list[Path] | None,
    typer.Option(help="Held-out lists; without them some of LISTS are held out.", show_default=False),
]
SettingsOption = Annotated[
    Path | None, typer.Option("--settings", help="YAML file of settings; see docs/training.md.", show_default=False)
]
ChangeOption = Annotated[list[str] | None, typer.Option("--set", help="One setting, as in --set steps=200.")]
FolderOption = Annotated[Path | None, typer.Option(help="Where checkpoints go.", show_default="var/training/NAME")]
PromoteOption = Annotated[bool, typer.Option("--promote", help="Make the model live when it is done.")]
MlflowOption = Annotated[str | None, typer.Option(help="URI of an MLflow store to track the run in.")]
ConfigOption = Annotated[
    Path, typer.Option("--config", envvar="SHORTLIST_CONFIG", help="The YAML file that names the registry.")
]


def run_place(name: str, *, folder: Path | None, promote: bool, mlflow: str | None, config: Path) -> RunPlace:
    """Say what a run that begins now is called and where its parts go."""
    from index.pipelines import load_pipelines
    from training.trained_model import RunPlace

    return RunPlace(
        name,
        datetime.now(UTC).strftime("%Y%m%d-%H%M%S"),
        models_dir=load_pipelines(config).models_dir,
        folder=folder or Path("var/training") / name,
        promote=promote,
        mlflow=mlflow,
    )
