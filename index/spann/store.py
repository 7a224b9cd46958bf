"""What an index that is written to has on disk: its log, its manifest, and the lock that says whose it is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from index.spann.manifest import LiveManifest, LogEntry, stage, switch
from index.spann.parts import DeltaSource, Part, SegmentSource
from index.spann.recovery import Recovered
from index.spann.wal import LogWriter
from rankers.errors import StorageError


class Store:
    """Keeps what it is told, and then says so. Callers take turns.

    Parameters
    ----------
    root
        Folder of the index.
    recovered
        What is in it.
    lock
        Of `files.hold_lock`; None to look only, and keep nothing.
    """

    def __init__(self, root: Path, recovered: Recovered, lock: int | None) -> None:
        self.root = root
        self.manifest = recovered.manifest
        self._lock = lock
        self._broken: str | None = None
        self._log: LogWriter | None = None
        self._end = recovered.log_end
        if lock is not None:
            path = root / recovered.manifest.logs[-1].name
            self._log = LogWriter(path, number=recovered.last_record, end=recovered.log_end)

    @property
    def is_writable(self) -> bool:
        """Whether it was opened for writing and has not been closed."""
        return self._log is not None

    @property
    def log_end(self) -> int:
        """Bytes of the last log that hold records."""
        return self._end if self._log is None else self._log.end

    def append(self, body: bytes) -> None:
        """Write a record to the log; raises `StorageError` if that fails, and then it is not there."""
        self._writer().append(body)

    def seal(self) -> LogEntry | None:
        """End the log, if it holds anything, and begin a new one, whose entry this gives."""
        log, entries = self._writer(), self.manifest.logs
        if log.number == entries[-1].after:
            return None
        entry = LogEntry(max(one.number for one in entries) + 1, after=log.number, end=None)
        path = self.root / entry.name
        path.unlink(missing_ok=True)  # left by an attempt that failed
        following = LogWriter(path, number=log.number)
        try:
            self._publish(self.manifest.next(logs=(*entries[:-1], replace(entries[-1], end=log.end), entry)))
        except StorageError:
            following.close()
            raise
        log.close()
        self._log = following
        return entry

    def commit(self, segments: Sequence[Part[SegmentSource]], deltas: Sequence[Part[DeltaSource]]) -> None:
        """Make an index of these segments and of the logs of these delta buffers the current one.

        Parameters
        ----------
        segments
            From old to new.
        deltas
            From old to new; the last is written to.

        Raises
        ------
        StorageError
            If the disk is full or fails. Then the index before is current; where that is not sure, nothing more is
            written.
        """
        self._writer()
        before = self.manifest
        try:
            entries = tuple(part.source.save_live(part.live, before.number + 1) for part in segments)
        except OSError as error:
            raise StorageError(f"the index at {self.root} cannot be written: {error}") from error
        logs = {part.source.log for part in deltas}
        kept = tuple(log for log in before.logs if log.number in logs)
        self._publish(before.next(segments=entries, logs=kept))
        for part, entry in zip(segments, entries, strict=True):
            part.source.entry, part.source.saved_live = entry, part.live
        self._remove_unnamed(before)

    def discard(self, segment: SegmentSource) -> None:
        """Remove a segment that did not become part of the index, unless that is not sure."""
        if self._broken is None:
            segment.retire()

    def close(self) -> None:
        """Close the log and let others write."""
        if self._log is not None:
            self._end = self._log.end
            self._log.close()
            self._log = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _writer(self) -> LogWriter:
        if self._log is None or self._broken is not None:
            reason = self._broken or "it is not open for writing"
            raise StorageError(f"the index at {self.root} takes no writes: {reason}; open it again")
        return self._log

    def _publish(self, manifest: LiveManifest) -> None:
        try:
            stage(self.root, manifest)
        except OSError as error:
            raise StorageError(f"{self.root / manifest.file} cannot be written: {error}") from error
        try:
            switch(self.root)
        except OSError as error:
            self._broken = f"{manifest.file} may or may not be current ({error})"
            raise StorageError(f"the index at {self.root}: {self._broken}; open it again") from error
        with contextlib.suppress(OSError):  # here and below: whatever stays is removed when the index is opened
            (self.root / self.manifest.file).unlink()
        self.manifest = manifest

    def _remove_unnamed(self, before: LiveManifest) -> None:
        """Remove logs and bitmaps that are no longer named; segments go when nobody searches them any more."""
        folders = {entry.folder for entry in self.manifest.segments}
        for name in set(before.paths) - set(self.manifest.paths):
            path = Path(name)
            if path.parent == Path() or path.parent.as_posix() in folders:
                with contextlib.suppress(OSError):
                    (self.root / path).unlink()
