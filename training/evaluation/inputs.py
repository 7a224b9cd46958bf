"""What a command line names: a judged collection, and what is searched on it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from index.directory import IndexDirectory
from index.pipelines import Pipelines
from rankers.errors import InvalidInputError
from rankers.protocols import Retriever
from rankers.types import Document
from training.evaluation.datasets import Dataset, load_dataset, load_trec

FINGERPRINT_FILE = "SOURCE"


@dataclass(frozen=True, slots=True)
class Source:
    """Where candidates come from: a retriever, or an index that a pipeline's own retriever searches.

    `description` tells its documents from others, over which no run may be gone on.
    """

    retriever: Retriever | None
    index: Path | None
    description: Mapping[str, object]


def load_judged(
    dataset: str | None,
    *,
    split: str,
    qrels: Path | None,
    topics: Path | None,
    documents: Path | None,
    limit: int | None,
) -> Dataset:
    """Load a judged collection: a dataset by name or folder, or TREC files.

    Parameters
    ----------
    dataset
        As in `training.evaluation.datasets.load_dataset`.
    split
        Of the dataset.
    qrels
        Judgements instead of the dataset's, or those of the topics.
    topics
        TREC topics instead of a dataset.
    documents
        Documents for the topics.
    limit
        Only so many queries, the first.

    Returns
    -------
    Dataset
        Only judged queries.

    Raises
    ------
    InvalidInputError
        If what is given does not go together.
    """
    if (dataset is None) == (topics is None):
        raise InvalidInputError("give a dataset, or --topics with --qrels", field="dataset")
    if topics is not None and qrels is None:
        raise InvalidInputError("--topics needs --qrels", field="qrels")
    if topics is not None and qrels is not None:
        loaded = load_trec(topics, qrels, documents)
    else:
        loaded = load_dataset(str(dataset), split=split, qrels=qrels)
    if limit is None:
        return loaded
    queries = loaded.queries[:limit]
    return Dataset(loaded.name, queries, {q.id: loaded.qrels[q.id] for q in queries}, loaded.documents)


def choose_source(
    pipelines: Pipelines,
    dataset: Dataset,
    names: Sequence[str],
    *,
    index: Path | None,
    first_stage: Path | None,
    on_progress: Callable[[str, int, int], None],
) -> Source:
    """Find what is searched: a run, an index that is there, or one built from the documents of the collection.

    Parameters
    ----------
    pipelines
        The configuration.
    dataset
        The collection.
    names
        Pipelines that will search.
    index
        An index directory.
    first_stage
        A TREC run.
    on_progress
        Told about the building of an index: phase, done, total.

    Returns
    -------
    Source
        An index that is built is kept, and used again for the same documents and encoder.

    Raises
    ------
    InvalidInputError
        If documents are needed and there are none.
    """
    if first_stage is not None:
        from training.evaluation.runs import RunRetriever, read_run

        digest = hashlib.sha256(first_stage.read_bytes()).hexdigest()
        retriever = RunRetriever(read_run(first_stage), _stream(dataset))
        return Source(retriever, None, {"first_stage": str(first_stage), "first_stage_sha256": digest})
    if index is not None:
        return Source(None, index, {"index": str(index), "manifest": asdict(IndexDirectory(index).manifest())})
    fingerprint = _fingerprint(_stream(dataset))
    built = _index(pipelines, dataset, names, fingerprint, on_progress)
    return Source(None, built, {"documents_sha256": fingerprint})


def _stream(dataset: Dataset) -> Iterable[Document]:
    if dataset.documents is None:
        raise InvalidInputError(f"dataset {dataset.name!r} has no documents; give --documents", field="documents")
    return dataset.documents()


def _index(
    pipelines: Pipelines,
    dataset: Dataset,
    names: Sequence[str],
    fingerprint: str,
    on_progress: Callable[[str, int, int], None],
) -> Path:
    """Build the dataset's index under var/indexes, unless it is there and of the same documents and encoder."""
    dense = any(pipelines.needs_dense(name) for name in names)
    root = pipelines.index_dir.parent / "indexes" / dataset.name
    directory = IndexDirectory(root)
    recorded = root / FINGERPRINT_FILE
    if recorded.is_file() and recorded.read_text() == fingerprint:
        if not dense or directory.manifest().encoder == pipelines.spec.encoder:
            return root
    else:
        recorded.unlink(missing_ok=True)
        directory.corpus.delete([document.id for document in directory.corpus.stream()])
        directory.corpus.append(_stream(dataset))
    directory.build(
        encoder=pipelines.encoder() if dense else None,
        encoder_name=pipelines.spec.encoder if dense else None,
        on_progress=on_progress,
    )
    recorded.write_text(fingerprint)
    return root


def _fingerprint(documents: Iterable[Document]) -> str:
    digest = hashlib.sha256()
    for document in documents:
        for part in (document.id, document.title, document.text):
            digest.update(f"{len(part)}:{part}".encode(errors="surrogatepass"))
    return digest.hexdigest()
