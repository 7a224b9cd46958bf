"""Sets of rows, one bit each: uint8 arrays, the first row in the lowest bit of the first byte.

It is the form FAISS's selectors take. Bits after the last row are 0.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Bitmap: TypeAlias = npt.NDArray[np.uint8]


def all_rows(count: int) -> Bitmap:
    """Make the set of all of `count` rows."""
    return pack(np.ones(count, dtype=np.bool_))


def no_rows(count: int) -> Bitmap:
    """Make the empty set of `count` rows."""
    return np.zeros(-(-count // 8), dtype=np.uint8)


def pack(mask: npt.NDArray[np.bool_]) -> Bitmap:
    """Turn a mask [N] into a set."""
    return np.packbits(mask, bitorder="little")


def unpack(bitmap: Bitmap, count: int) -> npt.NDArray[np.bool_]:
    """Turn a set into a mask [count]."""
    return np.unpackbits(bitmap, count=count, bitorder="little").view(np.bool_)


def has(bitmap: Bitmap, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Say of each row whether it is in the set."""
    found: npt.NDArray[np.bool_] = (bitmap[rows >> 3] >> (rows & 7).astype(np.uint8)) & 1 == 1
    return found


def without(bitmap: Bitmap, rows: npt.NDArray[np.int64]) -> Bitmap:
    """Make a copy of a set that lacks some rows; the original stays as it is, for those who search it."""
    copied = bitmap.copy()
    np.bitwise_and.at(copied, rows >> 3, ~(np.uint8(1) << (rows & 7).astype(np.uint8)))
    return copied


def extended(bitmap: Bitmap, count: int, added: int) -> Bitmap:
    """Make a copy of a set of `count` rows with `added` rows more behind them, all in the set."""
    rows = np.arange(count, count + added)
    copied = no_rows(count + added)
    copied[: len(bitmap)] = bitmap
    np.bitwise_or.at(copied, rows >> 3, np.uint8(1) << (rows & 7).astype(np.uint8))
    return copied


def size(bitmap: Bitmap) -> int:
    """Count the rows in a set."""
    return int(_BITS[bitmap].sum())


_BITS = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.int64)
