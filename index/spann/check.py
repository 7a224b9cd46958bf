"""Checking an index: every checksum, every invariant, and what can be mended."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from index.spann import files
from index.spann.building import segment_entry
from index.spann.curve import CURVE_FILE, Curve, read_curve
from index.spann.files import new_segment_folder
from index.spann.manifest import (
    CURRENT_FILE,
    STAGED_FILE,
    FileStamp,
    LiveManifest,
    SegmentEntry,
    read_current,
    read_manifest,
    stage,
    stamp,
    switch,
)
from index.spann.parameters import SpannParameters
from index.spann.parts import VECTORS_FOLDER, SegmentSource
from index.spann.recovery import ATTEMPTS, recover
from index.spann.rows import DERIVED_FILES, FILES, ROWS_FILE, write_derived
from index.spann.segment import Segment
from index.spann.segment_build import EXACT_VECTORS, SEGMENT_FILE, VECTORS_FILE
from index.spann.vectors import ArrayStream
from index.spann.wal import read_log
from rankers.errors import CorruptIndexError, NotReadyError, ShortlistError

TUNE = "run: shortlist index tune"
NO_REMEDY = "restore a snapshot, or build the index again"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: the file or folder, what it is, whether it has been mended, and what to do otherwise.

    `harmless` says that the index answers correctly with it: leftovers of a crash, an old curve. `rebuildable` says
    that a segment can be built again of its raw vectors.
    """

    path: Path
    problem: str
    repaired: bool = False
    harmless: bool = False
    rebuildable: bool = False
    remedy: str = NO_REMEDY


def check(root: Path, *, repair: bool = False) -> list[Finding]:
    """Read all files of an index and compare them with what they must be.

    Mended are: leftovers of builds, merges and writes that died; a log whose last record was cut short; a missing or
    damaged file that follows from others, as the postings do from the raw vectors; a CURRENT that is damaged or
    missing where only one manifest is left.

    Parameters
    ----------
    root
        Folder of the index.
    repair
        Whether to mend; then nobody may have the index open for writing. Otherwise somebody may, and what looks like
        leftovers is then left out, because it may be what they are at.

    Returns
    -------
    list of Finding
        Empty if all is well.

    Raises
    ------
    NotReadyError
        If the folder does not exist.
    OverloadedError
        If it is to be mended and is open for writing.
    """
    if not root.is_dir():
        raise NotReadyError(f"there is no index at {root}")
    if not repair:
        return _findings_beside_a_writer(root) if files.is_being_written(root) else list(_findings(root, repair=False))
    lock = files.hold_lock(root)
    try:
        return list(_findings(root, repair=True))
    finally:
        os.close(lock)


def _findings_beside_a_writer(root: Path) -> list[Finding]:
    found: list[Finding] = []
    for _ in range(ATTEMPTS):
        before = (root / CURRENT_FILE).read_bytes()
        found = [finding for finding in _findings(root, repair=False) if not finding.harmless]
        if not found or (root / CURRENT_FILE).read_bytes() == before:
            break  # else files may have gone because a merge has replaced them
    return found


def _findings(root: Path, *, repair: bool) -> Iterator[Finding]:
    is_current = True
    try:
        manifest = read_current(root)
    except ShortlistError as error:
        manifest_or_none = _only_manifest(root)
        if manifest_or_none is None:
            yield Finding(root / CURRENT_FILE, str(error))
            return
        if repair:
            (root / STAGED_FILE).write_text(manifest_or_none.file + "\n")
            switch(root)
        yield Finding(root / CURRENT_FILE, str(error), repaired=repair, remedy=f"it names {manifest_or_none.file}")
        manifest, is_current = manifest_or_none, repair
    found: list[Finding] = []
    for at, entry in enumerate(manifest.segments):
        found += _segment_findings(root, entry, repair=repair)
        for finding in _vectors_findings(root, entry):
            if finding.rebuildable and repair:
                segments = list(manifest.segments)
                segments[at] = _rebuilt(root, entry, manifest)
                manifest = manifest.next(segments=tuple(segments))
                stage(root, manifest)
                switch(root)
                finding = replace(finding, repaired=True)
            found.append(finding)
    found += _log_findings(root, manifest, repair=repair)
    if is_current and all(finding.repaired or finding.harmless for finding in found):
        found += _content_findings(root)
    yield from found
    yield from _curve_findings(root, manifest)
    for path in files.orphans(root, manifest):
        if repair:
            files.remove(path)
        yield Finding(path, "it belongs to nothing", repaired=repair, harmless=True, remedy="it can be removed")


def _only_manifest(root: Path) -> LiveManifest | None:
    """Give the manifest that CURRENT must have named, if there is no doubt: the one that is whole and has its files."""
    whole = []
    for path in root.glob("MANIFEST-*.json"):
        try:
            manifest = read_manifest(path)
        except CorruptIndexError:
            continue
        if all((root / name).exists() for name in manifest.paths):
            whole.append(manifest)
    return whole[0] if len(whole) == 1 else None


def _segment_findings(root: Path, entry: SegmentEntry, *, repair: bool) -> Iterator[Finding]:
    folder = root / entry.folder
    damaged = {name: problem for name in entry.files if (problem := _problem(folder, name, entry))}
    derivable = set(damaged) <= set(DERIVED_FILES)
    if repair and damaged and derivable:
        write_derived(folder)  # gives the same bytes as it did before
    for name, problem in damaged.items():
        mended = repair and derivable and not _problem(folder, name, entry)
        remedy = f"it follows from {ROWS_FILE}: mend it" if derivable else NO_REMEDY
        yield Finding(folder / name, problem, repaired=mended, remedy=remedy)


def _vectors_findings(root: Path, entry: SegmentEntry) -> Iterator[Finding]:
    """Look at the files that the vectors' own folder vouches for: at most one finding."""
    folder = root / entry.folder / VECTORS_FOLDER
    if _problem(root / entry.folder, f"{VECTORS_FOLDER}/{SEGMENT_FILE}", entry):
        return
    try:
        Segment.open(folder, verify=True).close()
    except CorruptIndexError as error:
        raw = json.loads((folder / SEGMENT_FILE).read_text())["files"][VECTORS_FILE]
        path = folder / VECTORS_FILE
        rebuildable = path.exists() and stamp(path) == FileStamp(**raw)
        remedy = "it follows from the raw vectors: mend it" if rebuildable else NO_REMEDY
        yield Finding(folder, str(error), rebuildable=rebuildable, remedy=remedy)


def _curve_findings(root: Path, manifest: LiveManifest) -> Iterator[Finding]:
    """Look for segments that are searched with what was measured on other vectors, or not at all."""
    curves: list[tuple[Path, int, Curve | None]] = []
    for entry in manifest.segments:
        folder = root / entry.folder / VECTORS_FOLDER
        try:
            curves.append((folder, entry.rows, read_curve(folder)))
        except CorruptIndexError as error:
            yield Finding(folder / CURVE_FILE, str(error), remedy=TUNE)
    is_tuned = any(curve is not None for _, _, curve in curves)
    for folder, rows, curve in curves:
        if curve is not None and curve.is_inherited:
            before = "" if curve.vectors is None else f" of {curve.vectors:,} vectors"
            problem = f"the curve of these {rows:,} vectors was measured on a segment{before} that was merged into them"
            yield Finding(folder / CURVE_FILE, problem, harmless=True, remedy=TUNE)
        elif curve is None and is_tuned and rows > EXACT_VECTORS:
            problem = f"these {rows:,} vectors have no curve, and a wanted recall has no effect on them"
            yield Finding(folder / CURVE_FILE, problem, harmless=True, remedy=TUNE)


def _rebuilt(root: Path, entry: SegmentEntry, manifest: LiveManifest) -> SegmentEntry:
    """Build the same segment anew of its raw vectors, under another number."""
    old, folder = root / entry.folder, new_segment_folder(root)
    folder.mkdir()
    for name in (*FILES, *([entry.live] if entry.live else ())):
        shutil.copyfile(old / name, folder / name)
    shape = (entry.rows, manifest.dimensions)
    raw = np.memmap(old / VECTORS_FOLDER / VECTORS_FILE, np.float32, "r", shape=shape)
    made_with = json.loads((old / VECTORS_FOLDER / SEGMENT_FILE).read_text())["parameters"]
    Segment.build(folder / VECTORS_FOLDER, ArrayStream(raw), parameters=SpannParameters(**made_with))
    return segment_entry(folder, live=entry.live)


def _problem(folder: Path, name: str, entry: SegmentEntry) -> str:
    path, expected = folder / name, entry.files[name]
    if not path.exists():
        return "it is missing"
    found = stamp(path)
    if found.bytes != expected.bytes:
        return f"it has {found.bytes} bytes instead of {expected.bytes}"
    return "" if found == expected else "it has another checksum than when it was written"


def _log_findings(root: Path, manifest: LiveManifest, *, repair: bool) -> Iterator[Finding]:
    for log in manifest.logs:
        path = root / log.name
        try:
            content = read_log(path, after=log.after, end=log.end)
        except CorruptIndexError as error:
            yield Finding(path, str(error))
            continue
        if content.is_torn:
            if repair:
                os.truncate(path, content.end)
            yield Finding(
                path,
                f"the last record, at byte {content.end}, was cut short and never acknowledged",
                repaired=repair,
                harmless=True,
                remedy="it is dropped when the index is opened for writing",
            )


def _content_findings(root: Path) -> Iterator[Finding]:
    """Look at what only shows when all files are put together."""
    try:
        view = recover(root).view
    except ShortlistError as error:
        yield Finding(root, str(error))
        return
    seen: set[str] = set()
    for part in view.parts:
        where = part.source.folder if isinstance(part.source, SegmentSource) else root
        for row in part.live_rows.tolist():
            name = part.source.name(row)
            if name in seen:
                yield Finding(where, f"id {name!r} is alive twice")
            seen.add(name)
            if part.find([name]).tolist() != [row]:
                yield Finding(where, f"id {name!r} of row {row} is not found by its name")
