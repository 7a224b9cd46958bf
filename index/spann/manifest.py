"""The manifest of an index: which files are the index, with their sizes and checksums.

::

    CURRENT                    name of the current manifest
    MANIFEST-000007.json       never changed; a new one is written, synced, and made current by one rename
    segments/000003/           vectors, ids and metadata of many rows, never changed
    segments/000003/live-000007.bin   rows of it that were not deleted, as of manifest 7
    log-000004.wal             what was written since
    LOCK                       held by the one process that writes
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from index.arrays import file_crc
from index.manifest import sync
from index.spann.parameters import SpannParameters
from rankers.errors import CorruptIndexError, NotReadyError

CURRENT_FILE = "CURRENT"
STAGED_FILE = ".CURRENT"
LOCK_FILE = "LOCK"
SEGMENTS = "segments"
FORMAT = 1
_NAME = re.compile(r"MANIFEST-(\d{6,})\.json")


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What a file must be."""

    bytes: int
    crc32: int


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """One segment: its folder's number, its rows, those alive, and its files by their names in that folder.

    `live` names the file with the rows that are alive, None where all are.
    """

    number: int
    rows: int
    live: str | None
    files: Mapping[str, FileStamp]

    @property
    def folder(self) -> str:
        """Where it is, below the index."""
        return f"{SEGMENTS}/{self.number:06d}"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One log; `after` is the number of the last record before it, `end` its bytes if nothing more is written to it."""

    number: int
    after: int
    end: int | None

    @property
    def name(self) -> str:
        """Name of the file."""
        return f"log-{self.number:06d}.wal"


@dataclass(frozen=True, slots=True)
class LiveManifest:
    """What an index consists of. Segments from old to new; the last log is the one that is written to."""

    number: int
    dimensions: int
    parameters: SpannParameters
    segments: tuple[SegmentEntry, ...]
    logs: tuple[LogEntry, ...]

    @property
    def file(self) -> str:
        """Name of the manifest's own file."""
        return f"MANIFEST-{self.number:06d}.json"

    @property
    def paths(self) -> Iterator[str]:
        """Every file it names, below the index."""
        for segment in self.segments:
            yield from (f"{segment.folder}/{name}" for name in segment.files)
        yield from (log.name for log in self.logs)

    def next(self, **changes: Any) -> LiveManifest:
        """Make the manifest after this one."""
        return replace(self, number=self.number + 1, **changes)


def read_current(root: Path) -> LiveManifest:
    """Read the manifest that is current.

    Parameters
    ----------
    root
        Folder of the index.

    Returns
    -------
    LiveManifest
        Checked against its own checksum; the files it names are not looked at.

    Raises
    ------
    NotReadyError
        If there is no index, or its first build did not finish.
    CorruptIndexError
        If CURRENT or the manifest is damaged.
    """
    current = root / CURRENT_FILE
    try:
        name = current.read_text().strip()
    except FileNotFoundError:
        raise NotReadyError(f"there is no index at {root}: {CURRENT_FILE} is missing; build it") from None
    except UnicodeDecodeError as error:
        raise CorruptIndexError(f"{current} is damaged: {error}") from error
    if not _NAME.fullmatch(name):
        raise CorruptIndexError(f"{current} is damaged: it has {name[:40]!r} instead of the name of a manifest")
    return read_manifest(root / name)


def read_manifest(path: Path) -> LiveManifest:
    """Read one manifest; raises `CorruptIndexError` if it is missing or damaged."""
    try:
        content = json.loads(path.read_text())
        crc = content.pop("crc32")
        if crc != _crc(content) or content.pop("format") != FORMAT:
            raise ValueError("its checksum or format does not fit")
        return LiveManifest(
            number=content["number"],
            dimensions=content["dimensions"],
            parameters=SpannParameters(**content["parameters"]),
            segments=tuple(_segment(entry) for entry in content["segments"]),
            logs=tuple(LogEntry(**entry) for entry in content["logs"]),
        )
    except FileNotFoundError:
        raise CorruptIndexError(f"{path} is missing") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptIndexError(f"{path} is damaged: {error}") from error


def stage(root: Path, manifest: LiveManifest) -> None:
    """Write a manifest, and what will make it current; whatever fails here leaves the one before it current."""
    content = {"format": FORMAT, **asdict(manifest)}
    path = root / manifest.file
    path.write_text(json.dumps(content | {"crc32": _crc(content)}, indent=1) + "\n")
    sync(path)
    staged = root / STAGED_FILE
    staged.write_text(manifest.file + "\n")
    sync(staged)
    sync(root)


def switch(root: Path) -> None:
    """Make the staged manifest current, by one rename; a crash leaves either the one before or this one."""
    (root / STAGED_FILE).replace(root / CURRENT_FILE)
    sync(root)


def stamp(path: Path) -> FileStamp:
    """Measure a file that is complete."""
    return FileStamp(path.stat().st_size, file_crc(path))


def check_sizes(root: Path, manifest: LiveManifest) -> None:
    """Raise `CorruptIndexError` for the first file of a segment that is missing or has another size; cheap."""
    for segment in manifest.segments:
        for name, expected in segment.files.items():
            path = root / segment.folder / name
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                raise CorruptIndexError(f"{path} is missing") from None
            if size != expected.bytes:
                raise CorruptIndexError(f"{path} has {size} bytes instead of {expected.bytes}")


def _segment(entry: dict[str, Any]) -> SegmentEntry:
    files = {name: FileStamp(**stamp) for name, stamp in entry["files"].items()}
    return SegmentEntry(**{**entry, "files": files})


def _crc(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())
