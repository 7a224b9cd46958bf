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
from rankers.types import Document, Ranking, ScoreKind
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
from training.data.training_list import TrainingList, read_lists
from training.evaluation.datasets import Dataset, load_dataset, read_qrels
from training.evaluation.inputs import choose_source
from training.evaluation.runs import RunRetriever, read_run

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and of how much."""

ROOM = 4
"""Times the depth that is searched where documents are to be left out."""
BATCH = 32
"""Queries that run together."""

T = TypeVar("T")
Labelled: TypeAlias = Iterator[TrainingList | None]


def build_lists(recipe: Recipe, pipelines: Pipelines, *, on_progress: Progress) -> list[TrainingList]:
    """Make the training lists of a recipe.

    Parameters
    ----------
    recipe
        Its sources; test sets are not looked at here.
    pipelines
        Where candidates and teachers come from.
    on_progress
        Told about indexes that are built, and queries that are done.

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
    """
    parts = []
    for name, source in recipe.sources.items():
        generator = Random(f"{recipe.seed}/{name}")
        labelled = _label(name, source, pipelines, generator, on_progress)
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
        Items and their weight. 2.5 takes all of them twice, and half of them, drawn, once more.
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
        mixed += [*items] * int(whole) + generator.sample(items, round(rest * len(items)))
    generator.shuffle(mixed)
    return mixed


def _label(name: str, source: SourceSpec, pipelines: Pipelines, generator: Random, on_progress: Progress) -> Labelled:
    match source:
        case QrelsSource():
            return _judged(name, source, pipelines, generator, on_progress)
        case TeacherSource():
            return _taught(name, source, pipelines, generator, on_progress)
        case RunSource():
            return _as_run(name, source, generator)
        case PermutationsSource():
            return _as_logged(name, source, generator)
        case ListsSource():
            return iter(_limited(list(read_lists(source.path)), source.limit, generator))


def _judged(name: str, source: QrelsSource, pipelines: Pipelines, generator: Random, on_progress: Progress) -> Labelled:
    dataset = _load(source, generator)
    retriever = _open(source.candidates, source, dataset, pipelines, on_progress)
    wanted = {i for grades in dataset.qrels.values() for i, grade in grades.items() if grade > 0}
    relevant = _documents(source.dataset, wanted)
    for ranking in _search(name, source, dataset, retriever, on_progress):
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


def _taught(
    name: str, source: TeacherSource, pipelines: Pipelines, generator: Random, on_progress: Progress
) -> Labelled:
    dataset = _load(source, generator)
    retriever = _open(source.candidates, source, dataset, pipelines, on_progress)
    teach = _teacher(source, dataset, pipelines, retriever, on_progress)
    waiting: list[Ranking] = []
    for ranking in _search(name, source, dataset, retriever, on_progress):
        if len(ranking) > 1:
            waiting.append(ranking.top(source.depth))
        if len(waiting) == BATCH:
            yield from _label_taught(name, source, waiting, teach(waiting))
            waiting = []
    if waiting:
        yield from _label_taught(name, source, waiting, teach(waiting))


def _teacher(
    source: TeacherSource, dataset: Dataset, pipelines: Pipelines, retriever: Retriever, on_progress: Progress
) -> Callable[[Sequence[Ranking]], list[Ranking]]:
    """Give what turns candidates into the teacher's ranking of them, or into what the teacher finds by itself."""
    if pipelines.spec.pipelines[pipelines.resolve(source.teacher)].stages:
        reranker = pipelines.open(source.teacher, retriever=retriever)  # one that only reorders needs no index
        return lambda candidates: [result.ranking for result in reranker.rerank(candidates)]
    searcher = _open(source.teacher, source.model_copy(update={"first_stage": None}), dataset, pipelines, on_progress)
    return lambda candidates: searcher.retrieve([ranking.query for ranking in candidates], source.teacher_depth)


def _label_taught(
    name: str, source: TeacherSource, candidates: Sequence[Ranking], taught: Sequence[Ranking]
) -> Labelled:
    for shown, ranking in zip(candidates, taught, strict=True):
        if source.targets == "scores" and ranking.score_kind is ScoreKind.RANK:
            raise InvalidInputError(
                f"source {name!r} wants scores, and teacher {source.teacher!r} gives an order (a part of the list, or "
                "a reader that writes); use targets: order, or a depth that its last stage covers",
                field=f"sources.{name}.targets",
            )
        yield label_by_teacher(
            shown, ranking, depth=source.depth, targets=source.targets, source=f"{source.teacher}:{name}"
        )


def _as_run(name: str, source: RunSource, generator: Random) -> Labelled:
    run = read_run(source.run)
    shown = read_run(source.first_stage) if source.first_stage is not None else run
    queries = [query for query in read_beir_queries(source.dataset) if query.id in run]
    ids = {document_id for query in queries for i in (run, shown) for document_id in i.get(query.id, {})}
    documents = _documents(source.dataset, ids).values()
    teacher, retriever = RunRetriever(run, documents), RunRetriever(shown, documents)
    for query in _limited(queries, source.limit, generator):
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


def _search(
    name: str, source: CollectionSource, dataset: Dataset, retriever: Retriever, on_progress: Progress
) -> Iterator[Ranking]:
    """Find candidates of every query, and leave out those judged in other splits."""
    judged = (read_qrels(source.dataset / "qrels" / f"{split}.tsv") for split in source.without)
    excluded = {i for qrels in judged for grades in qrels.values() for i in grades}
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
