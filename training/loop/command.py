"""`shortlist loop`: learn from clicks and ship what is better, once or on a schedule; go back in one command."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from rankers.errors import ShortlistError

if TYPE_CHECKING:
    from training.loop.once import Outcome
    from training.loop.settings import LoopSettings

loop = typer.Typer(help="Learn from clicks and ship what is better.", no_args_is_help=True)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

SettingsFile = Annotated[
    Path, typer.Option("--settings", envvar="SHORTLIST_LOOP", help="The YAML file of the loop; see docs/loop.md.")
]
DEFAULT_FILE = Path("loop.yaml")


@loop.command()
def run(settings: SettingsFile = DEFAULT_FILE) -> None:
    """Go around once: export, train, evaluate, decide, promote; goes on with a turn that was interrupted.

    The exit status is 0 if the candidate was promoted, 3 if it was not.
    """
    from training.loop.settings import load_settings

    outcome = _turn(load_settings(settings))
    _print(outcome)
    if not outcome.decision.promoted:
        raise typer.Exit(3)


@loop.command()
def watch(
    settings: SettingsFile = DEFAULT_FILE,
    *,
    every_s: Annotated[float, typer.Option(min=1, help="Seconds from the end of a turn to the next.")] = 3600.0,
    new_events: Annotated[int, typer.Option(min=1, help="Turn only when so many events are new.")] = 100,
    looks: Annotated[int | None, typer.Option(min=1, help="Stop after so many looks.", show_default=False)] = None,
) -> None:
    """Go around whenever there is enough that is new; a turn that fails is reported and tried again next time."""
    from training.loop.once import Loop
    from training.loop.settings import load_settings

    for look in itertools.count(1):
        # A full disk or a file that is being edited must not end what runs for months.
        try:
            loaded = load_settings(settings)
            if Loop(loaded).new_events() >= new_events:
                _print(_turn(loaded))
        except Exception as error:  # noqa: BLE001
            said = str(error) if isinstance(error, ShortlistError) else f"{type(error).__name__}: {error}"
            err.print(f"this turn failed, the next will try again: {said}", markup=False)
        if look == looks:
            break
        time.sleep(every_s)


@loop.command()
def rollback(
    settings: SettingsFile = DEFAULT_FILE,
    *,
    why: Annotated[str, typer.Option(help="For the history.")] = "",
) -> None:
    """Serve again what was live before the last promotion; nothing, if that was the first."""
    from index.pipelines import load_pipelines
    from rankers.registry import ModelRegistry
    from training.loop.settings import load_settings

    loaded = load_settings(settings)
    pipelines = load_pipelines(loaded.config)
    version = ModelRegistry(pipelines.models_dir).rollback(loaded.model, why=why)
    pipelines.close()
    if version is None:
        out.print(f"{loaded.model} is out of service: its stages keep the order that comes in")
    else:
        out.print(f"{loaded.model}@{version} is live")


@loop.command()
def status(settings: SettingsFile = DEFAULT_FILE) -> None:
    """List the turns and what came of them."""
    from training.loop.runs import Runs
    from training.loop.settings import load_settings

    loaded = load_settings(settings)
    table = Table("turn", "sessions", "clicks", "decision", "why not")
    for each in Runs(loaded.work_dir / loaded.model).all():
        train, promoted = each.steps.get("train", {}), each.steps.get("promote")
        said = "not finished" if promoted is None else "promoted" if promoted["version"] else "refused"
        reasons = [*each.steps.get("decide", {}).get("reasons", ()), *(promoted or {}).get("reasons", ())]
        counts = [f"{train[name]:,}" if name in train else "" for name in ("sessions", "clicks")]
        table.add_row(each.name, *counts, said, "\n".join(reasons))
    out.print(table)


def _turn(settings: LoopSettings) -> Outcome:
    from training.loop.once import Loop

    with _progress() as on_progress:
        return Loop(settings, on_progress=on_progress).turn()


def _print(outcome: Outcome) -> None:
    table = Table("check", "found", "needed", "")
    for check in outcome.decision.checks:
        table.add_row(check.name, check.found, check.needed, "holds" if check.holds else "[red]does not hold")
    out.print(table)
    if outcome.decision.promoted:
        out.print(f"promoted: {outcome.live} is live; the service swaps to it by itself")
    else:
        out.print(f"not promoted, {outcome.live or 'nothing'} stays live")
    out.print(f"report: {outcome.report}")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    with err.status("starting") as shown:

        def tell(what: str, done: int, total: int) -> None:
            shown.update(f"{what} {done}/{total}" if total else what)

        yield tell
