"""Pipelines for many clients at once: admission, batching across requests, deadlines, and failing stages.

Ranking and retrieval have one `Batcher` each. Rankers take turns on purpose: two of them may use one model, a model
takes one caller at a time, and they would compete for the same processor anyway. Only listwise rankers of one model run
at the same time: their windows meet in one scheduler, so a request joins those under way and does not wait for their
end. Rankers that compute numbers in milliseconds take turns among themselves, and wait for no language model.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

from app.batching import Batcher, BatchReport, Done
from rankers.errors import DeadlineError, InvalidInputError, NotReadyError, ShortlistError, WorkerError
from rankers.listwise.permutation import Repair
from rankers.pipeline import RETRIEVE, Pipeline, PipelineResult, Stage, StageResult
from rankers.protocols import CheapRanker, Ranker, Retriever, joins_of
from rankers.types import Query, Ranking, Reading

T = TypeVar("T")

logger = logging.getLogger(__name__)

JOINED_BATCHES = 16
"""Most batches of requests whose windows are merged."""
RETRIEVAL_COST_TOKENS = 64
"""What one retrieval counts for: about the length of a query, the only text that is read."""


@dataclass(frozen=True, slots=True)
class EngineResult:
    """The ranking of one query and how it came about.

    `stages` has the steps that were completed, `queue_s` and `inference_s` are summed over them; `partial` says that
    the caller's deadline cut later ones off, `degraded_reason` which ones failed. `arms` has, for an interleaved
    ranking, the name of the pipeline that each place came from, or nothing where that would say nothing; it is empty
    where one arm is shown alone because the other one failed, which `notes` says and nothing else does.
    """

    ranking: Ranking
    stages: tuple[StageResult, ...]
    partial: bool
    degraded_reason: str | None
    queue_s: float
    inference_s: float
    arms: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens all stages read."""
        return sum(stage.ranking.evidence.tokens for stage in self.stages)

    @property
    def generated_tokens(self) -> int:
        """Tokens all stages wrote."""
        return sum(stage.ranking.evidence.generated_tokens for stage in self.stages)

    @property
    def feature_set(self) -> str:
        """What the features of `features` are, ``name@version``: those of the last stage that made any."""
        made = (stage.ranking.evidence.feature_set for stage in reversed(self.stages))
        return next((feature_set for feature_set in made if feature_set), "")

    @property
    def features(self) -> Mapping[str, Mapping[str, float | None]]:
        """What the learned ranker saw of the documents of the ranking; missing below its depth.

        For an interleaved ranking, what was seen by the ranker of the arm that a document came from, if there is one.
        """
        made = [
            (stage.name, stage.ranking.evidence.features)
            for stage in self.stages
            if self.feature_set and stage.ranking.evidence.feature_set == self.feature_set
        ]
        found: dict[str, Mapping[str, float | None]] = {}
        for at, document_id in enumerate(self.ranking.ids):
            own = f"{self.arms[at]}/" if self.arms else ""
            for _, features in sorted(made, key=lambda one: one[0].startswith(own)):
                if document_id in features:
                    found[document_id] = features[document_id]
        return found

    @property
    def warnings(self) -> list[str]:
        """What stages note, and parts of them that gave nothing while the rest of the stage did its work."""
        of_stages = (note for stage in self.stages for note in stage.ranking.evidence.notes)
        found = list(dict.fromkeys((*self.notes, *of_stages)))
        for stage in self.stages:
            windows = stage.ranking.evidence.windows
            unread = [window.failure for window in windows if window.failure]
            if unread:
                found.append(
                    f"{len(unread)} of {len(windows)} windows of stage {stage.name!r} could not be read and kept their "
                    f"order: {unread[0]}"
                )
            unanswered = stage.ranking.evidence.repairs.get(Repair.NO_ANSWER, 0)
            if unanswered:
                found.append(
                    f"{unanswered} of {len(windows)} windows of stage {stage.name!r} got no usable answer and kept "
                    "their order"
                )
        return found

    @property
    def readings(self) -> Mapping[str, Reading]:
        """How much of each document was read, by the last stage that read it."""
        merged: dict[str, Reading] = {}
        for stage in self.stages:
            merged |= stage.ranking.evidence.readings
        return merged


@dataclass(frozen=True, slots=True)
class _Retrieval:
    retriever: Retriever
    query: Query
    k: int


@dataclass(frozen=True, slots=True)
class _Reordering:
    ranker: Ranker
    ranking: Ranking


@dataclass(slots=True)
class _Progress:
    """A request under way."""

    ends_at: float
    allowed_s: float
    partial_is_fine: bool
    stages: list[StageResult] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    queue_s: float = 0.0
    partial: bool = False

    def record(self, name: str, ranking: Ranking, done: Done[Ranking]) -> Ranking:
        """Note a completed step."""
        self.stages.append(StageResult(name, ranking, done.run_s))
        self.queue_s += done.queue_s
        return ranking

    def result(self, ranking: Ranking) -> EngineResult:
        """Close the books."""
        return EngineResult(
            ranking=ranking,
            stages=tuple(self.stages),
            partial=self.partial,
            degraded_reason="; ".join(self.failures) or None,
            queue_s=self.queue_s,
            inference_s=sum(stage.seconds for stage in self.stages),
        )


class Engine:
    """Runs pipelines; its methods may be awaited on any event loop.

    A step that fails with a `WorkerError` is left out: the order that came in is kept and the result says so. Errors
    about the input reach the caller, and so does a failed retrieval, for then there is no order to keep.

    Parameters
    ----------
    max_batch_tokens
        Work of several requests that runs together.
    max_queue_tokens
        Work admitted at a time, for retrieval, ranking and cheap ranking each.
    max_batch_wait_s
        Longest a request waits for others to share its batch.
    timeout_s
        Longest a request may take.
    on_batch
        Told about every batch that has run.
    """

    def __init__(
        self,
        *,
        max_batch_tokens: int = 8192,
        max_queue_tokens: int = 65_536,
        max_batch_wait_s: float = 0.002,
        timeout_s: float = 60.0,
        on_batch: Callable[[BatchReport], None] | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._retrieval: Batcher[_Retrieval, Ranking] = Batcher(
            "retrieval",
            _retrieve,
            max_batch_tokens=max_batch_tokens,
            max_queue_tokens=max_queue_tokens,
            max_wait_s=max_batch_wait_s,
            on_batch=on_batch,
        )
        self._ranking: Batcher[_Reordering, Ranking] = Batcher(
            "ranking",
            _rank,
            max_batch_tokens=max_batch_tokens,
            max_queue_tokens=max_queue_tokens,
            max_wait_s=max_batch_wait_s,
            max_threads=JOINED_BATCHES,
            on_batch=on_batch,
        )
        self._cheap_ranking: Batcher[_Reordering, Ranking] = Batcher(
            "cheap ranking",
            _rank,
            max_batch_tokens=max_batch_tokens,
            max_queue_tokens=max_queue_tokens,
            on_batch=on_batch,
        )

    @property
    def queue_tokens(self) -> Mapping[str, int]:
        """Tokens of work admitted and not finished, by kind of work."""
        workers = (self._retrieval, self._ranking, self._cheap_ranking)
        return {worker.name: worker.admitted_tokens for worker in workers}

    async def search(
        self, pipeline: Pipeline, query: Query, k: int, *, deadline_s: float | None = None
    ) -> EngineResult:
        """Retrieve, then apply every stage.

        Parameters
        ----------
        pipeline
            It has a retriever.
        query
            What was asked.
        k
            Places wanted, at least 1.
        deadline_s
            Time after which the best order so far is good enough.

        Returns
        -------
        EngineResult
            At most `k` places.

        Raises
        ------
        InvalidInputError
            If `k` is under 1 or the pipeline has no retriever.
        OverloadedError
            If a queue is full.
        DeadlineError
            If time is up, and there is no deadline or nothing was found by then.
        WorkerError
            If retrieval fails.
        """
        if k < 1:
            raise InvalidInputError(f"k is {k}, must be at least 1", field="k")
        if pipeline.arms:
            outcomes = await _both(self.search(arm, query, k, deadline_s=deadline_s) for arm in pipeline.arms)
            return _of_arms(pipeline, outcomes, k)
        if pipeline.retriever is None:
            raise InvalidInputError(f"pipeline {pipeline.name!r} has no retriever; it can only rerank", field="model")
        for stage in pipeline.stages:
            self._worker(stage).refuse_if_full()
        progress = self._start(deadline_s)
        depth = pipeline.retrieval_depth(k)
        future = self._retrieval.submit(
            (id(pipeline.retriever), depth),
            _Retrieval(pipeline.retriever, query, depth),
            cost_tokens=RETRIEVAL_COST_TOKENS,
        )
        done = await _wait(future, progress)
        ranking = progress.record(RETRIEVE, done.result, done)
        ranking = await self._apply_stages(pipeline, ranking, progress)
        return progress.result(ranking.top(k))

    async def rerank(self, pipeline: Pipeline, ranking: Ranking, *, deadline_s: float | None = None) -> EngineResult:
        """Apply every stage to a ranking made elsewhere.

        Parameters
        ----------
        pipeline
            It has at least one stage.
        ranking
            Candidates in the order they came.
        deadline_s
            Time after which the best order so far is good enough.

        Returns
        -------
        EngineResult
            All candidates; in the order they came where no stage could be completed.

        Raises
        ------
        InvalidInputError
            If the pipeline has no stage.
        OverloadedError
            If the queue is full.
        DeadlineError
            If time is up and there is no deadline.
        """
        if pipeline.arms:
            outcomes = await _both(self.rerank(arm, ranking, deadline_s=deadline_s) for arm in pipeline.arms)
            return _of_arms(pipeline, outcomes, len(ranking))
        if not pipeline.stages:
            raise InvalidInputError(f"pipeline {pipeline.name!r} has no stages, so it cannot rerank", field="model")
        progress = self._start(deadline_s)
        return progress.result(await self._apply_stages(pipeline, ranking, progress))

    def close(self, *, timeout_s: float = 5.0) -> None:
        """Stop; whoever still waits gets an error."""
        self._retrieval.close(timeout_s=timeout_s)
        self._ranking.close(timeout_s=timeout_s)
        self._cheap_ranking.close(timeout_s=timeout_s)

    def _worker(self, stage: Stage) -> Batcher[_Reordering, Ranking]:
        """Say whose turn a stage waits for."""
        is_cheap = isinstance(stage.ranker, CheapRanker) and stage.ranker.is_cheap
        return self._cheap_ranking if is_cheap else self._ranking

    def _start(self, deadline_s: float | None) -> _Progress:
        allowed_s = self._timeout_s if deadline_s is None else min(deadline_s, self._timeout_s)
        return _Progress(time.monotonic() + allowed_s, allowed_s, partial_is_fine=deadline_s is not None)

    async def _apply_stages(self, pipeline: Pipeline, ranking: Ranking, progress: _Progress) -> Ranking:
        for stage in pipeline.stages if len(ranking) else ():
            try:
                ranking = await self._apply(stage, ranking, progress)
            except DeadlineError:
                if not progress.partial_is_fine:
                    raise
                progress.partial = True
                break
            except WorkerError as error:
                logger.warning("stage %r of pipeline %r failed: %s", stage.name, pipeline.name, error)
                progress.failures.append(f"stage {stage.name!r} failed, the order before it was kept: {error}")
        return ranking

    async def _apply(self, stage: Stage, ranking: Ranking, progress: _Progress) -> Ranking:
        head = stage.head(ranking)
        ranker = stage.ranker
        future = self._worker(stage).submit(
            id(ranker),
            _Reordering(ranker, head),
            cost_tokens=ranker.cost_tokens(head),
            joins=joins_of(ranker),
        )
        done = await _wait(future, progress)
        return progress.record(stage.name, stage.rejoin(done.result, ranking), done)


_Outcome: TypeAlias = EngineResult | ShortlistError


async def _both(runs: Iterable[Coroutine[None, None, EngineResult]]) -> list[_Outcome]:
    """Run both arms at the same time; what is the fault of one arm alone is its outcome, anything else is raised."""
    tasks = [asyncio.ensure_future(_outcome(run)) for run in runs]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _outcome(run: Coroutine[None, None, EngineResult]) -> _Outcome:
    try:
        return await run
    except (WorkerError, DeadlineError, NotReadyError) as error:
        return error


def _of_arms(pipeline: Pipeline, outcomes: Sequence[_Outcome], k: int) -> EngineResult:
    """Interleave two arms; where one did not do all of its work the other is shown alone, and clicks credit neither.

    Half of an arm is not the arm: its clicks would be counted for what it was not.
    """
    first, second = outcomes
    failures = [_failure(outcome) for outcome in outcomes]
    if isinstance(first, EngineResult) and isinstance(second, EngineResult) and not any(failures):
        return _interleaved(pipeline, first, second, k)
    shown = min((0, 1), key=lambda at: (isinstance(outcomes[at], ShortlistError), bool(failures[at])))
    alone, other = outcomes[shown], outcomes[1 - shown]
    if isinstance(alone, ShortlistError):
        raise alone
    name, failed = pipeline.arms[shown].name, pipeline.arms[1 - shown].name
    note = f"{failed!r} failed, so {name!r} is shown alone and clicks credit neither: {failures[1 - shown]}"
    logger.warning("pipeline %r: %s", pipeline.name, note)
    results = [result for result in (other, alone) if isinstance(result, EngineResult)]
    return replace(
        alone,
        stages=tuple(
            StageResult(f"{arm.name}/{stage.name}", stage.ranking, stage.seconds)
            for arm, result in ((pipeline.arms[1 - shown], other), (pipeline.arms[shown], alone))
            if isinstance(result, EngineResult)
            for stage in result.stages
        ),
        queue_s=sum(result.queue_s for result in results),
        inference_s=sum(result.inference_s for result in results),
        notes=(note,),
    )


def _failure(outcome: _Outcome) -> str | None:
    """Say what is missing of an arm's work; None if nothing is."""
    if isinstance(outcome, ShortlistError):
        return str(outcome)
    return outcome.degraded_reason or ("its time was up" if outcome.partial else None)


def _interleaved(pipeline: Pipeline, first: EngineResult, second: EngineResult, k: int) -> EngineResult:
    drafted = pipeline.draft(
        PipelineResult(first.ranking, first.stages), PipelineResult(second.ranking, second.stages), k
    )
    return EngineResult(
        ranking=drafted.ranking,
        stages=drafted.stages,
        partial=False,
        degraded_reason=None,
        queue_s=first.queue_s + second.queue_s,
        inference_s=first.inference_s + second.inference_s,
        arms=drafted.arms,
    )


async def _wait(future: Future[Done[T]], progress: _Progress) -> Done[T]:
    """Await a job until time is up; a job nobody waits for any more is cancelled, so it never starts."""
    try:
        async with asyncio.timeout(max(progress.ends_at - time.monotonic(), 0.0)):
            return await asyncio.wrap_future(future)
    except TimeoutError:
        raise DeadlineError(f"the request was not finished in {progress.allowed_s * 1000:.0f} ms") from None


def _retrieve(items: Sequence[_Retrieval]) -> list[Ranking]:
    return items[0].retriever.retrieve([item.query for item in items], items[0].k)


def _rank(items: Sequence[_Reordering]) -> list[Ranking]:
    results = items[0].ranker.rank([item.ranking for item in items])
    for item, result in zip(items, results, strict=True):
        if len(result) != len(item.ranking) or set(result.ids) != set(item.ranking.ids):
            raise WorkerError(f"a ranker gave other documents than the {len(item.ranking)} it was given")
    return results
