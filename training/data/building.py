"""A recipe carried out: every source read, searched or asked, and the lists mixed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TypeAlias, TypeVar

from index.pipelines import Pipelines
from index.sources import read_beir_queries, read_documents
from rankers.errors import InvalidInputError
from rankers.protocols import Retriever
from rankers.types import Document, Ranking
from training.data.labelling import label_by_qrels, label_by_teacher, without
from training.data.permutation_log import read_permutation_log
from training.data.recipe import (
    CollectionSource,
    ListsSource,
    PermutationsSource,
    QrelsSource,
    Recipe,
    RunSource,
    SourceSpec,
    TeacherSource,
)
from training.data.teaching import LeftOut, Teach, label_taught, rank_each
from training.data.training_list import TrainingList, read_lists
from training.evaluation.datasets import Dataset, load_dataset, read_qrels
from training.evaluation.inputs import choose_source
from training.evaluation.runs import RunRetriever, read_run

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and of how much."""
BeforeTeaching = Callable[[Sequence[TrainingList]], None]
"""Called with candidates that no teacher has ordered yet, all targets 0; raises where none is to be asked."""

ROOM = 4
"""Times the depth that is searched where documents are to be left out."""
BATCH = 32
"""Queries that run together."""

T = TypeVar("T")
Labelled: TypeAlias = Iterator[TrainingList | None]


def build_lists(
    recipe: Recipe,
    pipelines: Pipelines,
    *,
    on_progress: Progress,
    on_left_out: LeftOut | None = None,
    before_teaching: BeforeTeaching | None = None,
) -> list[TrainingList]:
    """Make the training lists of a recipe.

    Parameters
    ----------
    recipe
        Its sources; test sets are not looked at here.
    pipelines
        Where candidates and teachers come from.
    on_progress
        Told about indexes that are built, and queries that are done.
    on_left_out
        Told about queries that a teacher failed at, or whose answer cannot be read.
    before_teaching
        Shown the candidates of each source that asks a teacher, before it does; what it raises goes on.

    Returns
    -------
    list of TrainingList
        Of all sources, in proportion to their weights, shuffled. A source's lists do not depend on the other sources.

    Raises
    ------
    InvalidInputError
        If a source gives no list, or what it names does not fit together.
    NotFoundError
        If a file or a pipeline does not exist.
    WorkerError
        If a teacher failed at all queries that it was asked first.
    """
    parts = []
    for name, source in recipe.sources.items():
        generator = Random(f"{recipe.seed}/{name}")
        labelled = _label(
            name,
            source,
            pipelines,
            generator,
            on_progress=on_progress,
            on_left_out=on_left_out,
            before_teaching=before_teaching,
        )
        lists = [item for item in labelled if item is not None]
        if not lists:
            raise InvalidInputError(
                f"source {name!r} gave no list in which two documents can be told apart; are its queries the ones that "
                "are judged or ordered, and is its depth enough?",
                field=f"sources.{name}",
            )
        parts.append((lists, source.weight))
    return mix(parts, Random(recipe.seed))


def mix(parts: Sequence[tuple[Sequence[T], float]], generator: Random) -> list[T]:
    """Take every item of each part as often as its weight says, and shuffle.

    Parameters
    ----------
    parts
        Items, at least one, and their weight. 2.5 takes all of them twice, and half of them, drawn, once more; however
        small the weight is, one is taken.
    generator
        Draws.

    Returns
    -------
    list
        Of all parts.

    Examples
    --------
    >>> mixed = sorted(mix([("ab", 2), ("wxyz", 0.5)], Random(0)))
    >>> len(mixed), mixed[:4]
    (6, ['a', 'a', 'b', 'b'])
    """
    mixed: list[T] = []
    for items, weight in parts:
        whole, rest = divmod(weight, 1)
        mixed += [*items] * int(whole) + generator.sample(items, max(round(rest * len(items)), 1 - int(whole)))
    generator.shuffle(mixed)
    return mixed


def _label(
    name: str,
    source: SourceSpec,
    pipelines: Pipelines,
    generator: Random,
    *,
    on_progress: Progress,
    on_left_out: LeftOut | None,
    before_teaching: BeforeTeaching | None,
) -> Labelled:
    match source:
        case QrelsSource():
            return _judged(name, source, pipelines, generator, on_progress)
        case TeacherSource():
            candidates, teach = _candidates(name, source, pipelines, generator, on_progress)
            if before_teaching is not None:
                before_teaching([TrainingList(c.query, c.documents, (0.0,) * len(c), name) for c in candidates])
            return label_taught(
                name, source, candidates, teach, batch=BATCH, on_progress=on_progress, on_left_out=on_left_out
            )
        case RunSource():
            return _as_run(name, source, generator)
        case PermutationsSource():
            return _as_logged(name, source, generator)
        case ListsSource():
            return iter(_limited(list(read_lists(source.path)), source.limit, generator))


def _judged(name: str, source: QrelsSource, pipelines: Pipelines, generator: Random, on_progress: Progress) -> Labelled:
    dataset = _load(source, generator)
    retriever = _open(source.candidates, source, dataset, pipelines, on_progress)
    excluded = _excluded(source)
    wanted = {i for grades in dataset.qrels.values() for i, grade in grades.items() if grade > 0 and i not in excluded}
    relevant = _documents(source.dataset, wanted)
    for ranking in _search(name, source, dataset, retriever, excluded, on_progress=on_progress):
        grades = dataset.qrels[ranking.query.id]
        yield label_by_qrels(
            ranking,
            grades,
            [relevant[i] for i, grade in grades.items() if grade > 0 and i in relevant],
            depth=source.depth,
            most_missed=source.most_missed,
            source=f"qrels:{name}",
            generator=generator,
        )


def _candidates(
    name: str, source: TeacherSource, pipelines: Pipelines, generator: Random, on_progress: Progress
) -> tuple[list[Ranking], Teach]:
    """Find what the teacher is to be asked about, and how it is asked."""
    dataset = _load(source, generator)
    retriever = _open(source.candidates, source, dataset, pipelines, on_progress)
    found = _search(name, source, dataset, retriever, _excluded(source), on_progress=on_progress)
    candidates = [ranking.top(source.depth) for ranking in found if len(ranking) > 1]
    return candidates, _teacher(source, dataset, pipelines, retriever, on_progress)


def _teacher(
    source: TeacherSource, dataset: Dataset, pipelines: Pipelines, retriever: Retriever, on_progress: Progress
) -> Teach:
    """Give what turns candidates into the teacher's ranking of them, or into what the teacher finds by itself."""
    stages = pipelines.spec.pipelines[pipelines.resolve(source.teacher)].stages
    if stages:
        reranker = pipelines.open(source.teacher, retriever=retriever)  # one that only reorders needs no index
        hosted = any(getattr(stage, "server", None) is not None for stage in stages)
        return lambda candidates: rank_each(reranker, candidates, hosted=hosted, incomplete=source.incomplete)
    searcher = _open(source.teacher, source.model_copy(update={"first_stage": None}), dataset, pipelines, on_progress)
    return lambda candidates: searcher.retrieve([ranking.query for ranking in candidates], source.teacher_depth)


def _as_run(name: str, source: RunSource, generator: Random) -> Labelled:
    run = read_run(source.run)
    shown = read_run(source.first_stage) if source.first_stage is not None else run
    ranked = [query for query in read_beir_queries(source.dataset) if query.id in run]
    queries = _limited(ranked, source.limit, generator)
    run, shown = ({query.id: scores.get(query.id, {}) for query in queries} for scores in (run, shown))
    ids = {document_id for query in queries for i in (run, shown) for document_id in i[query.id]}
    documents = _documents(source.dataset, ids).values()
    teacher, retriever = RunRetriever(run, documents), RunRetriever(shown, documents)
    for query in queries:
        (taught,), (candidates,) = (
            teacher.retrieve([query], len(run[query.id])),
            retriever.retrieve([query], source.depth),
        )
        if source.first_stage is None:
            # The teacher's own order would tell where the best ones are.
            candidates = Ranking.from_order(query, generator.sample(candidates.documents, len(candidates)))
        yield label_by_teacher(
            candidates, taught, depth=source.depth, targets=source.targets, source=f"{source.run.stem}:{name}"
        )


def _as_logged(name: str, source: PermutationsSource, generator: Random) -> Labelled:
    windows = [window for window in read_permutation_log(source.log) if source.incomplete or window.complete]
    windows = _limited(windows, source.limit, generator)
    wanted = {document_id for window in windows for document_id in window.document_ids}
    documents = _documents(source.dataset, wanted)
    if missing := wanted - documents.keys():
        raise InvalidInputError(
            f"{source.dataset} lacks {len(missing)} documents of {source.log}, {min(missing)!r} for one; give the "
            "collection that was reranked",
            field=f"sources.{name}.dataset",
        )
    for window in windows:
        shown = [documents[document_id] for document_id in window.document_ids]
        yield label_by_teacher(
            Ranking.from_order(window.query, shown),
            Ranking.from_order(window.query, [shown[place] for place in window.order]),
            depth=len(shown),
            targets="order",
            source=f"{source.log.stem}:{name}",
        )


def _load(source: CollectionSource, generator: Random) -> Dataset:
    """Load the queries that are wanted; without a split, all there are."""
    folder = source.dataset
    if source.split is not None:
        dataset = load_dataset(str(folder), split=source.split)
    else:
        dataset = Dataset(
            folder.resolve().name, tuple(read_beir_queries(folder)), {}, lambda: read_documents(str(folder))
        )
    return replace(dataset, queries=tuple(_limited(dataset.queries, source.limit, generator)))


def _open(
    pipeline: str, source: CollectionSource, dataset: Dataset, pipelines: Pipelines, on_progress: Progress
) -> Retriever:
    found = choose_source(
        pipelines, dataset, [pipeline], index=source.index, first_stage=source.first_stage, on_progress=on_progress
    )
    return found.retriever or pipelines.open(pipeline, index=found.index)


def _excluded(source: CollectionSource) -> set[str]:
    """Read which documents are judged in the splits that are to be left out."""
    judged = (read_qrels(source.dataset / "qrels" / f"{split}.tsv") for split in source.without)
    return {i for qrels in judged for grades in qrels.values() for i in grades}


def _search(
    name: str,
    source: CollectionSource,
    dataset: Dataset,
    retriever: Retriever,
    excluded: Collection[str],
    *,
    on_progress: Progress,
) -> Iterator[Ranking]:
    """Find candidates of every query, without those excluded."""
    depth = source.depth * (ROOM if excluded else 1)
    for start in range(0, len(dataset.queries), BATCH):
        for ranking in retriever.retrieve(dataset.queries[start : start + BATCH], depth):
            yield without(ranking, excluded) if excluded else ranking
        on_progress(name, min(start + BATCH, len(dataset.queries)), len(dataset.queries))


def _documents(folder: Path, wanted: Collection[str]) -> dict[str, Document]:
    return {document.id: document for document in read_documents(str(folder)) if document.id in wanted}


def _limited(items: Sequence[T], limit: int | None, generator: Random) -> list[T]:
    """Draw as many as there may be, in their order."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[i] for i in sorted(generator.sample(range(len(items)), limit))]
