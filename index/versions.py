"""The search structures of one version of an index: built of all documents, or made of those of the version before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from index.corpus import Corpus
from rankers.types import Document

if TYPE_CHECKING:
    from index.dense import DenseKind
    from index.encoders import Encoder

Progress = Callable[[str, int, int], None]
"""Called with a phase, how many of its documents are done, and how many there are."""

EMBED_BATCH = 256
"""Documents embedded between two reports of progress."""
VECTORS_FILE = "vectors.partial"
MERGE_TIMEOUT_S = 86_400.0
"""How long documents that are added may wait for merges of vectors: whoever adds many has to."""


class Embedding:
    """The documents that BM25 has, but for those deleted since: their vectors, and after those ids and metadata.

    Parameters
    ----------
    corpus
        The documents.
    ids
        Those to embed.
    encoder
        Embeds them.
    report
        Told about progress.
    """

    def __init__(self, corpus: Corpus, ids: tuple[str, ...], encoder: Encoder, report: Progress) -> None:
        self.ids: list[str] = []
        self.metadata: list[Mapping[str, Any]] = []
        self.report = report
        self.dimensions = encoder.dimensions
        self._corpus = corpus
        self._wanted = ids
        self._encoder = encoder

    def __len__(self) -> int:
        return len(self._wanted)

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the vectors, as float32 [at most `EMBED_BATCH`, D]; read once."""
        for start in range(0, len(self._wanted), EMBED_BATCH):
            some = self._wanted[start : start + EMBED_BATCH]
            found = self._corpus.find(some)
            documents = [found[i] for i in some if i in found]
            self.ids.extend(document.id for document in documents)
            self.metadata.extend(document.metadata for document in documents)
            if documents:
                yield self._encoder.encode_documents([document.content for document in documents])
            self.report("embedding", min(start + EMBED_BATCH, len(self._wanted)), len(self._wanted))


def build_bm25(corpus: Corpus, folder: Path, report: Progress) -> tuple[str, ...]:
    """Index the words of all documents, and say which those were."""
    from index.bm25 import BM25Index

    index = BM25Index.build(_reported(corpus.stream(), len(corpus), report))
    index.save(folder)
    return index.ids


def build_dense(embedding: Embedding, folder: Path, kind: DenseKind) -> None:
    """Index vectors in memory."""
    from index.dense import DenseIndex

    vectors = list(embedding.blocks())
    found = np.concatenate(vectors) if vectors else np.empty((0, embedding.dimensions), np.float32)
    DenseIndex.build(found, embedding.ids, kind, metadata=embedding.metadata).save(folder)


def build_spann(embedding: Embedding, folder: Path, max_memory_mb: float | None) -> None:
    """Embed to a file first: the build reads vectors more than once, and need not have them all in memory."""
    from index.spann.building import build_index
    from index.spann.parameters import SpannParameters
    from index.spann.vectors import ArrayStream

    parameters = SpannParameters(max_memory_mb=max_memory_mb)
    parameters.heads(len(embedding), embedding.dimensions)  # says so now if that cannot be, and not after the embedding
    path = folder.with_name(VECTORS_FILE)
    with path.open("wb") as file:
        for block in embedding.blocks():
            file.write(block.tobytes())
    shape = (len(embedding.ids), embedding.dimensions)
    vectors = np.memmap(path, np.float32, "r", shape=shape) if embedding.ids else np.empty(shape, np.float32)
    rows = zip(embedding.ids, embedding.metadata, strict=True)
    build_index(folder, rows, ArrayStream(vectors), parameters=parameters, on_progress=embedding.report)
    path.unlink()


class Change:
    """Documents that come, in place of those with the same ids, and others that go.

    Parameters
    ----------
    documents
        Of several with one id, the last counts.
    deleted
        Ids; one that is also among the documents stays.
    corpus
        The documents as they are before.
    """

    def __init__(self, documents: Iterable[Document], deleted: Sequence[str], corpus: Corpus) -> None:
        self.documents = list({document.id: document for document in documents}.values())
        coming = {document.id for document in self.documents}
        self.deleted = [document_id for document_id in dict.fromkeys(deleted) if document_id not in coming]
        self._metadata = corpus.metadata()

    def metadata(self, document_id: str) -> Mapping[str, Any]:
        """Metadata of a document that stays as it is."""
        return self._metadata.get(document_id, {})

    def change_bm25(self, before: Path, after: Path, report: Progress) -> int:
        """Write the index of words as it is after the change, and say how many documents it has."""
        from index.bm25 import BM25Index

        documents = _reported(self.documents, len(self.documents), report)
        index = BM25Index.load(before).changed(documents, self.deleted, metadata=self.metadata)
        index.save(after)
        return len(index)

    def change_dense(self, before: Path, after: Path, encoder: Encoder | None, report: Progress) -> None:
        """Write the index in memory as it is after the change."""
        from index.dense import DenseIndex

        index = DenseIndex.load(before)
        new = [vector for _, vectors in self._embedded(encoder, report) for vector in vectors]
        vectors = dict(zip(index.ids, index.vectors(index.ids), strict=True))
        for document_id in self.deleted:
            vectors.pop(document_id, None)
        metadata = {document_id: self.metadata(document_id) for document_id in vectors}
        for document, vector in zip(self.documents, new, strict=True):
            vectors[document.id], metadata[document.id] = vector, document.metadata
        found = np.stack(list(vectors.values())) if vectors else np.empty((0, index.dimensions), np.float32)
        DenseIndex.build(found, list(vectors), index.kind, metadata=list(metadata.values())).save(after)

    def change_spann(self, before: Path, after: Path, encoder: Encoder | None, report: Progress) -> None:
        """Write into a copy of the index on disk, which shares its segments, and merge what is due."""
        from index.spann.building import link_index
        from index.spann.live import SpannIndex

        link_index(before, after)
        with SpannIndex.open(after, write_timeout_s=MERGE_TIMEOUT_S) as index:
            index.delete(self.deleted)
            for documents, vectors in self._embedded(encoder, report):
                index.replace([one.id for one in documents], vectors, [one.metadata for one in documents])
            index.settle()

    def _embedded(
        self, encoder: Encoder | None, report: Progress
    ) -> Iterator[tuple[list[Document], npt.NDArray[np.float32]]]:
        if encoder is None:  # then nothing comes
            return
        for start in range(0, len(self.documents), EMBED_BATCH):
            some = self.documents[start : start + EMBED_BATCH]
            yield some, encoder.encode_documents([document.content for document in some])
            report("embedding", start + len(some), len(self.documents))


def _reported(documents: Iterable[Document], total: int, report: Progress) -> Iterator[Document]:
    done = 0
    for done, document in enumerate(documents, start=1):
        yield document
        if done % 1000 == 0 and done < total:
            report("indexing words", done, total)
    report("indexing words", done, done)
