"""A collection whose queries a language model wrote: documents drawn, queries written, the consistent ones kept.

The filter is InPars-Light's (arXiv 2301.02998): a query is kept if a ranker that is at hand finds the document it was
written for among the best few. DUQGen (NAACL 2024) says which documents to draw.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from index.sources import CORPUS_FILE, QUERIES_FILE
from rankers.errors import InvalidInputError
from rankers.protocols import Retriever
from rankers.types import Document, Query
from training.data.near_texts import word_trigrams
from training.data.query_writer import QueryWriter
from training.data.sampling import sample_diverse

if TYPE_CHECKING:
    from index.encoders import Encoder

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and of how much."""

SETTINGS_FILE, WRITTEN_FILE = "settings.json", "written.jsonl"
FEWEST_WORDS = 20
"""Shorter documents have too little to ask about."""
BATCH = 16
"""Documents whose queries are written between two saves; up to twice as many at the end."""
SPLIT = "train"


def check_folder(folder: Path, source: str) -> None:
    """Raise `InvalidInputError` where a collection written to `folder` would replace one that was not made here.

    Parameters
    ----------
    folder
        For the collection; it need not exist.
    source
        Where the documents come from.
    """
    if Path(source).resolve() in {folder.resolve(), (folder / CORPUS_FILE).resolve()}:
        raise InvalidInputError(f"--out {folder} has the documents of {source}; choose another folder", field="out")
    there = [name for name in (CORPUS_FILE, QUERIES_FILE, "qrels") if (folder / name).exists()]
    if there and not (folder / SETTINGS_FILE).is_file():
        raise InvalidInputError(
            f"--out {folder} has a collection that was not written here ({', '.join(there)}), which would be lost; "
            "choose another folder",
            field="out",
        )


def hash_documents(documents: Iterable[Document]) -> str:
    """SHA-256 of the ids and texts of documents, in their order."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(json.dumps([document.id, document.title, document.text]).encode())
    return digest.hexdigest()


def draw_documents(
    documents: Sequence[Document],
    count: int,
    *,
    clusters: int | None,
    temperature: float,
    seed: int,
    encoder: Encoder | None,
    on_progress: Progress,
) -> list[Document]:
    """Choose the documents to write queries for.

    Parameters
    ----------
    documents
        The corpus; those of fewer than `FEWEST_WORDS` words are passed over.
    count
        Wanted; all if there are no more.
    clusters
        Draw from so many clusters, as `sample_diverse` does; None draws each with equal chances.
    temperature
        For the clusters.
    seed
        The same seed draws the same documents.
    encoder
        Embeds the documents; needed for clusters.
    on_progress
        Told about the embedding.

    Returns
    -------
    list of Document
        In the order of the corpus.

    Raises
    ------
    InvalidInputError
        If no document is long enough, or clusters are wanted without an encoder.
    """
    long = [document for document in documents if len(document.content.split()) >= FEWEST_WORDS]
    if not long:
        raise InvalidInputError(
            f"none of the {len(documents)} documents has {FEWEST_WORDS} words, which a query needs to be about"
        )
    if clusters is None:
        return [long[i] for i in sorted(Random(seed).sample(range(len(long)), min(count, len(long))))]
    if encoder is None:
        raise InvalidInputError(f"{clusters} clusters need an encoder; name one with --encoder")
    vectors = []
    for start in range(0, len(long), 256):
        vectors.append(encoder.encode_documents([document.content for document in long[start : start + 256]]))
        on_progress("embedding", min(start + 256, len(long)), len(long))
    places = sample_diverse(np.concatenate(vectors), count, clusters=clusters, temperature=temperature, seed=seed)
    return [long[place] for place in places]


def write_queries(
    documents: Sequence[Document],
    writer: QueryWriter,
    folder: Path,
    *,
    settings: Mapping[str, object],
    on_progress: Progress,
) -> dict[str, str]:
    """Have a query written for each document; what has been written before is not asked for again.

    Parameters
    ----------
    documents
        With different ids.
    writer
        Asks the model.
    folder
        Keeps what is written after every batch, with the settings.
    settings
        What the queries depend on, ready for JSON.
    on_progress
        Told how many have been written.

    Returns
    -------
    dict
        Document id to query; without documents for which nothing usable came, and without repeated queries.

    Raises
    ------
    InvalidInputError
        If the folder has queries of other settings.
    WorkerError
        If the model fails at a whole batch; what was written before is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = json.dumps(settings, indent=1, sort_keys=True)
    recorded = folder / SETTINGS_FILE
    if recorded.is_file() and recorded.read_text().rstrip() != wanted:
        raise InvalidInputError(
            f"{folder} has queries that were written with other settings ({recorded}); choose another --out, or delete "
            "the folder"
        )
    _write(recorded, [wanted])
    written = _read_written(folder / WRITTEN_FILE)
    waiting = [document for document in documents if document.id not in written]
    with (folder / WRITTEN_FILE).open("a") as file:
        file.write("\n" if written else "")  # ends a line that was cut off
        while waiting:
            # Few documents at the end would be a whole batch that fails where the model refuses them.
            some = waiting[:BATCH] if len(waiting) >= 2 * BATCH else waiting
            waiting = waiting[len(some) :]
            for document, query in zip(some, writer.write(some), strict=True):
                written[document.id] = query
                file.write(json.dumps({"document_id": document.id, "query": query}, ensure_ascii=False) + "\n")
            file.flush()
            on_progress("writing queries", len(documents) - len(waiting), len(documents))
    first: dict[frozenset[str], str] = {}
    for document in documents:
        if query := written[document.id]:
            first.setdefault(word_trigrams(query), document.id)
    return {document_id: written[document_id] for document_id in first.values()}


def keep_consistent(
    queries: Mapping[str, str], retriever: Retriever, *, top_k: int, on_progress: Progress
) -> dict[str, str]:
    """Keep the queries that lead back to the document they were written for.

    Parameters
    ----------
    queries
        Document id to query.
    retriever
        Searches the corpus; a pipeline with stages is one.
    top_k
        The document must be among so many.
    on_progress
        Told how many have been looked at.

    Returns
    -------
    dict
        Those kept.
    """
    kept: dict[str, str] = {}
    items = list(queries.items())
    for start in range(0, len(items), BATCH):
        some = items[start : start + BATCH]
        found = retriever.retrieve([Query(document_id, text) for document_id, text in some], top_k)
        kept.update(item for item, ranking in zip(some, found, strict=True) if item[0] in ranking.ids)
        on_progress("consistency", start + len(some), len(items))
    return kept


def write_collection(folder: Path, documents: Sequence[Document], queries: Mapping[str, str]) -> None:
    """Write a collection in BEIR layout, each document relevant to the query that was written for it.

    Parameters
    ----------
    folder
        Gets ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/train.tsv``.
    documents
        The whole corpus.
    queries
        Document id to query.
    """
    judgements = [f"synthetic-{document_id}\t{document_id}\t1" for document_id in queries]
    _write(folder / CORPUS_FILE, [_json(d.id, {"title": d.title, "text": d.text}) for d in documents])
    _write(folder / QUERIES_FILE, [_json(f"synthetic-{i}", {"text": text}) for i, text in queries.items()])
    _write(folder / "qrels" / f"{SPLIT}.tsv", ["query-id\tcorpus-id\tscore", *judgements])


def _json(record_id: str, fields: Mapping[str, str]) -> str:
    return json.dumps({"_id": record_id, **fields}, ensure_ascii=False)


def _write(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.incoming")
    staged.write_text("".join(f"{line}\n" for line in lines))
    staged.replace(path)


def _read_written(path: Path) -> dict[str, str]:
    written: dict[str, str] = {}
    if path.is_file():
        for line in path.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # blank, or being written when the last run was killed
            written[record["document_id"]] = record["query"]
    return written
