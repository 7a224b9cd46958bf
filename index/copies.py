"""Copies of an index directory: documents and the version that is current, in a folder that stands on its own."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from index.directory import CORPUS_FILE, DENSE, MANIFEST, IndexDirectory
from index.manifest import sync, write_manifest
from rankers.errors import InvalidInputError, ShortlistError, StorageError

ATTEMPTS = 10


def copy_directory(source: IndexDirectory, target: Path) -> None:
    """Copy an index directory while it is searched and documents are added: for a snapshot, or to restore one.

    Parameters
    ----------
    source
        What to copy; builds and changes of it may run.
    target
        A folder that does not exist, or that is empty; it appears when it is complete.

    Raises
    ------
    NotReadyError
        If nothing has been built at `source`.
    InvalidInputError
        If there is something at `target`.
    CorruptIndexError
        If the vectors on disk are damaged.
    StorageError
        If the disk is full or fails.
    """
    manifest = source.manifest()
    if target.exists() and any(target.iterdir()):
        raise InvalidInputError(f"{target} is not empty; give a folder that does not exist", field="target")
    staged = target.with_name(f".{target.name}.partial")
    try:
        for attempt in range(ATTEMPTS):
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir(parents=True)
            _copy_corpus(source.root / CORPUS_FILE, staged / CORPUS_FILE)
            copy = IndexDirectory(staged)
            if copy.current() is None:  # an older version kept the manifest in a file of its own
                copy.corpus.change(state={MANIFEST: write_manifest(manifest)})
            try:
                _copy_version(source, copy)
                break
            except (OSError, ShortlistError):
                # Versions come and go meanwhile; the copy of the documents says which one belongs to them.
                if attempt == ATTEMPTS - 1 or source.manifest().version == copy.manifest().version:
                    raise
            finally:
                copy.corpus.close()
        for folder, _, names in os.walk(staged):
            for path in (*(Path(folder) / name for name in names), Path(folder)):
                sync(path)
        if target.exists():
            target.rmdir()
        staged.rename(target)
        sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        shutil.rmtree(staged, ignore_errors=True)
        raise StorageError(f"{source.root} cannot be copied to {target}: {error}") from error
    except ShortlistError:
        shutil.rmtree(staged, ignore_errors=True)
        raise


def _copy_version(source: IndexDirectory, copy: IndexDirectory) -> None:
    manifest = copy.manifest()
    before, after = source.folder(manifest), copy.folder(manifest)
    after.mkdir()
    for part in manifest.parts:
        if part == DENSE and manifest.dense_kind == "spann":
            _copy_spann(before / part, after / part)
        else:
            shutil.copytree(before / part, after / part)


def _copy_spann(source: Path, target: Path) -> None:
    from index.spann.building import link_index
    from index.spann.recovery import recover

    link_index(source, target)
    recover(target, verify=True)


def _copy_corpus(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as write:
        read.backup(write)
