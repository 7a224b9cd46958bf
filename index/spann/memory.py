"""What a search of an index holds in memory, and what a budget of it buys.

Held are the heads with the way to them and the record of each posting, the codec, a bit or two per row for what is
alive, and the delta buffer. Raw vectors, postings, ids and metadata are mapped files: pages of theirs are the system's
cache, which it takes back when memory is short.
"""

from __future__ import annotations

import math
from typing import Literal

SCANNED_HEADS = 65_536
"""Up to so many heads are scanned as codes; over that they are the nodes of a graph."""
RECORD_BYTES = 36
"""Per posting: where it is, how long it is, and the same for FAISS."""
GRAPH_BYTES = 145
ROW_BYTES = 300
"""Per row of the delta buffer: id, small metadata, and the look-up by id."""
LIVE_BITS = 2
"""Per row: which are alive, now and on disk."""
MERGE_ROWS = 4096
"""Rows in the delta buffer from which it is merged: comparing with all of them takes well under a millisecond."""
MOST_DELTA = 4
"""Writes wait for a merge once the delta buffer would hold so many times the rows from which it is merged."""
LEAST_DELTA_ROWS = 256
COPIES = 2.8
"""Postings a vector is in, in the mean over sentence embeddings with 8 replicas."""
POSTED_ROW_BYTES = 8
PAGE_BYTES = 4096
DELTA_SHARE = 0.25
"""Part of a budget that the delta buffer gets at most."""


def structure_bytes(heads: int, dimensions: int, codec: str) -> int:
    """Say what the heads and the codec of a segment take; without heads there is nothing."""
    return math.ceil(heads * _head_bytes(heads, dimensions)) + _codec_bytes(dimensions, codec) if heads else 0


def affordable_heads(space: float, dimensions: int, codec: str) -> int:
    """Give the most heads that a segment may have in so many bytes."""
    space -= _codec_bytes(dimensions, codec)
    scanned = math.floor(space / _head_bytes(SCANNED_HEADS, dimensions))
    if scanned <= SCANNED_HEADS:
        return max(0, scanned)
    return max(SCANNED_HEADS, math.floor(space / _head_bytes(SCANNED_HEADS + 1, dimensions)))


def fastest_codec(heads: int, rows: int, dimensions: int) -> Literal["pq", "sq8"]:
    """Say which codec answers soonest in a segment with so many heads.

    ``pq`` scans whole blocks of 32 codes, however few a posting has, and its codes need more candidates compared
    exactly. So ``sq8`` is faster where memory is ample: where one of its postings is a page of the disk or less
    (benchmarks/RESULTS.md, "Codecs"). ``rabitq`` and ``float32`` were not the fastest at any number of heads.
    """
    posting = COPIES * rows / max(1, heads) * (dimensions + POSTED_ROW_BYTES)
    return "sq8" if posting <= PAGE_BYTES else "pq"


def delta_bytes(rows: int, dimensions: int) -> int:
    """Say what the delta buffer takes at most with so many rows; its array has up to twice as many places."""
    return rows * (8 * dimensions + ROW_BYTES)


def delta_rows(budget: float, dimensions: int) -> int:
    """Say how many rows the delta buffer may have in a budget of so many bytes."""
    rows = int(DELTA_SHARE * budget / delta_bytes(1, dimensions))
    return min(MOST_DELTA * MERGE_ROWS, max(LEAST_DELTA_ROWS, rows))


def live_bytes(rows: int) -> int:
    """Say what it takes to know which rows are alive."""
    return LIVE_BITS * -(-rows // 8)


def least_budget_mb(vectors: int, heads: int, dimensions: int, codec: str) -> float:
    """Give the least budget for so many vectors and heads, in 10^6 bytes, rounded up to a tenth."""
    least = structure_bytes(heads, dimensions, codec) + live_bytes(vectors)
    delta = max(delta_bytes(LEAST_DELTA_ROWS, dimensions), DELTA_SHARE / (1 - DELTA_SHARE) * least)
    return math.ceil((least + min(delta, delta_bytes(MOST_DELTA * MERGE_ROWS, dimensions))) / 1e5) / 10


def _head_bytes(heads: int, dimensions: int) -> float:
    width = next(width for width in (4, 2, 1) if dimensions % width == 0)
    way = dimensions / width / 2 if heads <= SCANNED_HEADS else GRAPH_BYTES
    return 4 * dimensions + RECORD_BYTES + way


def _codec_bytes(dimensions: int, codec: str) -> int:
    """Codebook of the codec, or the rotation before it; and the codebook of the heads' codes."""
    own = {"pq": 64 * dimensions, "sq8": 8 * dimensions, "rabitq": 4 * dimensions**2, "float32": 0}
    return own[codec] + 64 * dimensions
