"""Judged collections: queries, relevance judgements, and documents where there are any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from index.sources import read_beir_queries, read_documents
from rankers.errors import InvalidInputError, MissingExtraError, NotFoundError
from rankers.types import Document, Query
from training.evaluation.lines import numbered_lines

IR_DATASETS_PREFIX = "irds:"

Qrels = Mapping[str, Mapping[str, int]]
"""Query id -> document id -> grade; above 0 is relevant."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A judged collection.

    `queries` are those with at least one judgement, in the order of their file. `documents` streams the collection
    anew at every call; None where only runs over it can be evaluated.
    """

    name: str
    queries: tuple[Query, ...]
    qrels: Qrels
    documents: Callable[[], Iterator[Document]] | None


def load_dataset(source: str, *, split: str = "test", qrels: Path | None = None) -> Dataset:
    """Load a collection by name or place.

    Parameters
    ----------
    source
        A directory in BEIR layout (``corpus.jsonl``, ``queries.jsonl``, ``qrels/<split>.tsv``), or ``irds:`` and a name
        of ir_datasets (``irds:beir/scifact/test``), which downloads it.
    split
        Which judgements of a BEIR directory.
    qrels
        Judgements to use instead, in TREC or BEIR form.

    Returns
    -------
    Dataset
        Only judged queries.

    Raises
    ------
    NotFoundError
        If a file is missing.
    InvalidInputError
        If a line cannot be read, or no query is judged; the message names file and line.
    """
    if source.startswith(IR_DATASETS_PREFIX):
        dataset = _from_ir_datasets(source.removeprefix(IR_DATASETS_PREFIX))
    else:
        folder = Path(source)
        if not folder.is_dir():
            raise NotFoundError(
                f"no dataset at {source!r}: neither a BEIR directory nor irds:NAME; for TREC files give --topics"
            )
        judged = read_qrels(qrels or folder / "qrels" / f"{split}.tsv")
        corpus = folder / "corpus.jsonl"
        documents = (lambda: read_documents(source)) if corpus.is_file() else None
        dataset = Dataset(folder.resolve().name, tuple(read_beir_queries(folder)), judged, documents)
    return _judged_only(replace(dataset, qrels=read_qrels(qrels)) if qrels else dataset)


def load_trec(topics: Path, qrels: Path, documents: Path | None = None) -> Dataset:
    """Load a collection from the files TREC tracks publish.

    Parameters
    ----------
    topics
        One query a line: id, tab, text.
    qrels
        Judgements, as for `read_qrels`.
    documents
        A ``.jsonl`` file of documents, if their text is at hand.

    Returns
    -------
    Dataset
        Named after the topics file; only judged queries.

    Raises
    ------
    NotFoundError
        If a file is missing.
    InvalidInputError
        If a line cannot be read, or no query is judged; the message names file and line.
    """
    queries = []
    for place, line in numbered_lines(topics):
        query_id, tab, text = line.partition("\t")
        if not tab or not text.strip():
            raise InvalidInputError(f"{place}: expected a query id, a tab and a text, got {line[:80]!r}")
        queries.append(Query(query_id.strip(), text.strip()))
    stream = (lambda: read_documents(str(documents))) if documents is not None else None
    return _judged_only(Dataset(topics.stem, tuple(queries), read_qrels(qrels), stream))


def read_qrels(path: Path) -> Qrels:
    """Read relevance judgements.

    Parameters
    ----------
    path
        TREC form (``query_id 0 document_id grade``) or BEIR form (tab-separated, with a header).

    Returns
    -------
    Qrels
        Every judgement of the file, grade 0 and below too.

    Raises
    ------
    NotFoundError
        If there is no such file.
    InvalidInputError
        If a line has another form.
    """
    qrels: dict[str, dict[str, int]] = {}
    for place, line in numbered_lines(path):
        fields = line.split()
        if len(fields) == 3:
            query_id, document_id, grade = fields
            if (query_id, document_id) == ("query-id", "corpus-id"):
                continue
        elif len(fields) == 4:
            query_id, _, document_id, grade = fields
        else:
            raise InvalidInputError(f"{place}: expected 3 (BEIR) or 4 (TREC) fields, got {line[:80]!r}")
        try:
            qrels.setdefault(query_id, {})[document_id] = int(grade)
        except ValueError:
            raise InvalidInputError(f"{place}: grade is {grade!r}, must be a whole number") from None
    return qrels


def _judged_only(dataset: Dataset) -> Dataset:
    repeated = [query_id for query_id, count in Counter(query.id for query in dataset.queries).items() if count > 1]
    if repeated:
        raise InvalidInputError(f"dataset {dataset.name!r}: query id {repeated[0]!r} occurs more than once")
    judged = tuple(query for query in dataset.queries if query.id in dataset.qrels)
    if not judged:
        raise InvalidInputError(
            f"dataset {dataset.name!r}: none of its {len(dataset.queries)} queries is judged; "
            "do queries and judgements belong together?"
        )
    kept = {query.id for query in judged}
    return replace(dataset, queries=judged, qrels={i: grades for i, grades in dataset.qrels.items() if i in kept})


def _from_ir_datasets(name: str) -> Dataset:
    try:
        import ir_datasets
    except ImportError:
        raise MissingExtraError("ir_datasets", extra="evaluate") from None
    try:
        collection = ir_datasets.load(name)
    except KeyError:
        raise NotFoundError(f"ir_datasets has no dataset {name!r}; see its catalogue") from None

    def documents() -> Iterator[Document]:
        for document in collection.docs_iter():
            # default_text() has the title in it, where there is one.
            yield Document(document.doc_id, document.default_text())

    qrels: dict[str, dict[str, int]] = {}
    try:
        queries = tuple(Query(query.query_id, query.default_text()) for query in collection.queries_iter())
        for judgement in collection.qrels_iter():
            qrels.setdefault(judgement.query_id, {})[judgement.doc_id] = judgement.relevance
    except OSError as error:  # what requests raises is one
        raise NotFoundError(f"ir_datasets cannot get {name!r}, which it downloads on first use: {error}") from error
    return Dataset(name.replace("/", "-"), queries, qrels, documents)
