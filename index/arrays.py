"""Named arrays in one file that is never changed: read through a mapping, so that they need no memory of their own.

The file is: 8 bytes of magic; the length of the directory, as 8 bytes; its CRC-32, as 4 bytes; the directory, JSON with
type, length, offset and CRC-32 per array; the arrays, each at a multiple of 64 bytes.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rankers.errors import CorruptIndexError

Arrays = Mapping[str, npt.NDArray[Any]]
"""One-dimensional arrays by name."""
MAGIC = b"SLARRAY1"
ALIGNMENT = 64
_HEADER = struct.Struct("<8sQI")
_READ_BYTES = 1 << 22


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays to a new file and wait for the disk; the folder's entry is left to the caller to sync."""
    entries: dict[str, dict[str, Any]] = {}
    offset = 0
    for name, array in arrays.items():
        crc = zlib.crc32(_bytes(array))
        entries[name] = {"type": array.dtype.str, "length": len(array), "offset": offset, "crc32": crc}
        offset = _aligned(offset + array.nbytes)
    directory = json.dumps(entries).encode()
    start = _aligned(_HEADER.size + len(directory))
    with path.open("wb") as file:
        file.write(_HEADER.pack(MAGIC, len(directory), zlib.crc32(directory)) + directory)
        for name, array in arrays.items():
            file.seek(start + entries[name]["offset"])
            file.write(_bytes(array))
        file.truncate(start + offset)
        file.flush()
        os.fsync(file.fileno())


def open_arrays(path: Path, *, verify: bool = False) -> Arrays:
    """Map the arrays of a file.

    Parameters
    ----------
    path
        What `write_arrays` wrote.
    verify
        Whether to read everything and compare checksums.

    Returns
    -------
    Mapping
        Arrays by name, read-only.

    Raises
    ------
    CorruptIndexError
        If the file is missing, cut short or changed.
    """
    try:
        with path.open("rb") as file:
            magic, length, crc = _HEADER.unpack(file.read(_HEADER.size))
            directory = file.read(min(length, os.fstat(file.fileno()).st_size))
    except FileNotFoundError:
        raise CorruptIndexError(f"{path} is missing") from None
    except struct.error:
        raise CorruptIndexError(f"{path} is cut short: it has no header") from None
    if magic != MAGIC or zlib.crc32(directory) != crc or len(directory) != length:
        raise CorruptIndexError(f"{path} has a damaged header at byte 0")
    start = _aligned(_HEADER.size + length)
    entries = json.loads(directory)
    ends = [e["offset"] + e["length"] * np.dtype(e["type"]).itemsize for e in entries.values()]
    size, expected = path.stat().st_size, start + _aligned(max(ends, default=0))
    if size != expected:
        raise CorruptIndexError(f"{path} has {size} bytes instead of {expected}")
    arrays = {name: _mapped(path, start, entry) for name, entry in entries.items()}
    for name, array in arrays.items() if verify else ():
        if zlib.crc32(_bytes(array)) != entries[name]["crc32"]:
            at = start + entries[name]["offset"]
            raise CorruptIndexError(f"{path} has changed: array {name!r} at byte {at} has another checksum")
    return arrays


def file_crc(path: Path) -> int:
    """CRC-32 of a whole file, read piece by piece."""
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            crc = zlib.crc32(piece, crc)
    return crc


def _mapped(path: Path, start: int, entry: Mapping[str, Any]) -> npt.NDArray[Any]:
    if not entry["length"]:
        return np.empty(0, dtype=entry["type"])
    at = start + entry["offset"]
    # A plain array: np.memmap's own type makes every slice of it slow.
    return np.asarray(np.memmap(path, dtype=entry["type"], mode="r", offset=at, shape=(entry["length"],)))


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    return memoryview(np.ascontiguousarray(array).data).cast("B") if len(array) else memoryview(b"")


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
