"""Making an index: of a stream of vectors, empty, or of a snapshot."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from index.manifest import sync
from index.spann.files import copy_index, hold_lock
from index.spann.manifest import (
    CURRENT_FILE,
    SEGMENTS,
    LiveManifest,
    LogEntry,
    SegmentEntry,
    stage,
    stamp,
    switch,
)
from index.spann.parameters import SpannParameters
from index.spann.parts import VECTORS_FOLDER
from index.spann.recovery import recover
from index.spann.rows import FILES, Metadata, Rows, write_rows
from index.spann.segment import Progress, Segment
from index.spann.segment_build import EXACT_VECTORS, SEGMENT_FILE
from index.spann.vectors import VectorStream, prepare_vectors
from index.spann.wal import LogWriter
from rankers.errors import InvalidInputError, StorageError


def build_index(
    root: Path,
    rows: Iterable[tuple[str, Metadata]],
    vectors: VectorStream,
    *,
    parameters: SpannParameters | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Make an index of many rows. Called again after it was killed, with the same input, it goes on where it was.

    Parameters
    ----------
    root
        Folder of the index; it holds none yet.
    rows
        Id and metadata of each vector, in their order; read once.
    vectors
        As many; they need not fit in memory. None makes an index that is empty.
    parameters
        How segments are built, now and when they are merged.
    on_progress
        Called now and then.

    Raises
    ------
    InvalidInputError
        If there is an index, ids and vectors are not as many, an id occurs twice, or a vector cannot be indexed.
    StorageError
        If the disk is full or fails; what was done so far is kept.
    """
    parameters = parameters or SpannParameters()
    try:
        lock = hold_lock(root)
        try:
            if (root / CURRENT_FILE).exists():
                raise InvalidInputError(f"there is an index at {root}; give another folder, or remove it")
            segments = _first_segment(root, rows, vectors, parameters, on_progress)
            log = LogEntry(1, after=0, end=None)
            (root / log.name).unlink(missing_ok=True)
            LogWriter(root / log.name, number=0).close()
            stage(root, LiveManifest(1, vectors.dimensions, parameters, segments, (log,)))
            switch(root)
            sync(root.parent)
        finally:
            os.close(lock)
    except (OSError, RuntimeError) as error:  # FAISS tells of a full disk with the latter
        raise StorageError(f"the index at {root} cannot be built: {error}; make room and build again") from error


def segment_entry(folder: Path, *, live: str | None = None) -> SegmentEntry:
    """Say what a manifest is to say of a new segment, and wait until the disk has it.

    Of the vectors' own folder it names only the file that has the checksums of the others. `live` names the file with
    the rows that are alive, None where all are.
    """
    names = (*FILES, *([live] if live else ()), f"{VECTORS_FOLDER}/{SEGMENT_FILE}")
    for path in (folder, folder.parent, folder.parent.parent):
        sync(path)
    return SegmentEntry(int(folder.name), len(Rows(folder)), live, {name: stamp(folder / name) for name in names})


def link_index(source: Path, root: Path) -> None:
    """Make an index of one that nobody writes to: its segments by hard links, its logs by copies; nothing is checked.

    Parameters
    ----------
    source
        Folder of the index; it stays as it is, whatever is written to the other one.
    root
        A folder that does not exist; it appears when it is complete.

    Raises
    ------
    InvalidInputError
        If `root` exists.
    CorruptIndexError
        If the manifest or a log is damaged.
    StorageError
        If the disk is full or fails.
    """
    recovered = recover(source)
    copy_index(source, recovered.manifest, recovered.log_end, root)


def restore(snapshot: Path, root: Path) -> None:
    """Make an index of a snapshot.

    Parameters
    ----------
    snapshot
        What `SpannIndex.snapshot` made; all of it is checked first, and it stays as it is.
    root
        A folder that does not exist.

    Raises
    ------
    InvalidInputError
        If `root` exists.
    CorruptIndexError
        If the snapshot is damaged.
    StorageError
        If the disk is full or fails.
    """
    recovered = recover(snapshot, verify=True)
    copy_index(snapshot, recovered.manifest, recovered.log_end, root)


def _first_segment(
    root: Path,
    rows: Iterable[tuple[str, Metadata]],
    vectors: VectorStream,
    parameters: SpannParameters,
    on_progress: Progress | None,
) -> tuple[SegmentEntry, ...]:
    folder = root / SEGMENTS / "000001"
    folder.mkdir(parents=True, exist_ok=True)
    count = write_rows(folder, rows)
    if count != len(vectors):
        raise InvalidInputError(f"there are {count} ids and {len(vectors)} vectors; give one id per vector")
    if not count:
        shutil.rmtree(folder)
        return ()
    if count > EXACT_VECTORS:
        parameters = parameters.for_segment(count, vectors.dimensions, vectors=count, others=0)
    if not _is_built(folder / VECTORS_FOLDER, vectors, parameters):
        Segment.build(folder / VECTORS_FOLDER, vectors, parameters=parameters, on_progress=on_progress)
    return (segment_entry(folder),)


def _is_built(folder: Path, vectors: VectorStream, parameters: SpannParameters) -> bool:
    """Whether an attempt that died right before the manifest had built the same; what is other is removed."""
    if not (folder / SEGMENT_FILE).exists():
        return False
    segment = Segment.open(folder)
    first = next(iter(vectors.blocks(1)))
    made = prepare_vectors(first, parameters.metric)
    same = segment.parameters == parameters and len(segment) == len(vectors) and segment.dimensions == made.shape[1]
    same = same and np.array_equal(segment.vectors(np.array([0])), made)
    segment.close()
    if not same:
        shutil.rmtree(folder)
    return same
