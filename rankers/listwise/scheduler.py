"""One queue of windows for all that use a model: what is ready, of any query and strategy, shares a pass."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rankers.errors import InvalidInputError
from rankers.listwise.labels import LabelSet
from rankers.listwise.windows import Reader, Window, WindowOutcome, unread
from rankers.protocols import TokenIds


class Run(Protocol):
    """One query on its way through a strategy."""

    @property
    def reader(self) -> Reader:
        """How its windows are read."""
        ...

    @property
    def labels(self) -> LabelSet:
        """What its prompts call the candidates."""
        ...

    @property
    def windows(self) -> Sequence[Window]:
        """Windows that can be read now; none when it is finished."""
        ...

    def prompt(self, window: Window) -> TokenIds:
        """Show the candidates of a window."""
        ...

    def advance(self, outcomes: Sequence[WindowOutcome]) -> None:
        """Take the outcomes of all current windows and move to the next ones, or to the end."""
        ...


@dataclass(slots=True, eq=False)
class _Job:
    """A run, the outcomes of its current windows so far, and the error that ended it."""

    run: Run
    outcomes: dict[int, WindowOutcome] = field(default_factory=dict)
    error: Exception | None = None

    @property
    def finished(self) -> bool:
        return self.error is not None or not self.run.windows

    def take(self, place: int, outcome: WindowOutcome) -> bool:
        """Keep an outcome; whether that completed the current windows, so that there are new ones."""
        self.outcomes[place] = outcome
        if len(self.outcomes) < len(self.run.windows):
            return False
        outcomes = [self.outcomes[i] for i in range(len(self.outcomes))]
        self.outcomes = {}
        try:
            self.run.advance(outcomes)
        except Exception as error:  # noqa: BLE001  a fault of one strategy ends one run
            self.error = error
        return not self.finished


@dataclass(slots=True, eq=False)
class _Task:
    """A window that waits to be read."""

    job: _Job
    place: int
    window: Window
    prompt: TokenIds


class Scheduler:
    """Reads the windows of many runs in batches bounded by tokens; threads that call it at the same time share them.

    Whichever caller gets to it reads the next batch, oldest windows first, for everybody: a run that comes while
    another is under way joins at the next batch, and prompts are held for one batch and no more. The model is never
    called by two threads at once.

    A window that fails is read once more, together with the others of its batch that did; what the rest gave is kept.
    Where a batch fails and nothing says which of its windows it was, each is read once more, alone. A window that fails
    again keeps the order of its candidates, and its outcome says why.

    Parameters
    ----------
    max_batch_tokens
        Bound on the prompt tokens of a batch; a window above it is read alone.
    """

    def __init__(self, *, max_batch_tokens: int = 8192) -> None:
        self._max_batch_tokens = max_batch_tokens
        self._waiting: list[tuple[_Job, int]] = []
        self._changing = threading.Lock()
        self._reading = threading.Lock()

    @property
    def waiting_windows(self) -> int:
        """Windows that are ready and not being read."""
        with self._changing:
            return len(self._waiting)

    def finish(self, runs: Sequence[Run]) -> None:
        """Take runs to their end.

        Parameters
        ----------
        runs
            Each at its first windows.

        Raises
        ------
        InvalidInputError
            If a prompt of one of them cannot be built or read.
        WorkerError
            If a strategy fails.
        """
        jobs = [_Job(run) for run in runs]
        try:
            self._add(jobs)
            while not all(job.finished for job in jobs):
                with self._reading:
                    if not all(job.finished for job in jobs):
                        self._read_next()
        finally:
            mine = set(map(id, jobs))
            with self._changing:
                self._waiting = [(job, place) for job, place in self._waiting if id(job) not in mine]
        for job in jobs:
            if job.error is not None:
                raise job.error

    def _add(self, jobs: Iterable[_Job]) -> None:
        with self._changing:
            self._waiting.extend((job, place) for job in jobs for place in range(len(job.run.windows)))

    def _next_batch(self) -> list[_Task]:
        """Take the oldest window and all it can share a batch with."""
        batch: list[_Task] = []
        tokens = 0
        with self._changing:
            waiting, self._waiting = self._waiting, []
        left: list[tuple[_Job, int]] = []
        for at, (job, place) in enumerate(waiting):
            if job.finished:
                continue
            if batch and not _alike(job.run, batch[0].job.run):
                left.append((job, place))
                continue
            task = self._task(job, place)
            if task is None:
                continue
            if batch and tokens + len(task.prompt) > self._max_batch_tokens:
                left.extend(waiting[at:])
                break
            batch.append(task)
            tokens += len(task.prompt)
        with self._changing:
            self._waiting = left + self._waiting
        return batch

    def _task(self, job: _Job, place: int) -> _Task | None:
        window = job.run.windows[place]
        try:
            return _Task(job, place, window, job.run.prompt(window))
        except InvalidInputError as error:
            job.error = error
            return None

    def _read_next(self) -> None:
        batch = self._next_batch()
        if not batch:
            return
        try:
            outcomes = self._read(batch)
        except BaseException:
            # Whoever reads next goes on with the windows of the other callers.
            with self._changing:
                self._waiting = [(task.job, task.place) for task in batch] + self._waiting
            raise
        for task, outcome in zip(batch, outcomes, strict=True):
            if not task.job.finished and outcome is not None and task.job.take(task.place, outcome):
                self._add([task.job])

    def _read(self, batch: Sequence[_Task]) -> list[WindowOutcome | None]:
        """Read windows, those that fail twice; None for one whose run has ended with an error."""
        try:
            outcomes = self._ask(batch)
        except Exception:  # noqa: BLE001  whatever a model raises, it is asked again window by window
            return [self._ask_alone(task) for task in batch]
        failed = [i for i, outcome in enumerate(outcomes) if outcome.failure]
        again = dict(zip(failed, self._ask_again([batch[i] for i in failed]), strict=True))
        return [again.get(i, outcome) for i, outcome in enumerate(outcomes)]

    def _ask_again(self, failed: Sequence[_Task]) -> list[WindowOutcome]:
        try:
            return self._ask(failed) if failed else []
        except Exception as error:  # noqa: BLE001  see above
            return [unread(task.window, error) for task in failed]

    def _ask(self, batch: Sequence[_Task]) -> list[WindowOutcome]:
        run = batch[0].job.run
        return list(
            run.reader.read([task.prompt for task in batch], [task.window for task in batch], labels=run.labels)
        )

    def _ask_alone(self, task: _Task) -> WindowOutcome | None:
        try:
            return self._ask([task])[0]
        except InvalidInputError as error:
            task.job.error = error
            return None
        except Exception as error:  # noqa: BLE001  see above
            return unread(task.window, error)


def _alike(one: Run, other: Run) -> bool:
    return one.reader == other.reader and one.labels == other.labels
