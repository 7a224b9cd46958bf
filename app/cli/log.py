"""`shortlist log`: the click log looked at, moved, and made to forget."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from app.cli.console import err, out

if TYPE_CHECKING:
    from app.settings import Settings
    from index.clicklog.store import SqlClickLog

cli = typer.Typer(help="Look at the click log, export and import it, delete from it.", no_args_is_help=True)

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="sqlite:///FILE or postgresql+psycopg://...; SHORTLIST_CLICK_LOG_URL or its default when not given.",
        show_default=False,
    ),
]
FolderArgument = Annotated[Path, typer.Argument(help="Has, or will have, impressions and events.")]


@cli.command()
def status(url: UrlOption = None) -> None:
    """Count what there is."""
    log, _ = _open(url)
    found = log.status()
    table = Table("records", "number")
    table.add_row("impressions", f"{found.impressions:,}")
    for kind, number in found.events.items():
        table.add_row(kind, f"{number:,}")
    table.add_row("events without an impression (yet)", f"{found.pending:,}")
    out.print(table)
    if found.oldest and found.newest:
        out.print(f"shown from {found.oldest:%Y-%m-%d %H:%M} to {found.newest:%Y-%m-%d %H:%M} UTC")


@cli.command("export")
def export_files(
    folder: FolderArgument,
    form: Annotated[Literal["parquet", "jsonl"], typer.Option("--format", help="Of the files.")] = "parquet",
    url: UrlOption = None,
) -> None:
    """Write impressions and events to two files."""
    from index.clicklog.interchange import export_log

    moved = export_log(_open(url)[0], folder, form)
    err.print(f"wrote {moved.impressions:,} impressions and {moved.events:,} events to {folder}")


@cli.command("import")
def import_files(folder: FolderArgument, url: UrlOption = None) -> None:
    """Read files that export wrote; records that are there already are skipped."""
    from index.clicklog.interchange import import_log

    moved = import_log(_open(url)[0], folder)
    err.print(f"added {moved.impressions:,} impressions and {moved.events:,} events")


@cli.command("delete-user")
def delete_user(
    user: Annotated[str, typer.Argument(help="The key that was sent with searches and impressions.")],
    is_hash: Annotated[bool, typer.Option("--hash", help="It is the hash, as in the log and its files.")] = False,
    url: UrlOption = None,
) -> None:
    """Delete the impressions of a user, and their events."""
    from rankers.events import hash_key

    log, settings = _open(url)
    salt = settings.click_log_salt.get_secret_value() if settings.click_log_salt else log.salt()
    deleted = log.delete_user(user if is_hash else hash_key(user, salt))
    err.print(f"deleted {deleted.impressions:,} impressions and {deleted.events:,} events")


@cli.command()
def expire(
    days: Annotated[float, typer.Argument(min=0, help="Age from which on records are deleted.")],
    url: UrlOption = None,
) -> None:
    """Delete impressions and events that are older."""
    deleted = _open(url)[0].delete_before(datetime.now(UTC) - timedelta(days=days))
    err.print(f"deleted {deleted.impressions:,} impressions and {deleted.events:,} events")


def _open(url: str | None) -> tuple[SqlClickLog, Settings]:
    from app.settings import Settings
    from index.clicklog.store import open_click_log

    settings = Settings()
    return open_click_log(url or settings.click_log_url), settings
