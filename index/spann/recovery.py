"""From the files of an index to what it held when the last write was acknowledged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from index import bitmaps
from index.spann.delta import Delta
from index.spann.manifest import LiveManifest, LogEntry, check_sizes, read_current
from index.spann.operations import decode
from index.spann.parts import DeltaSource, Part, SegmentSource, View
from index.spann.wal import LogContent, read_log
from rankers.errors import CorruptIndexError

ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Recovered:
    """An index as it was: its manifest, what it held, the number of the last record, and the end of the last log."""

    manifest: LiveManifest
    view: View
    last_record: int
    log_end: int


def recover(root: Path, *, verify: bool = False) -> Recovered:
    """Open the segments of an index and repeat what its logs say.

    Parameters
    ----------
    root
        Folder of the index.
    verify
        Whether to compare all checksums.

    Returns
    -------
    Recovered
        What it holds. A record that was cut short at the very end of the last log is left out.

    Raises
    ------
    NotReadyError
        If there is no index.
    CorruptIndexError
        If a file is missing or damaged.
    """
    for _ in range(ATTEMPTS):
        manifest = read_current(root)
        try:
            return _recover(root, manifest, verify=verify)
        except CorruptIndexError:
            # A merge of the process that writes may have removed files that were current a moment ago.
            if read_current(root).number == manifest.number:
                raise
    raise CorruptIndexError(f"the index at {root} changes faster than it can be opened")


def _recover(root: Path, manifest: LiveManifest, *, verify: bool) -> Recovered:
    check_sizes(root, manifest)
    view = View(tuple(SegmentSource(root, entry, verify=verify).part() for entry in manifest.segments))
    last, end = 0, 0
    for entry in manifest.logs:
        content = read_log(root / entry.name, after=entry.after, end=entry.end)
        view = View(view.segments, (*view.deltas, empty_part(manifest, entry)))
        view = _replayed(view, content, root / entry.name, manifest.dimensions)
        last = content.records[-1].number if content.records else entry.after
        end = content.end
    return Recovered(manifest, view, last, end)


def empty_part(manifest: LiveManifest, entry: LogEntry) -> Part[DeltaSource]:
    """Make the delta buffer of a log that is empty."""
    delta = Delta(manifest.dimensions, manifest.parameters.metric)
    return Part(DeltaSource(entry.number, delta), bitmaps.no_rows(0), 0)


def _replayed(view: View, content: LogContent, path: Path, dimensions: int) -> View:
    for record in content.records:
        try:
            view = view.after(decode(record.body, dimensions))
        except ValueError as error:
            raise CorruptIndexError(f"{path} is damaged at byte {record.start}: {error}") from error
    return view
