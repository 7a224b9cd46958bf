"""The write-ahead log: what was written since the segments were built, one record per call.

A file is 8 bytes of magic and then records::

    length  uint64   bytes of the body
    number  uint64   counts records from 1, on from the log before
    crc     uint32   CRC-32 of length and number
    body    `length` bytes
    crc     uint32   CRC-32 of the body, begun with the header's
    state   uint8    0 when written; 1 once the record is on disk and the caller may be told

**What may be dropped.** A crash can leave the last record cut short, or, if power fails, with zeros for content: it
was never acknowledged, and only it is dropped. The last byte of a record is set right after the disk has it; so a
record that carries the mark, or that has another one behind it, must be whole. Anything else is damage, and is named
with its place.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from index.manifest import sync
from rankers.errors import CorruptIndexError, StorageError

MAGIC = b"SLSWAL01"
PENDING, ACKNOWLEDGED = 0, 1
_COUNTS = struct.Struct("<QQ")
_CRC = struct.Struct("<I")
_TRAILER = struct.Struct("<IB")
_HEADER_BYTES = _COUNTS.size + _CRC.size


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record; `start` and `end` are bytes in the file."""

    number: int
    body: bytes
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class LogContent:
    """What a log holds; bytes from `end` on are a record that was cut short."""

    records: tuple[LogRecord, ...]
    end: int
    size: int

    @property
    def is_torn(self) -> bool:
        """Whether the last record was cut short."""
        return self.end < self.size


class LogWriter:
    """Appends records to a log. Not safe to share between threads.

    Parameters
    ----------
    path
        The file.
    number
        The last number that was used.
    end
        Where the next record goes; anything behind it is cut off. None makes a new, empty file.
    """

    def __init__(self, path: Path, *, number: int, end: int | None = None) -> None:
        self.path = path
        self.number = number
        self._failed: str | None = None
        if end is None:
            _create(path)
            end = len(MAGIC)
        self._descriptor = os.open(path, os.O_WRONLY)
        self.end = end
        if os.fstat(self._descriptor).st_size != end:
            os.ftruncate(self._descriptor, end)
            os.fsync(self._descriptor)

    def append(self, body: bytes) -> int:
        """Write a record; it is on disk when this returns.

        Parameters
        ----------
        body
            The record.

        Returns
        -------
        int
            Its number.

        Raises
        ------
        StorageError
            If the disk is full or fails. Then nothing was written, and if that cannot be made sure, no more records
            are taken until the log is opened again.
        """
        if self._failed is not None:
            raise StorageError(f"{self.path} takes no more writes since one failed ({self._failed}); open it again")
        record = _encode(self.number + 1, body)
        try:
            _write_all(self._descriptor, record, self.end)
        except OSError as error:
            self._take_back(error)
            raise StorageError(f"{self.path} cannot grow by {len(record)} bytes: {_reason(error)}") from error
        try:
            os.fsync(self._descriptor)
            os.pwrite(self._descriptor, bytes([ACKNOWLEDGED]), self.end + len(record) - 1)
        except OSError as error:
            # Which pages the disk has is unknown after that, and a second fsync would not tell.
            self._failed = str(error)
            raise StorageError(f"{self.path} could not be synced: {_reason(error)}; open it again") from error
        self.number += 1
        self.end += len(record)
        return self.number

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _take_back(self, error: OSError) -> None:
        try:
            os.ftruncate(self._descriptor, self.end)
            os.fsync(self._descriptor)
        except OSError:
            self._failed = str(error)


def read_log(path: Path, *, after: int, end: int | None = None) -> LogContent:
    """Read a log.

    Parameters
    ----------
    path
        The file.
    after
        Number of the last record before this log.
    end
        Bytes a log had when it was ended; None for the one that was still written to, whose last record may be torn.

    Returns
    -------
    LogContent
        Its records.

    Raises
    ------
    CorruptIndexError
        If the file is missing, or a record that was acknowledged is damaged; the message has the byte.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CorruptIndexError(f"{path} is missing; it has acknowledged writes") from None
    if end is not None and len(content) != end:
        raise CorruptIndexError(f"{path} has {len(content)} bytes instead of {end}")
    if content[: len(MAGIC)] != MAGIC:
        raise CorruptIndexError(f"{path} is damaged at byte 0: it does not begin as a log")
    records = []
    at = len(MAGIC)
    for record in _records(path, content, may_be_torn=end is None):
        if record.number != after + 1:
            raise CorruptIndexError(
                f"{path} is damaged at byte {record.start}: record {record.number} follows record {after}"
            )
        after, at = record.number, record.end
        records.append(record)
    return LogContent(tuple(records), at, len(content))


class _DamageError(ValueError):
    """A record that is not whole; `is_torn` says that a crash may have left it so."""

    def __init__(self, problem: str, *, is_torn: bool) -> None:
        super().__init__(problem)
        self.is_torn = is_torn


def _records(path: Path, content: bytes, *, may_be_torn: bool) -> Iterator[LogRecord]:
    at = len(MAGIC)
    while at < len(content):
        try:
            record = _record_at(content, at)
        except _DamageError as damage:
            if damage.is_torn and may_be_torn:
                return
            raise CorruptIndexError(f"{path} is damaged at byte {at}: {damage}") from damage
        yield record
        at = record.end


def _record_at(content: bytes, at: int) -> LogRecord:
    body_at = at + _HEADER_BYTES
    header = content[at:body_at]
    if len(header) < _HEADER_BYTES:
        raise _DamageError("a header is cut short", is_torn=True)
    if _CRC.unpack_from(header, _COUNTS.size)[0] != zlib.crc32(header[: _COUNTS.size]):
        raise _DamageError("the checksum of a header does not fit", is_torn=not any(content[at:]))
    length, number = _COUNTS.unpack_from(header)
    end = body_at + length + _TRAILER.size
    if end > len(content):
        raise _DamageError(f"record {number} is cut short", is_torn=True)
    body = content[body_at : body_at + length]
    crc, state = _TRAILER.unpack_from(content, body_at + length)
    if crc != zlib.crc32(body, zlib.crc32(header)):
        is_torn = end == len(content) and state == PENDING
        raise _DamageError(f"the checksum of record {number} does not fit", is_torn=is_torn)
    if state not in (PENDING, ACKNOWLEDGED):
        raise _DamageError(f"record {number} has state {state}", is_torn=False)
    return LogRecord(number, body, at, end)


def _encode(number: int, body: bytes) -> bytes:
    counts = _COUNTS.pack(len(body), number)
    header = counts + _CRC.pack(zlib.crc32(counts))
    return header + body + _TRAILER.pack(zlib.crc32(body, zlib.crc32(header)), PENDING)


def _create(path: Path) -> None:
    try:
        with path.open("xb") as file:
            file.write(MAGIC)
        sync(path)
        sync(path.parent)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be made: {_reason(error)}") from error


def _write_all(descriptor: int, content: bytes, at: int) -> None:
    rest: Any = memoryview(content)
    while rest:
        written = os.pwrite(descriptor, rest, at)
        rest, at = rest[written:], at + written


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "the disk is full; make room and try again"
    return error.strerror or str(error)
