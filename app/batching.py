"""A bounded queue in front of threads that run what is alike together."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from rankers.errors import NotReadyError, OverloadedError, ShortlistError, WorkerError

Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)

RATE_MEMORY = 0.7
"""Weight of the past in the moving average of the drain rate."""
MIN_RETRY_S, MAX_RETRY_S = 1.0, 60.0
SHUTTING_DOWN = "the service is shutting down; send the request again later"


@dataclass(frozen=True, slots=True)
class Done(Generic[Result]):
    """What became of one item, how long it waited, and how long the batch it was part of ran."""

    result: Result
    queue_s: float
    run_s: float


@dataclass(frozen=True, slots=True)
class BatchReport:
    """A batch that has run, for metrics."""

    worker: str
    items: int
    tokens: int
    seconds: float


@dataclass(slots=True, eq=False)
class _Job(Generic[Item, Result]):
    key: Hashable
    item: Item
    cost_tokens: int
    joins: Hashable | None
    enqueued_at: float = field(default_factory=time.monotonic)
    future: Future[Done[Result]] = field(default_factory=Future)


class Batcher(Generic[Item, Result]):
    """Runs items in batches on threads of its own; callers on any event loop, or none, wait for futures.

    The job that has waited longest decides the next batch: every waiting job with the same key joins it, oldest first,
    up to the token budget. So nothing starves. One batch runs at a time, but for work that merges by itself with what
    is under way (`joins` of `submit`): that starts at once, on another thread.

    Cancelling a future takes its job out of the queue. A batch that fails is run again item by item, so that one bad
    item does not fail its neighbours.

    Parameters
    ----------
    name
        Names the work in messages and metrics.
    run
        Called with items of one key; gives one result per item.
    max_batch_tokens
        Budget of one batch; an item above it runs alone.
    max_queue_tokens
        Bound on what is waiting and running; an item above it is admitted only when there is nothing else.
    max_wait_s
        Longest the oldest job waits for others to join it.
    max_threads
        Most batches that run at a time.
    on_batch
        Told about every batch that has run.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        max_batch_tokens: int,
        max_queue_tokens: int,
        max_wait_s: float = 0.0,
        max_threads: int = 1,
        on_batch: Callable[[BatchReport], None] | None = None,
    ) -> None:
        self.name = name
        self._run = run
        self._max_batch_tokens = max_batch_tokens
        self._max_queue_tokens = max_queue_tokens
        self._max_wait_s = max_wait_s
        self._max_threads = max_threads
        self._on_batch = on_batch
        self._changed = threading.Condition(threading.Lock())
        self._waiting: deque[_Job[Item, Result]] = deque()
        self._running: list[list[_Job[Item, Result]]] = []
        self._admitted_tokens = 0
        self._tokens_per_s: float | None = None
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closed = False

    @property
    def admitted_tokens(self) -> int:
        """Tokens waiting and running."""
        return self._admitted_tokens

    def submit(
        self, key: Hashable, item: Item, *, cost_tokens: int, joins: Hashable | None = None
    ) -> Future[Done[Result]]:
        """Queue an item, or refuse it at once.

        Parameters
        ----------
        key
            Items with equal keys can run together.
        item
            What `run` is to be called with.
        cost_tokens
            Its share of the budgets.
        joins
            Batches with equal `joins` may run at the same time; None to run alone.

        Returns
        -------
        Future
            Fails with a `ShortlistError`, a `WorkerError` for anything unforeseen.

        Raises
        ------
        OverloadedError
            If the queue is full.
        NotReadyError
            If the batcher is closed.
        """
        job: _Job[Item, Result] = _Job(key, item, max(cost_tokens, 1), joins)
        with self._changed:
            self._admit(job.cost_tokens)
            self._waiting.append(job)
            if not self._idle and len(self._threads) < self._max_threads:
                self._threads.append(threading.Thread(target=self._work, name=f"shortlist {self.name}", daemon=True))
                self._threads[-1].start()
            self._changed.notify_all()
        job.future.add_done_callback(lambda _: self._release(job))
        return job.future

    def refuse_if_full(self) -> None:
        """Raise what `submit` would raise for the smallest item; for work that comes here only later."""
        with self._changed:
            self._admit(1)
            self._admitted_tokens -= 1

    def close(self, *, timeout_s: float = 5.0) -> None:
        """Fail what is waiting, give what is running some time, then fail that too; nothing is left hanging.

        Parameters
        ----------
        timeout_s
            Time for the running batch.
        """
        with self._changed:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
            self._changed.notify_all()
        error = NotReadyError(SHUTTING_DOWN)
        self._fail(waiting, error)
        ends_at = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(ends_at - time.monotonic(), 0.0))
        with self._changed:
            running = [job for batch in self._running for job in batch]
        self._fail(running, error)

    def _admit(self, cost_tokens: int) -> None:
        """Count the tokens in, under the lock."""
        if self._closed:
            raise NotReadyError(SHUTTING_DOWN)
        excess = self._admitted_tokens + cost_tokens - self._max_queue_tokens
        if excess > 0 and self._admitted_tokens:
            seconds = excess / self._tokens_per_s if self._tokens_per_s else MIN_RETRY_S
            raise OverloadedError(
                f"the queue for {self.name} holds {self._admitted_tokens} tokens of work, this request needs "
                f"{cost_tokens}, the limit is {self._max_queue_tokens}; try again later",
                retry_after_s=min(max(seconds, MIN_RETRY_S), MAX_RETRY_S),
            )
        self._admitted_tokens += cost_tokens

    def _release(self, job: _Job[Item, Result]) -> None:
        with self._changed:
            self._admitted_tokens -= job.cost_tokens
            if job.future.cancelled() and job in self._waiting:
                self._waiting.remove(job)
                self._changed.notify_all()

    def _work(self) -> None:
        while batch := self._next_batch():
            try:
                self._run_batch(batch)
            except BaseException as error:
                logger.critical("%s was interrupted", self.name, exc_info=error)
                self._fail(batch, WorkerError(f"{self.name} was interrupted by {type(error).__name__}"))
            with self._changed:
                self._running = [other for other in self._running if other is not batch]
                self._changed.notify_all()

    def _next_batch(self) -> list[_Job[Item, Result]]:
        """Wait for work; an empty list means the batcher is closed."""
        with self._changed:
            while not self._closed:
                if not self._waiting or not self._may_start(self._waiting[0]):
                    self._rest()
                    continue
                oldest = self._waiting[0]
                wait_s = oldest.enqueued_at + self._max_wait_s - time.monotonic()
                if wait_s > 0 and self._tokens_waiting(oldest.key) < self._max_batch_tokens:
                    self._rest(wait_s)
                elif batch := self._take(oldest.key):
                    self._running.append(batch)
                    return batch
            return []

    def _rest(self, timeout_s: float | None = None) -> None:
        self._idle += 1
        self._changed.wait(timeout_s)
        self._idle -= 1

    def _may_start(self, job: _Job[Item, Result]) -> bool:
        return all(job.joins is not None and other.joins == job.joins for batch in self._running for other in batch)

    def _tokens_waiting(self, key: Hashable) -> int:
        return sum(job.cost_tokens for job in self._waiting if job.key == key)

    def _take(self, key: Hashable) -> list[_Job[Item, Result]]:
        batch: list[_Job[Item, Result]] = []
        left: deque[_Job[Item, Result]] = deque()
        tokens, full = 0, False
        for job in self._waiting:
            if job.key == key and not full:
                full = bool(batch) and tokens + job.cost_tokens > self._max_batch_tokens
                if not full:
                    if job.future.set_running_or_notify_cancel():
                        batch.append(job)
                        tokens += job.cost_tokens
                    continue
            left.append(job)
        self._waiting = left
        return batch

    def _run_batch(self, batch: Sequence[_Job[Item, Result]]) -> None:
        started = time.monotonic()
        try:
            results = self._run([job.item for job in batch])
            if len(results) != len(batch):
                raise WorkerError(f"{self.name} gave {len(results)} results for {len(batch)} items")
        except Exception as error:  # noqa: BLE001 - the edge: whatever a model raises has to reach those who wait
            if len(batch) > 1:
                logger.warning("%s failed for a batch of %d, trying one by one", self.name, len(batch))
                for job in batch:
                    self._run_batch([job])
            else:
                _settle(batch[0].future, error=self._as_shortlist_error(error))
            return
        seconds = time.monotonic() - started
        self._report(batch, seconds)
        for job, result in zip(batch, results, strict=True):
            _settle(job.future, result=Done(result, started - job.enqueued_at, seconds))

    def _as_shortlist_error(self, error: Exception) -> ShortlistError:
        if isinstance(error, ShortlistError):
            return error
        logger.error("%s failed", self.name, exc_info=error)
        wrapped = WorkerError(f"{self.name} failed with {type(error).__name__}; the service's log has the details")
        wrapped.__cause__ = error
        return wrapped

    def _report(self, batch: Sequence[_Job[Item, Result]], seconds: float) -> None:
        tokens = sum(job.cost_tokens for job in batch)
        rate = tokens / max(seconds, 1e-6)
        past = self._tokens_per_s
        self._tokens_per_s = rate if past is None else RATE_MEMORY * past + (1 - RATE_MEMORY) * rate
        if self._on_batch is not None:
            self._on_batch(BatchReport(self.name, len(batch), tokens, seconds))

    def _fail(self, jobs: Sequence[_Job[Item, Result]], error: ShortlistError) -> None:
        for job in jobs:
            _settle(job.future, error=error)


def _settle(
    future: Future[Done[Result]], *, result: Done[Result] | None = None, error: Exception | None = None
) -> None:
    """Set a result or an error; a future that was settled or cancelled meanwhile stays as it is."""
    try:
        if error is not None:
            future.set_exception(error)
        elif result is not None:
            future.set_result(result)
    except InvalidStateError:
        logger.debug("nobody waits any more for what just finished")
