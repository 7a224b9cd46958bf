"""An index on disk: documents, and immutable versions of what is searched."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from index.corpus import Corpus, check_storable
from index.manifest import Manifest, read_manifest, sync, write_manifest
from index.versions import Change, Embedding, Progress, build_bm25, build_dense, build_spann
from rankers.errors import ConfigError, InvalidInputError, NotReadyError, OverloadedError, StorageError
from rankers.types import Document

if TYPE_CHECKING:
    from index.bm25 import BM25Index
    from index.dense import DenseIndex, DenseKind
    from index.encoders import Encoder
    from index.spann.live import SpannIndex

DenseChoice = Literal["auto", "flat", "hnsw", "spann"]
"""How vectors are indexed: exact, by a graph in memory, on disk; ``auto`` is flat for few and spann for many."""

CORPUS_FILE = "corpus.sqlite"
LOCK_FILE = "BUILD.lock"
OLD_MANIFEST_FILE = "MANIFEST.json"
"""Where the manifest was before it was kept with the documents."""
MANIFEST = "manifest"
BM25, DENSE = "bm25", "dense"
BUILD_RETRY_S = 60.0
SPANN_DOCUMENTS = 50_000
"""Documents from which ``auto`` is spann: comparing with all of them takes a few milliseconds."""


class IndexDirectory:
    """Documents and the structures that search them, under one folder.

    ::

        corpus.sqlite      the documents, as they are now, and the manifest, which names the current version
        v000007/bm25/      search structures over the documents of version 7; never changed once written, but for the
        v000007/dense/     curve of a tuned index
        BUILD.lock         held while a version is made; the system frees it when the process ends, however it ends

    **One moment decides.** A build or a change writes its version beside the current one, waits for the disk, and then
    sets the manifest: a change in one transaction with its documents. Until then the old version and the old documents
    serve, whatever happens. What was left behind by one that died has a number above the manifest's, and the next one
    removes it. The version before the current one is kept, because somebody may just be opening it; what is open
    already stays as it is.

    **The corpus is the truth about documents, a version only about where to look.** Retrievers look every hit up in
    the corpus. So a document deleted is gone at once, also for those who have an older version open. Whoever writes to
    `corpus` itself, and not by `change`, has what is added found after the next build.

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

    def current(self) -> Manifest | None:
        """Say what the current version holds; None if nothing has been built."""
        if not (self.root / CORPUS_FILE).exists():
            return None
        text, place = self.corpus.state(MANIFEST), self.root / CORPUS_FILE
        if text is None and (old := self.root / OLD_MANIFEST_FILE).exists():
            text, place = old.read_text(), old
        return None if text is None else read_manifest(text, place)

    def manifest(self) -> Manifest:
        """Say what the current version holds; raises `NotReadyError` if nothing has been built."""
        manifest = self.current()
        if manifest is None:
            raise NotReadyError(f"nothing is built at {self.root}; run: shortlist index build SOURCE")
        return manifest

    def open_bm25(self, manifest: Manifest | None = None) -> BM25Index:
        """Load BM25 of a version, the current one if none is given; raises `NotReadyError` if there is none."""
        from index.bm25 import BM25Index

        return BM25Index.load(self._part(BM25, manifest or self.manifest()))

    def open_dense(self, manifest: Manifest | None = None) -> DenseIndex | SpannIndex:
        """Load the vectors of a version, the current one if none is given; raises `NotReadyError` if there are none."""
        from index.dense import DenseIndex

        manifest = manifest or self.manifest()
        folder = self._part(DENSE, manifest)
        if manifest.dense_kind != "spann":
            return DenseIndex.load(folder)
        from index.spann.live import SpannIndex

        return SpannIndex.open(folder, read_only=True)

    def folder(self, manifest: Manifest) -> Path:
        """Where the search structures of a version are."""
        return self._folder(manifest.version)

    def spann_folder(self) -> Path:
        """Folder of the current version's vectors; raises `NotReadyError` unless they are indexed by spann."""
        manifest = self.manifest()
        folder, kind = self._part(DENSE, manifest), manifest.dense_kind
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
        with self.exclusive():
            folder, version = self._new_version(self.current())
            ids = build_bm25(corpus, folder / BM25, report)
            kind = _chosen(dense_kind, len(ids))
            if encoder is not None:
                embedding = Embedding(corpus, ids, encoder, report)
                if kind == "spann":
                    build_spann(embedding, folder / DENSE, max_memory_mb)
                else:
                    build_dense(embedding, folder / DENSE, kind)
            manifest = Manifest(
                version=version,
                built_at=_now(),
                documents=len(ids),
                parts=(BM25,) if encoder is None else (BM25, DENSE),
                encoder=encoder_name,
                dense_kind=None if encoder is None else kind,
            )
            self._publish(manifest)
        return manifest

    def change(
        self,
        documents: Iterable[Document] = (),
        deleted: Sequence[str] = (),
        *,
        encoder: Encoder | None = None,
        encoder_name: str | None = None,
        on_progress: Progress | None = None,
    ) -> Manifest | None:
        """Add documents, or replace those with the same ids, and delete others: all of it or nothing.

        When this returns, what was added is on disk and found by words and by vectors; nothing else is embedded or
        read again. Documents are held in memory meanwhile: for millions, build.

        Parameters
        ----------
        documents
            To add; of several with one id, the last counts.
        deleted
            Ids to delete; unknown ones are no error.
        encoder
            What embedded the documents that are there; needed to add some where those were embedded.
        encoder_name
            What the configuration calls the encoder.
        on_progress
            Called now and then.

        Returns
        -------
        Manifest or None
            Of the new version; None if nothing has been built yet, and the documents were only stored.

        Raises
        ------
        OverloadedError
            If a build or another change of this directory is running.
        ConfigError
            If the documents that are there were embedded by another encoder.
        InvalidInputError
            If documents cannot be stored, or there is no encoder.
        NotReadyError
            If the index was built before documents could be added to it.
        StorageError
            If the disk is full or fails; nothing has changed then.
        """
        report = on_progress or _silent
        corpus = self.corpus  # makes the folder
        with self.exclusive():
            current = self.current()
            change = Change(documents, deleted, corpus)
            check_storable(change.documents)
            if current is None:
                corpus.change(change.documents, change.deleted)
                return None
            if change.documents and current.encoder is not None:
                self._check_encoder(current, encoder, encoder_name)
            try:
                folder, version = self._new_version(current)
                size = change.change_bm25(self._part(BM25, current), folder / BM25, report)
                if DENSE in current.parts:
                    write = change.change_spann if current.dense_kind == "spann" else change.change_dense
                    write(self._part(DENSE, current), folder / DENSE, encoder, report)
                manifest = replace(current, version=version, built_at=_now(), documents=size)
                self._publish(manifest, change)
            except (OSError, sqlite3.Error) as error:  # what is left is removed by the next build or change
                raise StorageError(
                    f"the index at {self.root} cannot be changed: {error}; make room and try again"
                ) from error
        return manifest

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep others from making versions meanwhile; raises `OverloadedError` if one is being made."""
        descriptor = os.open(self.root / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OverloadedError(
                    f"another build or change of {self.root} is running; wait until it has finished",
                    retry_after_s=BUILD_RETRY_S,
                ) from None
            yield
        finally:
            os.close(descriptor)

    def _check_encoder(self, current: Manifest, encoder: Encoder | None, name: str | None) -> None:
        if encoder is None:
            raise InvalidInputError(f"the index at {self.root} has vectors of {current.encoder!r}; give that encoder")
        if name != current.encoder:
            raise ConfigError(
                f"the index at {self.root} has vectors of {current.encoder!r}, the configuration says encoder "
                f"{name!r}; build it again with: shortlist index build"
            )

    def _part(self, name: str, manifest: Manifest) -> Path:
        if name not in manifest.parts:
            raise NotReadyError(f"the index at {self.root} was built without {name}; run: shortlist index build")
        return self._folder(manifest.version) / name

    def _folder(self, version: int) -> Path:
        return self.root / f"v{version:06d}"

    def _new_version(self, current: Manifest | None) -> tuple[Path, int]:
        """Give the folder and the number of the next version, and remove what is left of attempts to make it."""
        version = current.version + 1 if current else 1
        self._remove_versions(lambda number: number >= version)
        folder = self._folder(version)
        folder.mkdir()
        return folder, version

    def _publish(self, manifest: Manifest, change: Change | None = None) -> None:
        """Make a version the current one, in one transaction with the change that it is the result of."""
        folder = self._folder(manifest.version)
        for path in (*folder.rglob("*"), folder, self.root):
            sync(path)
        state = {MANIFEST: write_manifest(manifest)}
        if change is None:
            self.corpus.change(state=state)
        else:
            self.corpus.change(change.documents, change.deleted, state=state)
        (self.root / OLD_MANIFEST_FILE).unlink(missing_ok=True)
        self._remove_versions(lambda number: number < manifest.version - 1)

    def _remove_versions(self, unwanted: Callable[[int], bool]) -> None:
        for folder in self.root.glob("v[0-9]*"):
            if folder.name[1:].isdigit() and unwanted(int(folder.name[1:])):
                shutil.rmtree(folder)


def _chosen(kind: DenseChoice, documents: int) -> DenseKind | Literal["spann"]:
    if kind == "auto":
        return "spann" if documents >= SPANN_DOCUMENTS else "flat"
    return kind


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _silent(phase: str, done: int, total: int) -> None:
    """Report to nobody."""
