"""A teacher asked about candidates: what it failed at, and what cannot be read of its answers, is no label."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from rankers.errors import InvalidInputError, WorkerError
from rankers.listwise.permutation import Repair
from rankers.pipeline import Pipeline, PipelineResult
from rankers.protocols import joins_of
from rankers.types import Ranking, ScoreKind
from training.data.labelling import label_by_teacher
from training.data.recipe import TeacherSource
from training.data.training_list import TrainingList

Teach = Callable[[Sequence[Ranking]], Sequence[Ranking | WorkerError]]
"""Gives a teacher's ranking for each list of candidates, or why there is none."""
LeftOut = Callable[[str, str], None]
"""Called with the name of a source and why a query of it was left out."""


def label_taught(
    name: str,
    source: TeacherSource,
    candidates: Sequence[Ranking],
    teach: Teach,
    *,
    batch: int,
    on_progress: Callable[[str, int, int], None],
    on_left_out: LeftOut | None,
) -> Iterator[TrainingList | None]:
    """Let a teacher's rankings of candidates be the targets.

    Parameters
    ----------
    name
        Of the source.
    source
        Says which targets are wanted.
    candidates
        At least two documents each.
    teach
        Asks the teacher.
    batch
        Lists of candidates that it is asked about together.
    on_progress
        Told how many it has been asked about.
    on_left_out
        Told about those for which there is no ranking.

    Yields
    ------
    TrainingList or None
        For each of the others; None where nothing can be learned from it.

    Raises
    ------
    InvalidInputError
        If scores are wanted and the teacher gives an order.
    WorkerError
        If there is no ranking for any of the first batches.
    """
    failed = 0
    for start in range(0, len(candidates), batch):
        some = candidates[start : start + batch]
        for shown, taught in zip(some, teach(some), strict=True):
            if isinstance(taught, WorkerError):
                failed += 1
                if on_left_out is not None:
                    on_left_out(name, f"query {shown.query.id!r}: {taught}")
                if failed == start + len(some):
                    raise WorkerError(
                        f"source {name!r}: teacher {source.teacher!r} gave no order for any of {failed} queries; for "
                        f"the last one, {taught}"
                    ) from taught
            else:
                yield _label(name, source, shown, taught)
        on_progress(f"{name} by {source.teacher}", start + len(some), len(candidates))


def rank_each(
    teacher: Pipeline, rankings: Sequence[Ranking], *, hosted: bool, incomplete: bool
) -> list[Ranking | WorkerError]:
    """Have a pipeline reorder each of several rankings; one that it fails at takes no other with it.

    Parameters
    ----------
    teacher
        Has stages.
    rankings
        Each for a query of its own.
    hosted
        Whether its answers are paid for. Rankings are then given to it by themselves, at the same time, where its
        stages merge their work: no answer is asked for twice. Otherwise all are asked again where one fails.
    incomplete
        Whether answers count that leave candidates out, and rankings of which some windows were not read.

    Returns
    -------
    list of Ranking or WorkerError
        One per ranking: the new order, or why there is none.
    """

    def rank(ranking: Ranking) -> PipelineResult | WorkerError:
        try:
            return teacher.rerank([ranking])[0]
        except WorkerError as error:
            return error

    results: list[PipelineResult | WorkerError]
    if hosted and all(joins_of(stage.ranker) is not None for stage in teacher.stages):
        with ThreadPoolExecutor(max(len(rankings), 1)) as threads:
            results = list(threads.map(rank, rankings))
    else:
        try:
            results = [*teacher.rerank(rankings)]
        except WorkerError:
            results = [rank(ranking) for ranking in rankings]
    return [result if isinstance(result, WorkerError) else _read(result, incomplete) for result in results]


def _read(result: PipelineResult, incomplete: bool) -> Ranking | WorkerError:
    """Give the order, unless it is partly, or all, the one that was shown."""
    windows = [window for stage in result.stages for window in stage.ranking.evidence.windows]
    silent = [window for window in windows if window.failure or Repair.NO_ANSWER in window.repairs]
    partial = [window for window in windows if Repair.MISSING in window.repairs]
    if silent and (len(silent) == len(windows) or not incomplete):
        why = silent[0].failure or "the answer has no label"
        return WorkerError(f"{len(silent)} of {len(windows)} windows were not read: {why}")
    if partial and not incomplete:
        return WorkerError("the answer leaves candidates out; keep such orders with incomplete: true")
    return result.ranking


def _label(name: str, source: TeacherSource, shown: Ranking, taught: Ranking) -> TrainingList | None:
    if source.targets == "scores" and taught.score_kind is ScoreKind.RANK:
        raise InvalidInputError(
            f"source {name!r} wants scores, and teacher {source.teacher!r} gives an order (a part of the list, or a "
            "reader that writes); use targets: order, or a depth that its last stage covers",
            field=f"sources.{name}.targets",
        )
    return label_by_teacher(
        shown, taught, depth=source.depth, targets=source.targets, source=f"{source.teacher}:{name}"
    )
