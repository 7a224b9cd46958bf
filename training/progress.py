"""Progress of a training run on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

err = Console(stderr=True, highlight=False)


@contextmanager
def step_progress() -> Iterator[Callable[[int, int, Mapping[str, float]], None]]:
    """Show steps, the loss and the dev measure; what it gives is a `training.trainer_run.OnStep`.

    Of several processes the first one shows them.
    """
    from training.dev_lists import MEASURE
    from training.processes import is_first_process

    columns = (
        TextColumn("step"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=err, disable=not is_first_process()) as bar:
        task = bar.add_task("", total=None)

        def show(step: int, steps: int, measures: Mapping[str, float]) -> None:
            bar.update(task, completed=step, total=steps or None)
            if "loss" in measures:
                bar.update(task, description=f"loss {measures['loss']:.3f}")
            if MEASURE in measures:
                bar.console.print(f"step {step}: dev nDCG@10 {measures[MEASURE]:.4f}")

        yield show


def report(done: object) -> None:
    """Say what a run has come to; of several processes the first one does."""
    from training.processes import is_first_process

    if is_first_process():
        err.print(str(done), soft_wrap=True)
