"""What every sub-command shares: the two consoles, the configuration option, and how a result is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rankers.pipeline import StageResult
from rankers.types import Ranking

out = Console(highlight=False)
"""Results: standard output."""
err = Console(stderr=True, highlight=False)
"""Progress and errors: standard error, so that results can be piped."""

ConfigOption = Annotated[
    Path, typer.Option("--config", envvar="SHORTLIST_CONFIG", help="The YAML file that names the pipelines.")
]
IndexOption = Annotated[
    Path | None, typer.Option("--index", help="An index directory instead of the configured one.", show_default=False)
]
PipelineOption = Annotated[
    str | None,
    typer.Option("--pipeline", "-p", help="A pipeline of the configuration; its default if not given."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DEFAULT_CONFIG = Path("shortlist.yaml")


def progress_line(phase: str, done: int, total: int) -> None:
    """Show how far a long step is, on one line that is overwritten."""
    if err.is_terminal:
        err.print(f"{phase}: {done:,}/{total:,}", end="\r" if done < total else "\n")
    elif done == total:
        err.print(f"{phase}: {total:,}")


def ranking_table(ranking: Ranking, stages: tuple[StageResult, ...], *, k: int) -> Table:
    """Draw the first `k` places, where each document came from, and the time per stage and how far its orders agree."""
    before = stages[0].ranking if len(stages) > 1 else ranking.previous
    came_from = {item.document.id: item for item in before.items} if before is not None else {}
    table = Table(
        expand=True,
        title=f"{ranking.query.text}",
        title_justify="left",
        caption=" · ".join(map(_caption, stages)),
        caption_justify="left",
    )
    table.add_column("#", justify="right")
    table.add_column("was", justify="right", no_wrap=True, style="dim")
    table.add_column("score", justify="right")
    table.add_column("document", min_width=14, max_width=24, no_wrap=True, style="bold")
    table.add_column("text", ratio=1, no_wrap=True, overflow="ellipsis")
    for item in ranking.items[:k]:
        was = came_from.get(item.document.id)
        table.add_row(
            str(item.rank),
            _movement(was.rank if was else None, item.rank),
            f"{item.score:.3f}",
            item.document.title or item.document.id,
            " ".join(item.document.text.split()),
        )
    return table


def _movement(was: int | None, rank: int) -> str:
    if was is None:
        return ""
    arrow = "↑" if was > rank else "↓" if was < rank else " "
    return f"{was} {arrow}"


def _caption(stage: StageResult) -> str:
    tau = stage.ranking.evidence.order_consistency
    agree = "" if tau is None else f", order consistency {tau:.2f}"
    return f"{stage.name} {stage.seconds * 1000:,.1f} ms{agree}"
