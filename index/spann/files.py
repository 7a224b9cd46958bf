"""The folder of an index: who may write to it, what does not belong to it, and copies of it."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from index.manifest import sync
from index.spann.manifest import CURRENT_FILE, LOCK_FILE, SEGMENTS, LiveManifest, stage, switch
from index.spann.parts import VECTORS_FOLDER
from rankers.errors import InvalidInputError, OverloadedError, StorageError

RETRY_S = 10.0


def hold_lock(root: Path) -> int:
    """Become the process that writes to an index; the system frees it when the process ends, however it ends.

    Parameters
    ----------
    root
        Folder of the index; made if missing.

    Returns
    -------
    int
        A file descriptor; closing it lets others write.

    Raises
    ------
    OverloadedError
        If another process, or another object of this one, writes to it.
    """
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OverloadedError(
            f"the index at {root} is open for writing elsewhere; close it there, or open it read-only",
            retry_after_s=RETRY_S,
        ) from None
    return descriptor


def is_being_written(root: Path) -> bool:
    """Whether somebody has the index open for writing just now."""
    try:
        with (root / LOCK_FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def orphans(root: Path, manifest: LiveManifest) -> Iterator[Path]:
    """Files and folders that do not belong to an index: what a build, a merge or a write that died left behind.

    Parameters
    ----------
    root
        Folder of the index.
    manifest
        The current one.

    Yields
    ------
    Path
        A file, or a whole folder of a segment.
    """
    wanted = {CURRENT_FILE, LOCK_FILE, SEGMENTS, manifest.file, *(log.name for log in manifest.logs)}
    yield from (path for path in sorted(root.iterdir()) if path.name not in wanted)
    segments = {Path(entry.folder).name: entry for entry in manifest.segments}
    for folder in sorted((root / SEGMENTS).iterdir()) if (root / SEGMENTS).is_dir() else ():
        entry = segments.get(folder.name)
        if entry is None:
            yield folder
        else:
            yield from (p for p in sorted(folder.iterdir()) if p.name not in {*entry.files, VECTORS_FOLDER})


def new_segment_folder(root: Path) -> Path:
    """Name a folder for the next segment; it does not exist."""
    numbers = (int(folder.name) for folder in (root / SEGMENTS).glob("[0-9]*"))
    return root / SEGMENTS / f"{max(numbers, default=0) + 1:06d}"


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def copy_index(root: Path, manifest: LiveManifest, log_end: int, target: Path) -> None:
    """Copy an index into a new folder that stands on its own, by hard links where the file system has them.

    Parameters
    ----------
    root
        Folder of the index; nobody may remove files from it meanwhile.
    manifest
        Which files.
    log_end
        Bytes to take of the last log.
    target
        A folder that does not exist; it appears when it is complete.

    Raises
    ------
    InvalidInputError
        If `target` exists.
    StorageError
        If the disk is full or fails.
    """
    if target.exists():
        raise InvalidInputError(f"{target} exists; give a folder that does not", field="target")
    staged = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        for entry in manifest.segments:
            for source in sorted((root / entry.folder).rglob("*")):
                name = source.relative_to(root / entry.folder).as_posix()
                if source.is_file() and (name in entry.files or name.startswith(f"{VECTORS_FOLDER}/")):
                    _link(source, staged / entry.folder / name)
        for log in manifest.logs:
            _copy(root / log.name, staged / log.name, log_end if log.end is None else log.end)
        for folder in (path for path in staged.rglob("*") if path.is_dir()):
            sync(folder)
        stage(staged, manifest)
        switch(staged)
        staged.rename(target)
        sync(target.parent)
    except OSError as error:
        shutil.rmtree(staged, ignore_errors=True)
        raise StorageError(f"{root} cannot be copied to {target}: {error}") from error


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copyfile(source, target)
        sync(target)


def _copy(source: Path, target: Path, size: int) -> None:
    with source.open("rb") as read, target.open("xb") as write:
        while size and (piece := read.read(min(size, 1 << 20))):
            write.write(piece)
            size -= len(piece)
        write.flush()
        os.fsync(write.fileno())
