"""An index on disk: documents, and immutable versions of what is searched."""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from index.corpus import Corpus
from index.manifest import Manifest, publish_manifest, read_manifest, sync
from rankers.errors import InvalidInputError, NotReadyError, OverloadedError
from rankers.types import Document

if TYPE_CHECKING:
    from index.bm25 import BM25Index
    from index.dense import DenseIndex, DenseKind
    from index.encoders import Encoder

Progress = Callable[[str, int, int], None]
"""Called with a phase, how many of its documents are done, and how many there are."""

CORPUS_FILE = "corpus.sqlite"
LOCK_FILE = "BUILD.lock"
BM25, DENSE = "bm25", "dense"
EMBED_BATCH = 256
"""Documents embedded between two reports of progress."""
BUILD_RETRY_S = 60.0


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

    def open_dense(self) -> DenseIndex:
        """Load the vectors of the current version; raises `NotReadyError` if there are none."""
        from index.dense import DenseIndex

        return DenseIndex.load(self._part(DENSE))

    def build(
        self,
        *,
        encoder: Encoder | None,
        encoder_name: str | None,
        dense_kind: DenseKind = "flat",
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
            ``flat`` or ``hnsw``, as for `DenseIndex.build`.
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
            if encoder is not None:
                _build_dense(corpus, ids, folder / DENSE, encoder=encoder, kind=dense_kind, report=report)
            for path in (*folder.rglob("*"), folder, self.root):
                sync(path)
            manifest = Manifest(
                version=version,
                built_at=datetime.now(UTC).isoformat(timespec="seconds"),
                documents=len(ids),
                parts=(BM25,) if encoder is None else (BM25, DENSE),
                encoder=encoder_name,
                dense_kind=None if encoder is None else dense_kind,
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


def _build_dense(
    corpus: Corpus, ids: tuple[str, ...], folder: Path, *, encoder: Encoder, kind: DenseKind, report: Progress
) -> None:
    from index.dense import DenseIndex

    vectors = np.empty((len(ids), encoder.dimensions), dtype=np.float32)
    embedded: list[str] = []
    for start in range(0, len(ids), EMBED_BATCH):
        # The documents BM25 has, but for those deleted since.
        found = corpus.find(ids[start : start + EMBED_BATCH])
        documents = [found[i] for i in ids[start : start + EMBED_BATCH] if i in found]
        rows = slice(len(embedded), len(embedded) + len(documents))
        vectors[rows] = encoder.encode_documents([document.content for document in documents])
        embedded.extend(document.id for document in documents)
        report("embedding", min(start + EMBED_BATCH, len(ids)), len(ids))
    DenseIndex.build(vectors[: len(embedded)], embedded, kind).save(folder)


def _reported(documents: Iterable[Document], total: int, report: Progress) -> Iterator[Document]:
    done = 0
    for done, document in enumerate(documents, start=1):
        yield document
        if done % 1000 == 0 and done < total:
            report("indexing words", done, total)
    report("indexing words", done, done)


def _silent(phase: str, done: int, total: int) -> None:
    """Report to nobody."""
