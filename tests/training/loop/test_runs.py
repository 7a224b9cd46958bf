"""Runs on disk: a step is done once, an interrupted run is gone on with, two processes do not run at once."""

import multiprocessing
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from rankers.errors import NotReadyError
from training.loop.runs import FINISHED, Run, Runs


def test_a_step_is_done_once_also_by_another_process(tmp_path: Path) -> None:
    calls: list[int] = []

    def work() -> dict[str, int]:
        calls.append(1)
        return {"sessions": 3}

    assert Run(tmp_path / "a").once("train", work) == {"sessions": 3}
    assert Run(tmp_path / "a").once("train", work) == {"sessions": 3}
    assert calls == [1]


def test_a_step_that_fails_leaves_nothing_and_is_done_again(tmp_path: Path) -> None:
    run = Run(tmp_path / "a")
    with pytest.raises(ZeroDivisionError):
        run.once("train", lambda: {"share": 1 // 0})
    assert Run(tmp_path / "a").steps == {}
    assert run.once("train", lambda: {"share": 1}) == {"share": 1}


def test_the_current_run_is_the_unfinished_one(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    first = runs.current()
    first.once("export", dict)
    assert runs.current().name == first.name
    first.once(FINISHED, dict)
    second = runs.current()
    assert second.name > first.name
    second.once("export", dict)
    assert [run.name for run in runs.all()] == [first.name, second.name]


def _hold(folder: Path, held: Event, release: Event) -> None:
    with Runs(folder).locked():
        held.set()
        release.wait(30)


def test_one_process_at_a_time_and_the_lock_goes_with_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, held, release))
    process.start()
    assert held.wait(60)
    with pytest.raises(NotReadyError, match=f"is being run by process {process.pid}"), Runs(tmp_path).locked():
        pass
    process.kill()
    process.join(10)
    with Runs(tmp_path).locked():
        pass
