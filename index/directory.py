"""An index on disk: documents, and immutable versions of what is searched."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from index.corpus import Corpus
from index.manifest import Manifest, publish_manifest, read_manifest, sync
from rankers.errors import InvalidInputError, NotReadyError, OverloadedError
from rankers.types import Document

if TYPE_CHECKING:
    from index.bm25 import BM25Index
    from index.dense import DenseIndex, DenseKind
    from index.encoders import Encoder
    from index.spann.live import SpannIndex

Progress = Callable[[str, int, int], None]
"""Called with a phase, how many of its documents are done, and how many there are."""

DenseChoice = Literal["auto", "flat", "hnsw", "spann"]
"""How vectors are indexed: exact, by a graph in memory, on disk; ``auto`` is flat for few and spann for many."""

CORPUS_FILE = "corpus.sqlite"
LOCK_FILE = "BUILD.lock"
BM25, DENSE = "bm25", "dense"
EMBED_BATCH = 256
"""Documents embedded between two reports of progress."""
BUILD_RETRY_S = 60.0
SPANN_DOCUMENTS = 50_000
"""Documents from which ``auto`` is spann: comparing with all of them takes a few milliseconds."""
VECTORS_FILE = "vectors.partial"


class IndexDirectory:
    """Documents and the structures that search them, under one folder.

    ::

        corpus.sqlite      the documents, as they are now
        v000007/bm25/      search structures over the documents as they were when build 7 began;
        v000007/dense/     never changed once written
        MANIFEST.json      names the current version
        BUILD.lock         held while a build runs; the system frees it when the process ends, however it ends

    **One moment decides.** A build writes its version beside the current one, waits for the disk, and then renames the
    manifest: until then the old version serves, whatever happens to the build. What a build that died left behind has
    a number above the manifest's, and the next build removes it. The version before the current one is kept, because
    somebody may just be opening it; what is open already is in memory.

    **The corpus is the truth about documents, a version only about where to look.** Retrievers look every hit up in
    the corpus. So a document deleted is gone at once, from every version; one added is found after the next build;
    one replaced is found by its old words until the next build, and shown with its new ones.

    Parameters
    ----------
    root
        The folder; made when the first document is added.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._corpus: Corpus | None = None
        self._lock = threading.Lock()

    @property
    def corpus(self) -> Corpus:
        """The documents; opened once."""
        with self._lock:
            if self._corpus is None:
                self._corpus = Corpus(self.root / CORPUS_FILE)
            return self._corpus

    def manifest(self) -> Manifest:
        """Say what the current version holds; raises `NotReadyError` if nothing has been built."""
        manifest = read_manifest(self.root)
        if manifest is None:
            raise NotReadyError(f"nothing is built at {self.root}; run: shortlist index build SOURCE")
        return manifest

    def open_bm25(self) -> BM25Index:
        """Load BM25 of the current version; raises `NotReadyError` if there is none."""
        from index.bm25 import BM25Index

        return BM25Index.load(self._part(BM25))

    def open_dense(self) -> DenseIndex | SpannIndex:
        """Load the vectors of the current version; raises `NotReadyError` if there are none."""
        from index.dense import DenseIndex

        folder = self._part(DENSE)
        if self.manifest().dense_kind != "spann":
            return DenseIndex.load(folder)
        from index.spann.live import SpannIndex

        return SpannIndex.open(folder, read_only=True)

    @property
    def version_folder(self) -> Path:
        """Folder of the current version; raises `NotReadyError` if nothing has been built."""
        return self._folder(self.manifest().version)

    def spann_folder(self) -> Path:
        """Folder of the current version's vectors; raises `NotReadyError` unless they are indexed by spann."""
        folder, kind = self._part(DENSE), self.manifest().dense_kind
        if kind != "spann":
            raise NotReadyError(
                f"the vectors at {self.root} are indexed by {kind!r}; run: shortlist index build --dense-kind spann"
            )
        return folder

    def build(
        self,
        *,
        encoder: Encoder | None,
        encoder_name: str | None,
        dense_kind: DenseChoice = "auto",
        max_memory_mb: float | None = None,
        on_progress: Progress | None = None,
    ) -> Manifest:
        """Index the documents as they are now, and make that the current version.

        Parameters
        ----------
        encoder
            Embeds the documents; without one there is only BM25.
        encoder_name
            What the configuration calls the encoder, for the manifest.
        dense_kind
            ``flat`` or ``hnsw``, as for `DenseIndex.build`, ``spann``, or ``auto``: flat below `SPANN_DOCUMENTS`.
        max_memory_mb
            Memory that a search of a ``spann`` index may hold, in 10^6 bytes; None for the default share of heads.
        on_progress
            Called now and then.

        Returns
        -------
        Manifest
            Of the new version.

        Raises
        ------
        OverloadedError
            If another build of this directory is running.
        InvalidInputError
            If only one of `encoder` and `encoder_name` is given.
        """
        if (encoder is None) != (encoder_name is None):
            raise InvalidInputError(f"an encoder and its name go together, got {encoder!r} and {encoder_name!r}")
        report = on_progress or _silent
        corpus = self.corpus  # makes the folder
        with self._build_lock():
            current = read_manifest(self.root)
            version = current.version + 1 if current else 1
            self._remove_versions(lambda number: number >= version)
            folder = self._folder(version)
            ids = _build_bm25(corpus, folder / BM25, report)
            kind = _chosen(dense_kind, len(ids))
            if encoder is not None:
                vectors = _Embedding(corpus, ids, encoder, report)
                if kind == "spann":
                    _build_spann(vectors, folder / DENSE, max_memory_mb)
                else:
                    _build_dense(vectors, folder / DENSE, kind)
            for path in (*folder.rglob("*"), folder, self.root):
                sync(path)
            manifest = Manifest(
                version=version,
                built_at=datetime.now(UTC).isoformat(timespec="seconds"),
                documents=len(ids),
                parts=(BM25,) if encoder is None else (BM25, DENSE),
                encoder=encoder_name,
                dense_kind=None if encoder is None else kind,
            )
            publish_manifest(self.root, manifest)
            self._remove_versions(lambda number: number < version - 1)
        return manifest

    def _part(self, name: str) -> Path:
        manifest = self.manifest()
        if name not in manifest.parts:
            raise NotReadyError(f"the index at {self.root} was built without {name}; run: shortlist index build")
        return self._folder(manifest.version) / name

    def _folder(self, version: int) -> Path:
        return self.root / f"v{version:06d}"

    def _remove_versions(self, unwanted: Callable[[int], bool]) -> None:
        for folder in self.root.glob("v[0-9]*"):
            if folder.name[1:].isdigit() and unwanted(int(folder.name[1:])):
                shutil.rmtree(folder)

    @contextmanager
    def _build_lock(self) -> Iterator[None]:
        descriptor = os.open(self.root / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OverloadedError(
                    f"another build of {self.root} is running; wait until it has finished", retry_after_s=BUILD_RETRY_S
                ) from None
            yield
        finally:
            os.close(descriptor)


def _build_bm25(corpus: Corpus, folder: Path, report: Progress) -> tuple[str, ...]:
    from index.bm25 import BM25Index

    index = BM25Index.build(_reported(corpus.stream(), len(corpus), report))
    index.save(folder)
    return index.ids


def _chosen(kind: DenseChoice, documents: int) -> DenseKind | Literal["spann"]:
    if kind == "auto":
        return "spann" if documents >= SPANN_DOCUMENTS else "flat"
    return kind


def _build_dense(embedding: _Embedding, folder: Path, kind: DenseKind) -> None:
    from index.dense import DenseIndex

    vectors = list(embedding.blocks())
    found = np.concatenate(vectors) if vectors else np.empty((0, embedding.dimensions), np.float32)
    DenseIndex.build(found, embedding.ids, kind, metadata=embedding.metadata).save(folder)


def _build_spann(embedding: _Embedding, folder: Path, max_memory_mb: float | None) -> None:
    """Embed to a file first: the build reads vectors more than once, and need not have them all in memory."""
    from index.spann.building import build_index
    from index.spann.parameters import SpannParameters
    from index.spann.vectors import ArrayStream

    path = folder.with_name(VECTORS_FILE)
    with path.open("wb") as file:
        for block in embedding.blocks():
            file.write(block.tobytes())
    shape = (len(embedding.ids), embedding.dimensions)
    vectors = np.memmap(path, np.float32, "r", shape=shape) if embedding.ids else np.empty(shape, np.float32)
    rows = zip(embedding.ids, embedding.metadata, strict=True)
    parameters = SpannParameters(max_memory_mb=max_memory_mb)
    build_index(folder, rows, ArrayStream(vectors), parameters=parameters, on_progress=embedding.report)
    path.unlink()


class _Embedding:
    """The documents that BM25 has, but for those deleted since: their vectors, and after those ids and metadata."""

    def __init__(self, corpus: Corpus, ids: tuple[str, ...], encoder: Encoder, report: Progress) -> None:
        self.ids: list[str] = []
        self.metadata: list[Mapping[str, Any]] = []
        self.report = report
        self.dimensions = encoder.dimensions
        self._corpus = corpus
        self._wanted = ids
        self._encoder = encoder

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        for start in range(0, len(self._wanted), EMBED_BATCH):
            some = self._wanted[start : start + EMBED_BATCH]
            found = self._corpus.find(some)
            documents = [found[i] for i in some if i in found]
            self.ids.extend(document.id for document in documents)
            self.metadata.extend(document.metadata for document in documents)
            if documents:
                yield self._encoder.encode_documents([document.content for document in documents])
            self.report("embedding", min(start + EMBED_BATCH, len(self._wanted)), len(self._wanted))


def _reported(documents: Iterable[Document], total: int, report: Progress) -> Iterator[Document]:
    done = 0
    for done, document in enumerate(documents, start=1):
        yield document
        if done % 1000 == 0 and done < total:
            report("indexing words", done, total)
    report("indexing words", done, done)


def _silent(phase: str, done: int, total: int) -> None:
    """Report to nobody."""
