"""Copies of an index directory: documents and the version that is current, in a folder that stands on its own."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from index.directory import CORPUS_FILE, DENSE, IndexDirectory
from index.manifest import publish_manifest, sync
from rankers.errors import InvalidInputError, StorageError


def copy_directory(source: IndexDirectory, target: Path) -> None:
    """Copy an index directory while it is searched and documents are added: for a snapshot, or to restore one.

    Parameters
    ----------
    source
        What to copy; a build of it may run.
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
        shutil.rmtree(staged, ignore_errors=True)
        version = staged / source.version_folder.name
        version.mkdir(parents=True)
        _copy_corpus(source.root / CORPUS_FILE, staged / CORPUS_FILE)
        for part in manifest.parts:
            if part == DENSE and manifest.dense_kind == "spann":
                _copy_spann(source.version_folder / part, version / part)
            else:
                shutil.copytree(source.version_folder / part, version / part)
        for folder, _, names in os.walk(staged):
            for path in (*(Path(folder) / name for name in names), Path(folder)):
                sync(path)
        publish_manifest(staged, manifest)
        if target.exists():
            target.rmdir()
        staged.rename(target)
        sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        shutil.rmtree(staged, ignore_errors=True)
        raise StorageError(f"{source.root} cannot be copied to {target}: {error}") from error


def _copy_spann(source: Path, target: Path) -> None:
    from index.spann.building import restore

    restore(source, target)


def _copy_corpus(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as write:
        read.backup(write)
