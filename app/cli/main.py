"""The command's entry point: its own sub-commands and those other packages add."""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points

import typer

from app.cli import demo, demo_loop, documents, log, models, rank, serve
from app.cli.console import err
from rankers.errors import ShortlistError

PLUGIN_GROUP = "shortlist.commands"


def build_cli() -> typer.Typer:
    """Assemble the command; packages add sub-commands through the entry-point group ``shortlist.commands``."""
    cli = typer.Typer(
        name="shortlist",
        help="Retrieve, rerank with an LLM in one token, evaluate, and learn from clicks.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    cli.command("init")(serve.init)
    cli.command("serve")(serve.serve)
    cli.add_typer(documents.cli, name="index")
    cli.command("search")(rank.search)
    cli.command("rerank")(rank.rerank)
    cli.add_typer(models.cli, name="models")
    cli.add_typer(log.cli, name="log")
    cli.command("demo")(demo.demo)
    cli.command("demo-loop")(demo_loop.demo_loop)
    for plugin in sorted(entry_points(group=PLUGIN_GROUP), key=lambda plugin: plugin.name):
        loaded = plugin.load()
        if isinstance(loaded, typer.Typer):
            cli.add_typer(loaded, name=plugin.name)
        else:
            cli.command(plugin.name)(loaded)
    return cli


def main() -> None:
    """Run the command; an error raised on purpose becomes one line and exit status 2."""
    # transformers draws a bar for each model it loads; ours say what is going on.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        build_cli()()
    except ShortlistError as error:
        err.print(f"[bold red]error:[/] {error}", markup=True, soft_wrap=True)
        sys.exit(2)
