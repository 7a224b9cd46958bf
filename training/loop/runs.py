"""A run of the loop as a folder: what it has done is on disk, so that another process can go on where one stopped."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rankers.errors import NotReadyError

STATE_FILE = "run.json"
LOCK_FILE = "LOCK"
FINISHED = "finished"


class Run:
    """One run. Each step is done once and leaves a JSON object; `run.json` has them all, replaced atomically.

    Parameters
    ----------
    folder
        Its own; made if missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / STATE_FILE
        self._steps: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}

    @property
    def name(self) -> str:
        """When it began, in UTC; also the version of the model it makes."""
        return self.folder.name

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return FINISHED in self._steps

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        """What the steps done so far have left."""
        return dict(self._steps)

    def once(self, step: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do a step, or give what it left when it was done before.

        Parameters
        ----------
        step
            Its name.
        work
            Does it; may be called again after a crash, so it must not mind its own remains.

        Returns
        -------
        dict
            What JSON keeps of it.
        """
        if step not in self._steps:
            self._steps[step] = work()
            staged = self.folder / f".{STATE_FILE}"
            with staged.open("w") as file:
                json.dump(self._steps, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            staged.replace(self.folder / STATE_FILE)
        return self._steps[step]


class Runs:
    """All runs of one model, and the lock that lets only one process run.

    Parameters
    ----------
    folder
        Made if missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out; the lock goes with the process, however it ends.

        Yields
        ------
        None
            While it is held.

        Raises
        ------
        NotReadyError
            If another process runs.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOCK_FILE).open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise NotReadyError(
                    f"the loop in {self.folder} is being run by process {file.read().strip() or 'unknown'}; wait for "
                    "its end"
                ) from error
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def all(self) -> list[Run]:
        """Every run, oldest first."""
        return [Run(path.parent) for path in sorted(self.folder.glob(f"*/{STATE_FILE}"))]

    def current(self) -> Run:
        """The run that was not finished, or a new one."""
        runs = self.all()
        if runs and not runs[-1].finished:
            return runs[-1]
        return Run(self.folder / datetime.now(UTC).strftime("%Y%m%dt%H%M%S%fz"))
